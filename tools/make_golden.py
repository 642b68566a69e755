"""Write the golden vectors into tests/golden, in a commit of their own.

Existing files are left alone, since a published layout never changes its meaning.

    python -m tools.make_golden
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.quantise import Mode, quantise
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire import frame
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import FRAME_VERSION, MAX_FRAME_BYTES, WIRE_VERSION
from tools import golden_messages

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
ORIGIN = frame.Origin("har", "pi-7", bytes.fromhex("00112233"), 11, 4, 320)
EPOCH = 0xFEDCBA9876543210


def float_update() -> SparseUpdate:
    """Values that no step grid can hold: denormal, tiny, extreme."""
    numbers = np.array([1e-45, -5e-41, 3.4e38, -1.0], np.float32)
    return SparseUpdate(1 << 40, np.array([0, 7, 1 << 33, (1 << 40) - 1]), FloatValues(numbers))


def step_update() -> SparseUpdate:
    """Every level from 0 to 12, both signs, too few for the context coder."""
    numbers = np.array([(-1) ** (i // 2) * 0.1 * (1 + 5 * i % 13) for i in range(15)], np.float32)
    return SparseUpdate(5000, np.arange(15) * 333, quantise(numbers, 16.0))


def long_update() -> SparseUpdate:
    """More than one small frame holds."""
    delta = np.sin(np.arange(3000, dtype=np.float64) ** 2).astype(np.float32)
    return compress_with_feedback(delta, np.zeros(3000, np.float32), k=600)[0]


def frames(update: SparseUpdate, tensors: Tensors | None, max_bytes: int) -> list[bytes]:
    """Stamped frames of an update, from sequence 5."""
    made = frame.encode_update(update, ORIGIN, max_bytes, tensors=tensors)
    return [frame.stamp(body, epoch=EPOCH, sequence=5 + i) for i, body in enumerate(made)]


def described(data: bytes, tensors: Tensors | None) -> dict[str, Any]:
    """What a frame says, in plain numbers; floats in hexadecimal, so that no bit is lost."""
    made = frame.decode(data, tensors)
    fields = {name: getattr(made, name) for name in made.__slots__ if name != "update"}
    return {
        **fields,
        **({"tensors": tensors} if tensors else {}),
        "layout_tag": made.layout_tag.hex(),
        "size": made.update.size,
        "indices": made.update.indices.tolist(),
        "values": [float(value).hex() for value in made.update.values.decoded()],
    }


def values_update(mode: Mode) -> SparseUpdate:
    """A hundred magnitudes from 0.01 to 0.5, both signs."""
    numbers = np.array([(-1) ** i * 0.01 * 1.04**i for i in range(100)], np.float32)
    return SparseUpdate(5000, np.arange(100) * 50, quantise(numbers, 16.0, mode))


def rare_update() -> SparseUpdate:
    """Few entries in the first and third of three tensors, none in the second."""
    indices = np.concatenate([np.arange(40) ** 2, 5000 + np.arange(30) * 15])
    return SparseUpdate(6000, indices, quantise(np.sin(indices + 1.0).astype(np.float32), 16.0, "float32"))


def dense_update() -> SparseUpdate:
    """Nearly all of a small tensor, all of another, nothing of a large one."""
    indices = np.concatenate([np.delete(np.arange(100), [7, 8, 60]), np.arange(100, 120)])
    return SparseUpdate(5000, indices, quantise(np.cos(indices.astype(np.float64)).astype(np.float32), 16.0, "int8"))


def column_update() -> SparseUpdate:
    """Entries in three columns of a matrix, with signs of their own: what the context coder is for."""
    rows, columns = np.divmod(np.arange(64 * 32), 32)
    chosen = np.flatnonzero((columns == 3) | (columns == 17) | ((columns == 30) & (rows % 2 == 0)))
    numbers = np.where(columns[chosen] == 17, -1.0, 1.2).astype(np.float32)
    return SparseUpdate(64 * 32, chosen, quantise(numbers, 16.0))


def level_update() -> SparseUpdate:
    """Levels and signs that come in waves: cheaper as a row of the context coder than as nested sets."""
    numbers = np.array([(2.5 if i % 40 < 14 else 1.0) * (-1) ** (i // 40) for i in range(400)], np.float32)
    return SparseUpdate(40_000, np.arange(400) * 97, quantise(numbers, 16.0))


def run_update(*, signed: bool) -> SparseUpdate:
    """Two tensors of different magnitudes, with centroids of their own; signs that no stream is worth, or none."""
    indices = np.concatenate([np.arange(100) * 9, 1000 + np.arange(100) * 90])
    numbers = np.where(np.arange(200) < 100, 1.02, 1.9).astype(np.float32) * (_signs(indices) if signed else 1)
    return SparseUpdate(10_000, indices, quantise(numbers, 16.0, runs=(100, 100)))


def related_update() -> SparseUpdate:
    """A flat and a tall tensor that are busy at the same of 50 places: in rows whose signs go along, or against."""
    busy = np.array([2, 3, 11, 20, 21, 22, 40, 49])
    flat = (np.arange(20)[:, None] * 50 + busy)[(np.arange(20)[:, None] + busy) % 7 > 0]
    tall = (busy[:, None] * 20 + np.array([1, 6, 7, 15])).ravel()
    signs = np.where((flat % 50 + flat // 50 % 2) % 2 == 0, 1.0, -1.0), np.where(tall // 20 % 3 == 0, -1.0, 1.0)
    against = np.where(tall % 20 == 6, -1.0, 1.0)
    numbers = np.concatenate([signs[0], 1.3 * signs[1] * against]).astype(np.float32)
    return SparseUpdate(2000, np.concatenate([flat, 1000 + tall]), quantise(numbers, 16.0))


def solid_update() -> SparseUpdate:
    """All of a short vector but three places, by a writer that does not know its tensors."""
    indices = np.delete(np.arange(90), [4, 50, 51])
    return SparseUpdate(90, indices, quantise(np.cos(indices.astype(np.float64)).astype(np.float32), 16.0, "int4"))


def mixed_update() -> SparseUpdate:
    """A busy matrix as a stream, a sparse vector as a set, the rest of a dense one, another stream."""
    columns = np.flatnonzero(np.arange(40 * 24) % 24 == 5)
    sparse = 960 + np.array([3, 77, 801, 1500])
    dense = 2960 + np.delete(np.arange(40), 11)
    rows = 3000 + np.flatnonzero(np.arange(30 * 20) // 20 % 10 == 4)
    indices = np.concatenate([columns, sparse, dense, rows])
    return SparseUpdate(3600, indices, quantise(np.float32(1.6) * _signs(indices), 16.0))


def _signs(indices: I64) -> F32:
    """Signs that follow no pattern."""
    return np.sign(np.sin(indices.astype(np.float64) ** 2 + 1)).astype(np.float32)


def column_values(mode: Mode) -> SparseUpdate:
    """Entries in two columns of a matrix, in a value mode that has no levels in its streams."""
    chosen = np.flatnonzero(np.isin(np.arange(50 * 20) % 20, [3, 11]))
    numbers = np.where(chosen % 20 == 3, -1.0, 1.0) * (1 + chosen / 2000)
    return SparseUpdate(50 * 20, chosen, quantise(numbers.astype(np.float32), 16.0, mode))


def main() -> None:
    """Write what is not there yet."""
    whole = MAX_FRAME_BYTES
    vectors: dict[str, tuple[SparseUpdate, Tensors | None, int]] = {
        "float": (float_update(), None, whole),
        "step": (step_update(), None, whole),
        "parts": (long_update(), None, 160),
        "bfloat16": (values_update("bfloat16"), None, whole),
        "int8": (values_update("int8"), None, whole),
        "int4": (values_update("int4"), None, whole),
        "sign": (values_update("sign"), None, whole),
        "tensors": (rare_update(), [(40, 50), (30, 100), (10, 100)], whole),
        "dense": (dense_update(), [(1, 100), (1, 20), (40, 122)], whole),
        "context": (column_update(), [(64, 32)], whole),
        "row": (level_update(), None, whole),
        "runs": (run_update(signed=False), [(10, 100), (90, 100)], whole),
        "activity": (related_update(), [(20, 50), (50, 20)], whole),
        "part-tensors": (related_update(), [(20, 50), (50, 20)], 80),
        "range-runs": (run_update(signed=True), None, whole),
        "range-dense": (solid_update(), None, whole),
        "mixed": (mixed_update(), [(40, 24), (1, 2000), (1, 40), (30, 20)], whole),
        "context-sign": (column_values("sign"), [(50, 20)], whole),
        "context-int8": (column_values("int8"), [(50, 20)], whole),
        "context-float": (column_values("float32"), [(50, 20)], whole),
    }
    found = {f"v{WIRE_VERSION}-{name}": vector for name, vector in golden_messages.vectors().items()}
    for name, (update, tensors, max_bytes) in vectors.items():
        data = frames(update, tensors, max_bytes)
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
