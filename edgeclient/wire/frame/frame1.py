"""Frames of version 1: read for ever, written where the aggregator knows no newer ones (FORMAT.md, section 4)."""

import struct
from typing import Final

import numpy as np

from edgeclient.compress.update import FloatValues, SparseUpdate, StepValues
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import positions1, values1
from edgeclient.wire.frame.origin import MAX_U32, Frame, Origin, address
from edgeclient.wire.limits import MAX_SIZE
from edgeclient.wire.messages import FRAME, MAGIC
from edgeclient.wire.reader import Reader

VERSION: Final = 1
# magic · version · kind · flags · value mode · position mode · reserved · address · layout · epoch · sequence
# · update · part · parts · base version · examples · size · first coordinate · entries
HEADER: Final = struct.Struct("<2sBBBBBBI8sQIIHHIIQQI")
IDENTITY_AT: Final = 20
_PART: Final = struct.Struct("<HH")
_PART_AT: Final = 36
RICE: Final = 0
_FIELDS: Final = (
    "magic", "version", "kind", "flags", "value mode", "position mode", "reserved", "address", "layout tag", "epoch",
    "sequence", "number", "part", "parts", "base version", "examples", "size", "first", "entries",
)  # fmt: skip


def encode(update: SparseUpdate, origin: Origin) -> bytes:
    """A frame without identity and checksum; its values are on a step grid or float32, others become float32."""
    values = update.values
    if not isinstance(values, StepValues) or values.runs:
        values = FloatValues(values.decoded())
    first = int(update.indices[0])
    header = HEADER.pack(
        MAGIC, VERSION, FRAME, 0, values1.mode(values), RICE, 0,
        address(origin.task, origin.device), origin.layout_tag, 0, 0,
        origin.number, 0, 1, origin.base_version, min(origin.num_examples, MAX_U32),
        update.size, first, update.indices.size,
    )  # fmt: skip
    return header + positions1.encode(update.indices - first) + values1.encode(values)


def with_part(frame: bytes, part: int, parts: int) -> bytes:
    """The frame as one of several."""
    return frame[:_PART_AT] + _PART.pack(part, parts) + frame[_PART_AT + _PART.size :]


def decode(reader: Reader) -> Frame:
    """The frame before the checksum.

    Raises:
        WireError: anything that FORMAT.md does not allow.
    """
    length = reader.left + 4
    (
        _, _, _, flags, value_mode, position_mode, reserved, address_, layout_tag, epoch, sequence,
        number, part, parts, base_version, num_examples, size, first, count,
    ) = reader.unpack(HEADER.format, _FIELDS)  # fmt: skip
    if flags or reserved:
        raise WireError("flags", f"reserved bits are set: {flags:#04x} {reserved:#04x}")
    if position_mode != RICE:
        raise WireError("kind", f"position mode {position_mode} is unknown")
    if not 1 <= size <= MAX_SIZE or first >= size:
        raise WireError("range", f"coordinate {first} of {size} parameters")
    # Every entry costs at least two bits, so this bounds all later allocations by the message itself.
    if not 1 <= count <= min(size - first, 8 * length):
        raise WireError("range", f"{count} entries in {length} bytes from coordinate {first} of {size}")
    if not part < parts:
        raise WireError("range", f"part {part} of {parts}")
    if num_examples < 1:
        raise WireError("range", "an update of no examples")
    indices = first + positions1.decode(reader, count=count, span=size - first)
    reader.mark("positions")
    if int(indices[0]) != first:
        raise WireError("range", f"the first entry is {indices[0]}, the header says {first}")
    decoded = values1.decode(reader, value_mode, count)
    reader.mark("values")
    reader.finish()
    return Frame(
        VERSION, address_, layout_tag, epoch, sequence, number, part, parts, base_version, num_examples,
        SparseUpdate(size, np.asarray(indices, np.int64), decoded),
    )  # fmt: skip
