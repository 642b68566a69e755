"""Bits per entry of whole frames, on uniform masks and on those of real training, beside what others would send."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from math import lgamma, log
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from edgeclient.commands.frame import group_of
from edgeclient.compress.arrays import I64
from edgeclient.compress.quantise import quantise
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import frame
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.reader import Field
from tools import masks
from tools.bench import report

# n, density, bytes of a frame; the last is seven billion parameters in one.
UNIFORM: Final = (
    (1_000_000, 0.001, MAX_FRAME_BYTES),
    (1_000_000, 0.01, MAX_FRAME_BYTES),
    (1_000_000, 0.05, MAX_FRAME_BYTES),
    (10_000_000, 0.001, MAX_FRAME_BYTES),
    (100_000_000, 0.001, MAX_FRAME_BYTES),
    (100_000_000, 0.01, MAX_FRAME_BYTES),
    (7_000_000_000, 0.001, 1 << 30),
)
SIGNATURE: Final = 64
# Dense formats of larger vectors take minutes and say nothing new.
OTHERS_UP_TO: Final = 100_000_000
_ORIGIN: Final = frame.Origin("bench", "device-1", bytes(4), 100, 100, 500)


@click.command("wire")
@report.options("Under a minute: up to ten million parameters.")
def wire_command(seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """Bits per entry: the floor log2 C(n, k) / k, our frames and their parts, and other formats.

    Of real training, first all captured rounds but the one that the coder was tuned on, then each round alone. Late
    rounds cost more: what is worth sending has spread.

    Mode "range" does not know the tensors, "tensors" does. Positions include streams of the context coder, which hold
    signs and levels too. Values are on the step grid; uniform masks have magnitudes as error feedback leaves them, up
    to 1.2 times the threshold. Pairs are 64 bits; the other formats count a float32 value as 0 bits: positions alone.

    \b
    Example:
      python -m tools.bench wire --json --out plots
    """
    rng = np.random.default_rng(seed)
    rows = [_uniform(n, density, room, rng) for n, density, room in UNIFORM if n <= 10**7 or not quick]
    for path in sorted(masks.COMMITTED.glob("*.npz")):
        source, _, density = path.stem.rpartition("-")
        tensors, captured = masks.load(path)
        fresh = [each for each in captured if each.round != masks.TUNED[source]]
        rows += [_captured(source, float(density), fresh, tensors, known) for known in (None, tensors)]
        by_round = [list(each) for _, each in groupby(captured, key=lambda each: each.round)]
        if len(by_round) > 2:  # else the row before says it
            rows += [_captured(source, float(density), each, tensors, tensors) for each in by_round]
    if out is not None:
        _plot(rows, out)
    report.tell({}, rows, as_json=as_json, seed=seed)


def _uniform(n: int, density: float, room: int, rng: np.random.Generator) -> dict[str, Any]:
    k = round(n * density)
    drawn = np.sort(rng.integers(0, n, k + k // 8 + 100))  # np.unique takes half a minute
    drawn = drawn[np.diff(drawn, prepend=-1) > 0]
    indices = np.sort(rng.permutation(drawn)[:k])
    numbers = (rng.uniform(1, 1.2, k) * rng.choice([-1, 1], k)).astype(np.float32)
    update = SparseUpdate(n, indices, quantise(numbers, 16.0))
    return _row("uniform", density, [(update, None)], room, "range")


def _captured(
    source: str, density: float, captured: Sequence[masks.Captured], tensors: Tensors, known: Tensors | None
) -> dict[str, Any]:
    rounds = ",".join(map(str, sorted({each.round for each in captured})))
    pairs = [(each.update(tensors), known) for each in captured]
    return _row(source, density, pairs, MAX_FRAME_BYTES, "tensors" if known else "range", rounds)


def _row(
    source: str,
    density: float,
    updates: Sequence[tuple[SparseUpdate, Tensors | None]],
    room: int,
    mode: str,
    rounds: str | None = None,
) -> dict[str, Any]:
    bits: Counter[str] = Counter()
    frames, entries = 0, 0
    for update, tensors in updates:
        made = frame.encode_update(update, _ORIGIN, room, tensors=tensors)
        trace: list[Field] = []
        parts = []
        for data in made:
            parts.append(frame.decode(data, tensors, max_bytes=room, trace=trace).update)
            for field in trace:
                bits[group_of(field.name)] += 8 * (field.end - field.start)
            trace.clear()
            bits["frame"] += 8 * len(data)
        assert np.array_equal(np.concatenate([part.indices for part in parts]), update.indices)
        assert np.array_equal(np.concatenate([part.values.decoded() for part in parts]), update.values.decoded())
        frames += len(made)
        entries += update.indices.size
        bits.update(_others(update.indices, update.size))
    per = {name: count / entries for name, count in bits.items()}
    others = {f"{name}_bits": per.get(name) for name in ("leb128_zstd", "bitmap_zstd", "roaring")}
    return {
        "source": source,
        "n": updates[0][0].size,
        "density": density,
        "rounds": rounds,
        "updates": len(updates),
        "mode": mode,
        "frames": frames,
        "floor_bits": sum(_floor(each.size, each.indices.size) for each, _ in updates) / entries,
        "position_bits": per.get("positions", 0.0) + per.get("context", 0.0),
        "value_bits": per.get("values", 0.0),
        "frame_bits": per["frame"],
        "signed_bits": per["frame"] + 8 * SIGNATURE * frames / entries,
        "pairs64_bits": 64.0,
        **others,
    }


def _floor(n: int, k: int) -> float:
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def _others(indices: I64, n: int) -> dict[str, int]:
    """Bits of the positions in formats that others use."""
    if n > OTHERS_UP_TO:
        return {}
    import pyroaring  # noqa: PLC0415 (of the extra [dev], like the next)
    import zstandard  # noqa: PLC0415

    squeezed = zstandard.ZstdCompressor(level=19 if n <= 10**7 else 3)
    bitmap = np.zeros(n, np.uint8)
    bitmap[indices] = 1
    roaring = pyroaring.BitMap(indices.astype(np.uint32))
    roaring.run_optimize()
    return {
        "leb128_zstd": 8 * len(squeezed.compress(_leb128(np.diff(indices, prepend=-1) - 1))),
        "bitmap_zstd": 8 * len(squeezed.compress(np.packbits(bitmap).tobytes())),
        "roaring": 8 * len(roaring.serialize()),
    }


def _leb128(gaps: I64) -> bytes:
    digits = np.stack([(gaps >> shift) & 0x7F for shift in range(0, 42, 7)], axis=1)
    later = np.stack([gaps >> shift > 0 for shift in range(7, 49, 7)], axis=1)
    present = np.column_stack([np.ones(gaps.size, np.bool_), later[:, :-1]])
    made: bytes = (digits | later.astype(np.int64) << 7)[present].astype(np.uint8).tobytes()
    return made


def _plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with report.figure(out / "wire.png", 10, 0.5 + 0.4 * len(rows)) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        positions = [row["position_bits"] for row in rows]
        values = [row["value_bits"] for row in rows]
        rest = [row["frame_bits"] - row["position_bits"] - row["value_bits"] for row in rows]
        axes.barh(places, positions, label="positions, streams")
        axes.barh(places, values, left=positions, label="values")
        axes.barh(places, rest, left=np.add(positions, values), label="header, checksum")
        axes.plot([row["floor_bits"] for row in rows], places, "k|", markersize=14, label="floor of uniform positions")
        for name, mark in [("leb128_zstd_bits", "x"), ("bitmap_zstd_bits", "+"), ("roaring_bits", ".")]:
            axes.plot([row[name] for row in rows], places, mark, label=f"{name.removesuffix('_bits')}, positions alone")
        names = [
            f"{row['source']} {row['n']:.3g}, {row['density']:.1%}, {row['mode']}"
            + (f", round {row['rounds']}" if row["rounds"] else "")
            for row in rows
        ]
        axes.set_yticks(places, names)
        axes.set_xlabel("bits per entry")
        axes.legend()
