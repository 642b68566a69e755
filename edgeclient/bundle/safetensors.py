"""The safetensors format, float32 only: a length, a JSON header, raw arrays (github.com/huggingface/safetensors)."""

import json
from collections.abc import Mapping
from math import prod
from typing import Any, Final

import numpy as np

from edgeclient.compress.arrays import F32
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import json_object

MAX_HEADER_BYTES: Final = 1 << 20  # some 10,000 arrays; a hostile header of 16 MiB took 9 s to read (measured)
MAX_DIMENSIONS: Final = 16


def encode(arrays: Mapping[str, F32]) -> bytes:
    """The arrays in their order; the header is padded to a multiple of 8 bytes, as the format asks.

    Example:
        >>> decode(encode({"w": np.ones((1, 2), np.float32)}))
        {'w': array([[1., 1.]], dtype=float32)}
    """
    header: dict[str, Any] = {}
    at = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + 4 * array.size]}
        at += 4 * array.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(each.astype("<f4").tobytes() for each in arrays.values())


def places(data: bytes) -> dict[str, tuple[int, int]]:
    """(offset, length) of each array in `data`, bytes from its beginning: what ONNX calls external data.

    Raises:
        WireError: as `decode`.
    """
    arrays = decode(data)
    at = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, array in arrays.items():
        found[name] = (at, array.nbytes)
        at += array.nbytes
    return found


def decode(data: bytes) -> dict[str, F32]:
    """The arrays by name, in the order of their bytes.

    Raises:
        WireError: not this format, another type than float32, an empty array, gaps, overlaps, NaN or infinity.
    """
    if len(data) < 8:
        raise WireError("truncated", f"{len(data)} bytes are too few for a safetensors header")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise WireError("too-large", f"a header of {length} bytes, at most {MAX_HEADER_BYTES} are allowed")
    if length > len(data) - 8:
        raise WireError("truncated", f"a header of {length} bytes in a file of {len(data)}")
    header = json_object(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + length :]
    arrays: dict[str, F32] = {}
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, end = _offsets(name, entry)
        shape = entry.get("shape")
        if entry.get("dtype") != "F32" or not _is_shape(shape):
            raise WireError("json", f"{name[:80]}: dtype {str(entry.get('dtype'))[:20]}, shape {str(shape)[:80]}")
        if begin != at or end - begin != 4 * prod(shape) or end > len(body):
            raise WireError("range", f"{name[:80]}: bytes {begin} to {end} for shape {shape}")
        numbers = np.frombuffer(body[begin:end], "<f4").astype(np.float32)
        if not np.isfinite(numbers).all():
            raise WireError("value", f"{name[:80]} has NaN or infinity")
        arrays[name] = numbers.reshape(shape)
        at = end
    if at != len(body):
        raise WireError("trailing", f"{len(body) - at} bytes after the last array")
    return arrays


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(each) is int for each in offsets)):
        raise WireError("json", f"{name[:80]} has no data_offsets")
    return offsets[0], offsets[1]


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS and all(type(d) is int and d >= 1 for d in shape)
