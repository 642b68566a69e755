"""Entries per second: coding positions alone, whole frames in every value mode, and the context coder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import numpy as np

from edgeclient.commands.doctor.bench import seconds_of
from edgeclient.compress.arrays import F32, I64, Bools
from edgeclient.compress.quantise import Mode, quantise
from edgeclient.compress.update import SparseUpdate, add
from edgeclient.wire import frame
from edgeclient.wire.frame import codes, context, rice
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.reader import Reader
from tools.bench import report

DENSITY: Final = 0.01
SIZE: Final = 100_000_000
QUICK_SIZE: Final = 10_000_000
MODES: Final[tuple[Mode, ...]] = ("step", "sign", "int4", "int8", "bfloat16", "float32")
CONTEXT_ROWS, CONTEXT_COLUMNS = 1024, 1024
TURNS: Final = 9
QUICK_TURNS: Final = 5
_ORIGIN: Final = frame.Origin("bench", "device-1", bytes(4), 100, 100, 500)
# What is coded, and what is decoded and added again.
Pair = tuple[Callable[[], object], Callable[[], object]]


@click.command("codec")
@report.options("Under a minute: ten million parameters.")
def codec_command(seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """Entries per second on one core, at density 1 %: encoding, and decoding and adding to a dense float32 vector.

    Rows "rice" code and decode positions alone (and add a constant), rows "frame" whole frames of 64 KiB with header,
    values and checksum. "context" is the context coder, which counts positions, at its slowest: with activity and ties.
    All rows take turns.

    \b
    Example:
      python -m tools.bench codec --json
    """
    rng = np.random.default_rng(seed)
    n = QUICK_SIZE if quick else SIZE
    indices = np.sort(rng.integers(0, n, round(n * DENSITY)))
    indices = indices[np.diff(indices, prepend=-1) > 0]
    dense = np.zeros(n, np.float32)
    contenders: dict[str, Pair] = {}
    for accel in ("numba", "numpy"):
        contenders[f"rice {accel}"] = _rice(indices, dense, accel)
    numbers = (rng.uniform(1, 1.2, indices.size) * rng.choice([-1, 1], indices.size)).astype(np.float32)
    for mode in MODES:
        contenders[f"frame {mode}"] = _frames(SparseUpdate(n, indices, quantise(numbers, 16.0, mode)), dense)
    total = CONTEXT_ROWS * CONTEXT_COLUMNS
    chosen = np.flatnonzero(rng.random(total) < DENSITY)
    contenders["context"] = _context(chosen, rng.random(chosen.size) < 0.5)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range((QUICK_TURNS if quick else TURNS) + 1):
        for name, pair in contenders.items():
            taken = seconds_of(pair[0]), seconds_of(pair[1])
            if turn:  # the first compiles
                seconds[name].append(taken)
    rows = []
    for name, turns in seconds.items():
        k, of = (chosen.size, total) if name == "context" else (indices.size, n)
        encode, decode = median(each for each, _ in turns), median(each for _, each in turns)
        rates = {"encode_mentries_s": k / encode / 1e6, "decode_add_mentries_s": k / decode / 1e6}
        rows.append({"mode": name, **rates, "positions_mps": of / max(encode, decode) / 1e6})
    if out is not None:
        _plot(rows, out)
    report.tell({"n": n, "density": DENSITY}, rows, as_json=as_json, seed=seed)


def _rice(indices: I64, dense: F32, accel: Any) -> Pair:
    ones = np.ones(indices.size, np.float32)
    code, _ = codes.best(indices)
    data = rice.encode([(indices, code)], accel=accel)
    sets = [codes.Set(indices.size, dense.size, code)]
    return (
        lambda: rice.encode([(indices, codes.best(indices)[0])], accel=accel),
        lambda: add(dense, rice.decode(Reader(data), sets, accel=accel)[0], ones),
    )


def _frames(update: SparseUpdate, dense: F32) -> Pair:
    made = frame.encode_update(update, _ORIGIN, MAX_FRAME_BYTES)

    def decode() -> None:
        for data in made:
            frame.decode(data).update.add_to(dense)

    return lambda: frame.encode_update(update, _ORIGIN, MAX_FRAME_BYTES), decode


def _context(chosen: I64, negative: Bools) -> Pair:
    levels = np.zeros(chosen.size, np.uint8)
    rows, columns = np.divmod(chosen, CONTEXT_COLUMNS)
    counts = np.bincount(rows, minlength=CONTEXT_ROWS), np.bincount(columns, minlength=CONTEXT_COLUMNS)
    activity = context.grades(counts[0]), context.grades(counts[1])
    data = context.encode(CONTEXT_ROWS, CONTEXT_COLUMNS, chosen, negative, levels, activity)
    return (
        lambda: context.encode(CONTEXT_ROWS, CONTEXT_COLUMNS, chosen, negative, levels, activity),
        lambda: context.decode(data, CONTEXT_ROWS, CONTEXT_COLUMNS, chosen.size, activity),
    )


def _plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with report.figure(out / "codec.png", 8, 4) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))
        axes.bar(places - 0.2, [row["encode_mentries_s"] for row in rows], 0.4, label="encode")
        axes.bar(places + 0.2, [row["decode_add_mentries_s"] for row in rows], 0.4, label="decode and add")
        axes.set_xticks(places, [row["mode"] for row in rows], rotation=30, ha="right")
        axes.set_yscale("log")
        axes.set_ylabel("million entries per second")
        axes.legend()
