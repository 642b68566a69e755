"""What a frame says beside its entries, and the bytes of it (FORMAT.md, section 3.1)."""

import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from edgeclient.compress.absolute import Absolute
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import FRAME_VERSION, MAX_SIZE
from edgeclient.wire.messages import FRAME, MAGIC
from edgeclient.wire.reader import Reader, varint

# magic · version · kind · flags and value mode · address · layout · epoch · sequence
HEADER: Final = struct.Struct("<2sBBBI4sQI")
IDENTITY_AT: Final = 13
MAX_PARTS: Final = 0xFFFF
# Flags; the high four bits are the value mode.
SIGNED: Final = 1  # reserved
PART: Final = 2
TENSORS: Final = 4
ABSOLUTE: Final = 8
_FIELDS: Final = ("magic", "version", "kind", "flags", "address", "layout tag", "epoch", "sequence")
MAX_U32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an update comes from: everything in a header but its identity and its entries.

    Attributes:
        task: task id; with `device` it makes the address that the aggregator compares.
        device: device id.
        layout_tag: first 4 bytes of the layout digest.
        number: the update's number within its epoch.
        base_version: model version that the delta was trained from.
        num_examples: local examples behind it, at least 1.
        ledger: that the device follows, 16 hexadecimal digits; part of the address as well.
    """

    task: str
    device: str
    layout_tag: bytes
    number: int
    base_version: int
    num_examples: int
    ledger: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded frame; `update` may be one coordinate range of a larger update, `absolute` is what it may carry too."""

    wire_version: int
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
    absolute: Absolute | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the body; `first` and `span` are the range of the part."""

    flags: int
    address: int
    layout_tag: bytes
    epoch: int
    sequence: int
    number: int
    base_version: int
    num_examples: int
    size: int
    part: int
    parts: int
    first: int
    span: int

    def frame(self, update: SparseUpdate, absolute: Absolute | None = None) -> Frame:
        """With its entries and absolute values."""
        return Frame(
            FRAME_VERSION, self.address, self.layout_tag, self.epoch, self.sequence, self.number, self.part, self.parts,
            self.base_version, self.num_examples, update, absolute,
        )  # fmt: skip

    @classmethod
    def of(cls, origin: Origin, size: int, flags: int, *, part: tuple[int, int, int, int] | None = None) -> "Header":
        """Without identity; `part`, if the update has others: its number, how many there are, first, span."""
        number, parts, first, span = part or (0, 1, 0, size)
        return cls(
            flags | (PART if part else 0), address(origin.task, origin.device, origin.ledger), origin.layout_tag, 0, 0,
            origin.number, origin.base_version, min(origin.num_examples, MAX_U32), size, number, parts, first, span,
        )  # fmt: skip


def encode_header(header: Header) -> bytes:
    """Its bytes."""
    fixed = HEADER.pack(
        MAGIC, FRAME_VERSION, FRAME, header.flags, header.address, header.layout_tag, header.epoch, header.sequence
    )
    fields = [header.number, header.base_version, header.num_examples, header.size]
    if header.flags & PART:
        fields += [header.part, header.parts, header.first, header.span]
    return fixed + b"".join(map(varint, fields))


def read_header(reader: Reader) -> Header:
    """The header; WireError for what FORMAT.md does not allow."""
    _, _, _, flags, address_, layout_tag, epoch, sequence = reader.unpack(HEADER.format, _FIELDS)
    if flags & SIGNED:
        raise WireError("flags", f"a reserved bit is set: {flags:#04x}")
    number = _varint(reader, "number", MAX_U32)
    base_version = _varint(reader, "base version", MAX_U32)
    num_examples = _varint(reader, "examples", MAX_U32)
    size = _varint(reader, "size", MAX_SIZE)
    if num_examples < 1 or size < 1:
        raise WireError("range", f"an update of {num_examples} examples and {size} parameters")
    part, parts, first, span = 0, 1, 0, size
    if flags & PART:
        part, parts = _varint(reader, "part", MAX_PARTS - 1), _varint(reader, "parts", MAX_PARTS)
        first = _varint(reader, "first", size - 1)
        span = _varint(reader, "span", size - first)
        if not part < parts or parts < 2 or span < 1:
            raise WireError("range", f"part {part} of {parts} with {span} coordinates")
    if flags & ABSOLUTE and part:
        raise WireError("flags", f"part {part} has absolute values: they stand in the first one")
    return Header(
        flags, address_, layout_tag, epoch, sequence, number, base_version, num_examples, size,
        part, parts, first, span,
    )  # fmt: skip


def _varint(reader: Reader, name: str, limit: int) -> int:
    value = reader.varint(limit=limit)
    reader.mark(name)
    return value


def address(task: str, device: str, ledger: str = "") -> int:
    """What ties a frame to its topic and to the ledger that its device follows: elsewhere it does not count."""
    return zlib.crc32(f"{task}/{device}".encode(), zlib.crc32(bytes.fromhex(ledger)))


def digest(frame: bytes) -> bytes:
    """8 bytes that tell two frames of the same identity apart."""
    return sha256(frame).digest()[:8]
