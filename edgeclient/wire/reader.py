"""Reading bytes from outside: every step checks what is left, so that no structure can lie about size."""

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeclient.compress.arrays import U8, Array
from edgeclient.wire.errors import WireError

_FIELD = re.compile(r"\d*s|[A-Za-z]")


def sealed(body: bytes) -> bytes:
    """`body` with its CRC-32 (little-endian) behind it."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def unsealed(data: bytes) -> bytes:
    """The bytes before a correct CRC-32; WireError("truncated" | "checksum") otherwise."""
    if len(data) < 4:
        raise WireError("truncated", f"{len(data)} bytes are too few for a checksum")
    body, stored = data[:-4], int.from_bytes(data[-4:], "little")
    actual = zlib.crc32(body)
    if actual != stored:
        raise WireError("checksum", f"stored {stored:#010x}, bytes give {actual:#010x}")
    return body


class Field(NamedTuple):
    """Which bytes of a message were read as what."""

    name: str
    start: int
    end: int


class Reader:
    """A cursor over bytes; every method raises WireError("truncated") rather than read past the end.

    Args:
        data: what to read.
        trace: gets a `Field` for whatever is marked or unpacked by name, for people who look at bytes.

    Example:
        >>> reader = Reader(bytes([1, 0, 0x80, 0x01]))
        >>> reader.unpack("<H"), reader.varint(limit=1000)
        ((1,), 128)
    """

    def __init__(self, data: bytes, trace: list[Field] | None = None) -> None:
        self._data = data
        self._at = 0
        self._trace = trace

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._data) - self._at

    def mark(self, name: str) -> None:
        """Name the bytes that were read since the last mark, if there are any."""
        if self._trace is not None:
            start = self._trace[-1].end if self._trace else 0
            if self._at > start:
                self._trace.append(Field(name, start, self._at))

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise WireError("truncated", f"{count} bytes wanted at offset {self._at} of {len(self._data)}")
        part = self._data[self._at : end]
        self._at = end
        return part

    def mark_shares(self, shares: Callable[[], dict[str, int]]) -> None:
        """Name shares of the bytes since the last mark, in this proportion, where several things are packed in bits."""
        if self._trace is None:
            return
        wanted = {name: bits for name, bits in shares().items() if bits}
        start = self._trace[-1].end if self._trace else 0
        size, total, done = self._at - start, sum(wanted.values()), 0
        for name, bits in wanted.items():
            done += bits
            self._trace.append(Field(name, self._trace[-1].end if self._trace else 0, start + size * done // total))

    def unpack(self, form: str, names: Sequence[str] = ()) -> tuple[Any, ...]:
        """The next fields, as `struct` describes them; a form of one letter or `4s` per field, if they have names."""
        values = struct.unpack(form, self.take(struct.calcsize(form)))
        if self._trace is not None:
            at = self._at - struct.calcsize(form)
            for name, field in zip(names, _FIELD.findall(form), strict=False):
                self._trace.append(Field(name, at, at + struct.calcsize("<" + field)))
                at = self._trace[-1].end
        return values

    def varint(self, *, limit: int) -> int:
        """An unsigned LEB128 number, at most `limit`, in its shortest form."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if shift and not byte:
                    raise WireError("range", "a varint is not in its shortest form")
                if value > limit:
                    raise WireError("range", f"{value} is over the limit {limit}")
                return value
        raise WireError("range", "a varint is longer than 9 bytes")

    def bits(self, count: int) -> U8:
        """The next `count` bits (0 or 1 each), LSB first; the rest of the last byte must be zero."""
        packed = np.frombuffer(self.take((count + 7) // 8), np.uint8)
        unpacked = np.unpackbits(packed, bitorder="little")
        if unpacked[count:].any():
            raise WireError("trailing", "padding bits are not zero")
        return unpacked[:count]

    def finish(self) -> None:
        """Assert that nothing is left."""
        if self._at != len(self._data):
            raise WireError("trailing", f"{len(self._data) - self._at} bytes after the end")


def varint(value: int) -> bytes:
    """`value` >= 0 as unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def packed_bits(bits: Array) -> bytes:
    """Bits LSB first, the last byte filled with zeros."""
    return np.packbits(bits.astype(np.uint8, copy=False), bitorder="little").tobytes()
