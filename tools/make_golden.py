"""Write the golden vectors into tests/golden, in a commit of their own.

Existing files are left alone, since a published layout never changes its meaning.

    python -m tools.make_golden
"""

import json
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.compress.arrays import F32, Array
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.quantise import Mode, quantise
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire import frame
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import FRAME_VERSION, MAX_FRAME_BYTES, WIRE_VERSION
from tools import golden_edges, golden_messages
from tools.golden_messages import EPOCH, described

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
MIXED: Final[tuple[Mode, ...]] = ("step", "sign", "float32")
IN_COLUMNS: Final[tuple[Mode, ...]] = ("sign", "int8", "int4", "float32", "bfloat16")
ORIGIN = frame.Origin("har", "pi-7", bytes.fromhex("00112233"), 11, 4, 320)


def update(size: int, indices: Array, numbers: Any, mode: Mode = "step", runs: tuple[int, ...] = ()) -> SparseUpdate:
    """Of these numbers."""
    return SparseUpdate(size, indices, quantise(np.asarray(numbers, np.float32), 16.0, mode, runs=runs))


def signs(indices: Array) -> F32:
    """Signs that follow no pattern."""
    return np.sign(np.sin(indices.astype(np.float64) ** 2 + 1)).astype(np.float32)


def columns(mode: Mode) -> SparseUpdate:
    """Entries in two columns of a matrix, in a value mode that has no levels in its streams."""
    chosen = np.flatnonzero(np.isin(np.arange(50 * 20) % 20, [3, 11]))
    return update(50 * 20, chosen, np.where(chosen % 20 == 3, -1.0, 1.0) * (1 + chosen / 2000), mode)


def plain_updates() -> dict[str, SparseUpdate]:
    """Those whose writer does not know the tensors."""
    extremes = np.array([1e-45, -5e-41, 3.4e38, -1.0], np.float32)
    levels = [(-1) ** (i // 2) * 0.1 * (1 + 5 * i % 13) for i in range(15)]
    delta = np.sin(np.arange(3000, dtype=np.float64) ** 2).astype(np.float32)
    magnitudes = [(-1) ** i * 0.01 * 1.04**i for i in range(100)]
    modes: tuple[Mode, ...] = ("bfloat16", "int8", "int4", "sign")
    waves = [(2.5 if i % 40 < 14 else 1.0) * (-1) ** (i // 40) for i in range(400)]
    halves = np.concatenate([np.arange(100) * 9, 1000 + np.arange(100) * 90])
    sizes = np.where(np.arange(200) < 100, 1.02, 1.9).astype(np.float32)
    solid = np.delete(np.arange(90), [4, 50, 51])
    return {
        # Values that no step grid can hold: denormal, tiny, extreme.
        "float": SparseUpdate(1 << 40, np.array([0, 7, 1 << 33, (1 << 40) - 1]), FloatValues(extremes)),
        # Every level from 0 to 12, both signs, too few for the context coder.
        "step": update(5000, np.arange(15) * 333, levels),
        # More than one small frame holds.
        "parts": compress_with_feedback(delta, np.zeros(3000, np.float32), k=600)[0],
        # A hundred magnitudes from 0.01 to 0.5, both signs.
        **{mode: update(5000, np.arange(100) * 50, magnitudes, mode) for mode in modes},
        # Levels and signs that come in waves: cheaper as a row of the context coder than as nested sets.
        "row": update(40_000, np.arange(400) * 97, waves),
        # Two tensors of different magnitudes, with centroids of their own; no signs, or some that no stream is worth.
        "runs": update(10_000, halves, sizes, runs=(100, 100)),
        "range-runs": (crooked := update(10_000, halves, sizes * signs(halves), runs=(100, 100))),
        "runs-parts": crooked,
        # Absolute values of the model in the first frame.
        "absolute": update(5000, np.arange(15) * 333, levels),
        "absolute-parts": crooked,
        # All of a short vector but three places.
        "range-dense": update(90, solid, np.cos(solid.astype(np.float64)), "int4"),
    }


def tensor_updates() -> dict[str, SparseUpdate]:
    """Those that are coded by tensor."""
    rare = np.concatenate([np.arange(40) ** 2, 5000 + np.arange(30) * 15])
    dense = np.concatenate([np.delete(np.arange(100), [7, 8, 60]), np.arange(100, 120)])
    row, column = np.divmod(np.arange(64 * 32), 32)
    busy = np.flatnonzero((column == 3) | (column == 17) | ((column == 30) & (row % 2 == 0)))
    solid, waves = np.where(column[busy] == 17, -1.0, 1.2), np.arange(400)
    swell = np.where(waves % 40 < 14, 2.5, 1.0) * (-1) ** (waves // 40)
    parts = [
        np.flatnonzero(np.arange(40 * 24) % 24 == 5),
        960 + np.array([3, 77, 801, 1500]),
        2960 + np.delete(np.arange(40), 11),
        3000 + np.flatnonzero(np.arange(30 * 20) // 20 % 10 == 4),
    ]
    mixed = np.concatenate(parts)
    return {
        # Few entries in the first and third of three tensors, none in the second.
        "tensors": update(6000, rare, np.sin(rare + 1.0), "float32"),
        # Nearly all of a small tensor, all of another, nothing of a large one.
        "dense": update(5000, dense, np.cos(dense.astype(np.float64)), "int8"),
        # Three columns of a matrix, with signs of their own: what the context coder is for.
        "context": update(64 * 32, busy, solid),
        "activity": (related := related_update()),
        "part-tensors": related,
        # A busy matrix as a stream, a sparse vector as a set, the rest of a dense one, another stream.
        **{f"mixed-{mode}": update(3600, mixed, np.float32(1.6) * signs(mixed), mode) for mode in MIXED},
        # The same matrix as in "context", then entries whose signs and levels are a row.
        "mixed-row": update(
            2048 + (2 << 20), np.concatenate([busy, 2048 + waves * 5000]), np.concatenate([solid, swell])
        ),
        **{f"context-{mode}": columns(mode) for mode in IN_COLUMNS},
    }


def related_update() -> SparseUpdate:
    """A flat and a tall tensor that are busy at the same of 50 places: in rows whose signs go along, or against."""
    busy = np.array([2, 3, 11, 20, 21, 22, 40, 49])
    flat = (np.arange(20)[:, None] * 50 + busy)[(np.arange(20)[:, None] + busy) % 7 > 0]
    tall = (busy[:, None] * 20 + np.array([1, 6, 7, 15])).ravel()
    along, against = np.where((flat % 50 + flat // 50 % 2) % 2 == 0, 1.0, -1.0), np.where(tall % 20 == 6, -1.0, 1.0)
    of_tall = 1.3 * np.where(tall // 20 % 3 == 0, -1.0, 1.0) * against
    return update(2000, np.concatenate([flat, 1000 + tall]), np.concatenate([along, of_tall]))


TENSORS: Final[dict[str, Tensors]] = {
    "tensors": [(40, 50), (30, 100), (10, 100)],
    "dense": [(1, 100), (1, 20), (40, 122)],
    "context": [(64, 32)],
    "runs": [(10, 100), (90, 100)],
    "activity": [(20, 50), (50, 20)],
    "part-tensors": [(20, 50), (50, 20)],
    **{f"mixed-{mode}": [(40, 24), (1, 2000), (1, 40), (30, 20)] for mode in MIXED},
    "mixed-row": [(64, 32), (1, 2 << 20)],
    **{f"context-{mode}": [(50, 20)] for mode in IN_COLUMNS},
}
ROOM: Final = {"parts": 160, "part-tensors": 80, "runs-parts": 160, "absolute-parts": 256}  # bytes of a frame
# What the model has of absolute values: fewer than a frame takes, and more, so that a slice begins at its end.
ABSOLUTE: Final[dict[str, F32]] = {
    "absolute": np.array([0, 1e-45, 0.3, -2.5, 2.0**36], np.float32),
    "absolute-parts": np.linspace(0, 3, 40, dtype=np.float32),
}


def main() -> None:
    """Write what is not there yet."""
    others = {**golden_messages.vectors(), **golden_edges.vectors()}
    found = {f"v{WIRE_VERSION}-{name}": vector for name, vector in others.items()}
    for name, sent in {**plain_updates(), **tensor_updates()}.items():
        tensors = TENSORS.get(name)
        room, absolute = ROOM.get(name, MAX_FRAME_BYTES), ABSOLUTE.get(name)
        if absolute is None:
            made = frame.encode_update(sent, ORIGIN, room, tensors=tensors)
        else:
            made = list(chain(*frame.encode_layers(sent, ORIGIN, frame.Coding(room, tensors), absolute)))
        data = [frame.stamp(body, epoch=EPOCH, sequence=5 + i) for i, body in enumerate(made)]
        found[f"v{FRAME_VERSION}-frame-{name}"] = [(each, described(each, tensors)) for each in data]
    FOLDER.mkdir(exist_ok=True)
    for name, vector in found.items():
        path = FOLDER / f"{name}.hex"
        if path.exists():
            print(f"{path.name} is there already")
            continue
        path.write_text("".join(each.hex() + "\n" for each, _ in vector))
        path.with_suffix(".json").write_text(json.dumps([meaning for _, meaning in vector], indent=1) + "\n")


if __name__ == "__main__":
    main()
