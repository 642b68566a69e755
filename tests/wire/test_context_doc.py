"""CONTEXT.md is normative: its numbers are the model's, its streams are decoded and made again."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgeclient import wire
from edgeclient.compress.accel import Accel
from edgeclient.wire.frame import context, context_model
from edgeclient.wire.frame.context_model import ONE, ROOT, STEEPEST, start, tables

TEXT = (Path(wire.__file__).parent / "CONTEXT.md").read_text().replace("−", "-")


def rows(first: str) -> list[list[str]]:
    """Cells of the table whose first heading is `first`."""
    (block,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\|\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in block.splitlines()]


STREAMS = rows("rows × columns")


def power(i: int) -> int:
    made = 1 << 62
    for _ in range(i):
        made = made * ROOT >> 62
    return made


def evaluated(text: str) -> int:
    """A number such as 2^28 - 1."""
    found = re.fullmatch(r"(-?\d+)(?:\^(\d+))?(?: - (\d+))?", text.strip())
    assert found, text
    return int(int(found[1]) ** int(found[2] or 1)) - int(found[3] or 0)


def test_worked_numbers() -> None:
    squash, stretch, _ = tables()
    state = start(np.zeros(4, np.uint8), 4, (2, 3, 2), decoding=False, known=False, ties=False)
    functions = {
        "power": power,
        "squash": lambda i: int(squash[i + STEEPEST]),
        "stretch": lambda p: int(stretch[p >> 12]),
        **{name: getattr(state, name).__getitem__ for name in ("steady", "quick", "brisk")},
    }
    found = rows("of")
    for what, numbers in found:
        name, arguments = what.split("` of ")
        given = [evaluated(each) for each in arguments.split(" for ")[0].split(",")]
        assert [int(functions[name](each)) for each in given] == [int(each) for each in numbers.split(",")], name
    assert {what.split("`")[0] for what, _ in found} == functions.keys()
    assert state.p[0] == evaluated("89478485")
    assert f"0x{ROOT:X}" in TEXT
    assert ONE == 1 << 28


def test_the_trace_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    coded, whole = [], context_model.bit

    def bit(coder: list[int], data: list[int], y: int, p: int) -> int:
        made = whole(coder, data, y, p)
        coded.append([y, p, coder[1], coder[2], coder[4]])
        return made

    monkeypatch.setattr(context_model, "bit", bit)
    made = context.encode(2, 3, np.array([1, 4]), np.array([True, False]), np.array([0, 2], np.uint8), accel="numpy")
    assert made.hex() == "6761"
    assert [[int(each) for each in row[2:]] for row in rows("bit")] == coded


@pytest.mark.parametrize("accel", ["numpy", "numba"])
@pytest.mark.parametrize("row", STREAMS, ids=lambda row: row[3])
def test_streams(row: list[str], accel: Accel) -> None:
    height, width = (int(each) for each in row[0].split(" × "))
    entries = [re.fullmatch(r"(\d+)([+-])(\d+)", each.strip()) for each in row[2].split(",")]
    indices, signs, levels = zip(*(each.groups() for each in entries if each), strict=True)
    assert len(indices) == len(entries)
    activity = None
    if row[1] != "alone":
        of_rows, of_columns = (np.array(each.split(), np.uint8) for each in row[1].split(" / "))
        activity = of_rows, of_columns
    stream = bytes.fromhex(row[3])
    negative = np.array([sign == "-" for sign in signs])
    heights = np.array(levels, np.uint8)
    made = context.encode(height, width, np.array(indices, np.int64), negative, heights, activity, accel=accel)
    assert made == stream
    found = context.decode(stream, height, width, len(indices), activity, accel=accel)
    assert found[0].tolist() == [int(each) for each in indices]
    assert found[1].tolist() == negative.tolist()
    assert found[2].tolist() == heights.tolist()
