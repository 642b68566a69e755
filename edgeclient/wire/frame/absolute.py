"""The absolute values of a frame, between its header and its segments (FORMAT.md, section 3.1)."""

from typing import Final

import numpy as np

from edgeclient.compress.absolute import Absolute, rotated
from edgeclient.compress.arrays import F32
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame.header import Origin
from edgeclient.wire.reader import Reader, varint

# At most a twentieth of a frame, in values of 2 bytes; but so many in any frame, so that the few hundred of a small
# network travel every version or two. Of 192, with 8 devices a version, 16 let evaluations fall to .62 of the best
# when the weights moved fast, 64 to .75 (python -m tools.bench statistics, 150 versions).
_FRAME_BYTES: Final = 40
_LEAST: Final = 32
SMALL_BYTES: Final = 256  # below this they would leave too little to the entries
_PLACE_BYTES: Final = 12  # of both varints, at most


def room(absolute: F32, max_bytes: int) -> int:
    """What a frame of `max_bytes` keeps free for some of these (a,)."""
    return 2 * _most(absolute, max_bytes) + _PLACE_BYTES if _most(absolute, max_bytes) else 0


def chosen(absolute: F32, origin: Origin, frame_bytes: int, max_bytes: int) -> Absolute | None:
    """The slice for a frame that takes so many bytes without it; None if there are none, or no room."""
    count = min(_most(absolute, max_bytes), max(_LEAST, frame_bytes // _FRAME_BYTES))
    return rotated(absolute, origin.device, origin.number, count) if count else None


def encode(absolute: Absolute | None) -> bytes:
    """Its bytes; none for None."""
    if absolute is None:
        return b""
    halves = (absolute.values.view(np.uint32) >> np.uint32(16)).astype("<u2")
    return varint(absolute.first) + varint(absolute.values.size) + halves.tobytes()


def read(reader: Reader, size: int) -> Absolute:
    """The section, of a model with `size` parameters; WireError for what FORMAT.md does not allow."""
    first = reader.varint(limit=size - 1)
    reader.mark("absolute: first")
    count = reader.varint(limit=size)
    reader.mark("absolute: count")
    halves = np.frombuffer(reader.take(2 * count), "<u2")
    reader.mark("absolute: values")
    values = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if not count or not np.isfinite(values).all():
        raise WireError("range" if not count else "value", "absolute values that are none, or not finite")
    return Absolute(first, values)


def _most(absolute: F32, max_bytes: int) -> int:
    return min(absolute.size, max(_LEAST, max_bytes // _FRAME_BYTES)) if max_bytes >= SMALL_BYTES else 0
