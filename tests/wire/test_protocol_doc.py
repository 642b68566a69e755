"""PROTOCOL.md is normative: its tables are those of the code."""

import re
from pathlib import Path

import edgeclient
from edgeclient import wire
from edgeclient.wire.life import LIFE

TEXT = (Path(wire.__file__).parent / "PROTOCOL.md").read_text()


def rows(heading: str, columns: int) -> list[list[str]]:
    """Cells of the first table under a heading."""
    (section,) = re.findall(rf"^## \d+\. {heading}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    table = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == columns for row in table)
    return table


def test_the_life_of_a_frame() -> None:
    told = [(state, event, then) for state, event, then in rows("The life of a frame on the device", 3)]
    assert told == [(state.value, event.value, then.value if then else "gone") for (state, event), then in LIFE.items()]


def test_every_crash_point_of_the_device_is_told() -> None:
    source = "".join(path.read_text() for path in Path(edgeclient.__file__).parent.rglob("*.py"))
    points = set(re.findall(r'failpoint\.hit\("([^"]+)"\)', source)) - {"durable.before-commit\\"}
    assert {point for point, _ in rows("Crash points of the device", 2)} == points
