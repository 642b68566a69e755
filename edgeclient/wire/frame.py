"""The frame: an update, or a coordinate range of one, as the bytes of one MQTT message.

FORMAT.md, sections 3 and 4. Every frame decodes and applies alone.

Example:
    >>> from edgeclient.compress.feedback import compress_with_feedback
    >>> delta = np.array([0, 3, 0, -3, 0], np.float32)
    >>> update, _ = compress_with_feedback(delta, np.zeros(5, np.float32), k=2)
    >>> made = encode_update(update, Origin("har", "pi-7", b"layout-8", 1, 4, 320), MAX_FRAME_BYTES)
    >>> decode(stamp(made[0], epoch=7, sequence=0)).update.values.decoded()
    array([ 3., -3.], dtype=float32)
"""

import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final

import numpy as np

from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import positions, values
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_FRAME_BYTES, MAX_SIZE, WIRE_VERSION
from edgeclient.wire.messages import FRAME, MAGIC, check_prefix
from edgeclient.wire.reader import Reader, sealed, unsealed

# magic · version · kind · flags · value mode · position mode · reserved · address · layout · epoch · sequence
# · update · part · parts · base version · examples · size · first coordinate · entries
_HEADER: Final = struct.Struct("<2sBBBBBBI8sQIIHHIIQQI")
HEADER_BYTES: Final = _HEADER.size
_IDENTITY: Final = struct.Struct("<QI")
_IDENTITY_AT: Final = 20
RICE: Final = 0
MAX_PARTS: Final = 0xFFFF
MAX_U32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an update comes from: everything in a header but its identity and its entries.

    Attributes:
        task: task id; with `device` it makes the address that the aggregator compares.
        device: device id.
        layout_tag: first 8 bytes of the layout digest.
        number: the update's number within its epoch.
        base_version: model version that the delta was trained from.
        num_examples: local examples behind it, at least 1.
    """

    task: str
    device: str
    layout_tag: bytes
    number: int
    base_version: int
    num_examples: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded frame; `update` may be one coordinate range of a larger update."""

    address: int
    layout_tag: bytes
    epoch: int
    sequence: int
    number: int
    part: int
    parts: int
    base_version: int
    num_examples: int
    update: SparseUpdate


def address(task: str, device: str) -> int:
    """What ties a frame to its topic, so that one published elsewhere is noticed."""
    return zlib.crc32(f"{task}/{device}".encode())


def digest(frame: bytes) -> bytes:
    """8 bytes that tell two frames of the same identity apart."""
    return sha256(frame).digest()[:8]


def encode_update(update: SparseUpdate, origin: Origin, max_bytes: int) -> list[bytes]:
    """Pack an update into as few frames as hold it, each at most `max_bytes`.

    The frames carry no identity yet: `stamp` gives epoch and sequence when they are first sent. An
    update without entries makes no frame.

    Raises:
        WireError: "too-large", when not even one entry per frame fits.
    """
    k = int(update.indices.size)
    parts = 1
    while k:
        bounds = [k * part // parts for part in range(parts + 1)]
        frames = [
            _encode_part(update.between(first, last), origin, part, parts)
            for part, (first, last) in enumerate(pairwise(bounds))
        ]
        largest = max(map(len, frames))
        if largest <= max_bytes:
            return frames
        if parts >= min(k, MAX_PARTS):
            break
        # Ranges of equal rank cost nearly the same, so the next guess usually fits; 3 % against ups and downs.
        parts = min(k, MAX_PARTS, max(parts + 1, int(parts * largest / max_bytes * 1.03)))
    if not k:
        return []
    raise WireError("too-large", f"{k} entries do not fit into frames of {max_bytes} bytes")


def _encode_part(update: SparseUpdate, origin: Origin, part: int, parts: int) -> bytes:
    first = int(update.indices[0])
    header = _HEADER.pack(
        MAGIC, WIRE_VERSION, FRAME, 0, values.mode(update.values), RICE, 0,
        address(origin.task, origin.device), origin.layout_tag, 0, 0,
        origin.number, part, parts, origin.base_version, min(origin.num_examples, MAX_U32),
        update.size, first, update.indices.size,
    )  # fmt: skip
    return sealed(header + positions.encode(update.indices - first) + values.encode(update.values))


def stamp(frame: bytes, *, epoch: int, sequence: int) -> bytes:
    """The same frame with its identity."""
    body = bytearray(unsealed(frame))
    _IDENTITY.pack_into(body, _IDENTITY_AT, epoch, sequence)
    return sealed(bytes(body))


def decode(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """The frame in `data`.

    Raises:
        WireError: anything that FORMAT.md does not allow.
    """
    if len(data) > max_bytes:
        raise WireError("too-large", f"{len(data)} bytes, at most {max_bytes} are allowed")
    check_prefix(data, FRAME)
    reader = Reader(unsealed(data))
    (
        _, _, _, flags, value_mode, position_mode, reserved, address_, layout_tag, epoch, sequence,
        number, part, parts, base_version, num_examples, size, first, count,
    ) = reader.unpack(_HEADER.format)  # fmt: skip
    if flags or reserved:
        raise WireError("flags", f"reserved bits are set: {flags:#04x} {reserved:#04x}")
    if position_mode != RICE:
        raise WireError("kind", f"position mode {position_mode} is unknown")
    if not 1 <= size <= MAX_SIZE or first >= size:
        raise WireError("range", f"coordinate {first} of {size} parameters")
    # Every entry costs at least two bits, so this bounds all later allocations by the message itself.
    if not 1 <= count <= min(size - first, 8 * len(data)):
        raise WireError("range", f"{count} entries in {len(data)} bytes from coordinate {first} of {size}")
    if not part < parts:
        raise WireError("range", f"part {part} of {parts}")
    if num_examples < 1:
        raise WireError("range", "an update of no examples")
    indices = first + positions.decode(reader, count=count, span=size - first)
    if int(indices[0]) != first:
        raise WireError("range", f"the first entry is {indices[0]}, the header says {first}")
    decoded = values.decode(reader, value_mode, count)
    reader.finish()
    return Frame(
        address_, layout_tag, epoch, sequence, number, part, parts, base_version, num_examples,
        SparseUpdate(size, np.asarray(indices, np.int64), decoded),
    )  # fmt: skip
