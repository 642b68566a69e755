"""What is remembered of settled frames whose rows are gone: four bytes of digest each, and which were refused.

Enough to notice that a sequence is used again: with the same bytes it is a duplicate, with others a conflict, which
four bytes miss once in 2^32. Pure functions on the two columns of one chunk of 960 sequences.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from edgeclient.wire.messages import Refusal

CHUNK: Final = 960  # so that a chunk fits a page of the database
# Sequences of an epoch that are remembered; older ones count as duplicates.
WINDOW: Final = 65_536
# An epoch folds this many at a time: a fold rewrites a chunk of 4 KiB, a row takes about 80 bytes.
FOLD_AT: Final = 256
_SHORT: Final = 4
_REFUSED: Final = struct.Struct("<HB")
_UNKNOWN: Final = bytes(_SHORT)


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settled frame was.

    Attributes:
        same: whether the digest that was asked about is its digest, as far as is still known.
        refusal: why it did not count; None when it did.
        known: False for a sequence of which no more is known than that the device has settled it.
    """

    same: bool
    refusal: Refusal | None
    known: bool = True


@dataclass(frozen=True, slots=True)
class Chunk:
    """960 sequences of one epoch, from a multiple of 960 on.

    Attributes:
        digests: 4 bytes for each sequence; zeros where nothing is known.
        refusals: 3 bytes, offset (u16) and code (u8), for each that was refused.

    Example:
        >>> chunk = Chunk().with_frames([(970, b"12345678", None), (971, b"abcdefgh", Refusal.STALE)])
        >>> chunk.at(970, b"12345678")
        Settled(same=True, refusal=None, known=True)
        >>> chunk.at(971, b"other")
        Settled(same=False, refusal=<Refusal.STALE: 2>, known=True)
        >>> list(chunk.frames(960))
        [(970, None), (971, <Refusal.STALE: 2>)]
    """

    digests: bytes = bytes(CHUNK * _SHORT)
    refusals: bytes = b""

    def with_frames(self, frames: Iterable[tuple[int, bytes, Refusal | None]]) -> "Chunk":
        """The same with (sequence, digest, refusal) of frames that lie in it."""
        digests, refusals = bytearray(self.digests), bytearray(self.refusals)
        for sequence, digest, refusal in frames:
            offset = sequence % CHUNK
            digests[offset * _SHORT : (offset + 1) * _SHORT] = _short(digest)
            if refusal is not None:
                refusals += _REFUSED.pack(offset, refusal)
        return Chunk(bytes(digests), bytes(refusals))

    def at(self, sequence: int, digest: bytes) -> Settled:
        """What the frame was that had this sequence, and whether `digest` is its digest."""
        offset = sequence % CHUNK
        short = self.digests[offset * _SHORT : (offset + 1) * _SHORT]
        if short == _UNKNOWN:
            return Settled(same=True, refusal=None, known=False)
        return Settled(short == _short(digest), self._codes().get(offset))

    def frames(self, first: int) -> Iterator[tuple[int, Refusal | None]]:
        """Every known sequence, `first` being the chunk's first one, with its refusal."""
        codes = self._codes()
        for offset in range(CHUNK):
            if self.digests[offset * _SHORT : (offset + 1) * _SHORT] != _UNKNOWN:
                yield first + offset, codes.get(offset)

    def _codes(self) -> dict[int, Refusal]:
        return {offset: Refusal(code) for offset, code in _REFUSED.iter_unpack(self.refusals)}


def _short(digest: bytes) -> bytes:
    """Zeros mean unknown, so that a digest which begins with four of them stands one beside."""
    short = digest[:_SHORT].ljust(_SHORT, b"\0")
    return b"\1\0\0\0" if short == _UNKNOWN else short
