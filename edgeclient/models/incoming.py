"""Chunks of a blob on the disk as they come, so that a fetch goes on where it was: after a restart, a power cut.

One file, for one blob at a time. What is in it proves nothing: the content is checked as a whole, by its digest.

| bytes | what |
|---|---|
| a line | digest of the blob: the bundle's or the parameters' of the announcement |
| a line | the announcement that named it |
| for each chunk | number (8), length (4), CRC-32 of number, length and chunk (4), all little-endian; chunk |
"""

import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from edgeclient import files
from edgeclient.wire import announcement
from edgeclient.wire.announcement import Announcement, Blob
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_ANNOUNCEMENT_BYTES, MAX_CHUNK_BYTES

_HEAD: Final = struct.Struct("<QII")
# A fetch that takes less never waits for the card; a power cut takes so much of a longer one.
_SYNC_S: Final = 2.0


class Kept(NamedTuple):
    """What has come of a blob in earlier starts."""

    announced: Announcement
    blob: Blob
    parts: dict[int, bytes]


class Incoming:
    """The file of the blob that is being fetched.

    Args:
        path: of the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._synced_s = 0.0

    def kept(self) -> Kept | None:
        """What is there, if it can be read; what follows a damaged record is cut off."""
        with suppress(OSError), self._path.open("r+b") as file:
            found = _header(file)
            if found is None:
                return None
            parts: dict[int, bytes] = {}
            for chunk, payload in _records(file, found[1]):
                parts[chunk] = payload
                whole = file.tell()
            if parts:
                file.truncate(whole)
                return Kept(*found, parts)
        return None

    def begin(self, announced: Announcement, blob: Blob) -> None:
        """A blob of this announcement is fetched from now on; what there was of another goes."""
        self._path.write_bytes(f"{blob.digest}\n".encode() + announcement.encode(announced) + b"\n")
        self._synced_s = time.monotonic()

    def add(self, chunk: int, payload: bytes) -> None:
        """A chunk has come."""
        told = struct.pack("<QI", chunk, len(payload))
        with self._path.open("ab") as file:
            file.write(told + zlib.crc32(payload, zlib.crc32(told)).to_bytes(4, "little") + payload)
            if time.monotonic() - self._synced_s >= _SYNC_S:
                file.flush()
                os.fsync(file.fileno())
                files.sync_directory(self._path.parent)
                self._synced_s = time.monotonic()

    def clear(self) -> None:
        """It is complete, or no good."""
        self._path.unlink(missing_ok=True)


def _header(file: BinaryIO) -> tuple[Announcement, Blob] | None:
    digest = file.readline(66).strip()
    try:
        announced = announcement.decode(file.readline(MAX_ANNOUNCEMENT_BYTES + 1).strip())
    except WireError:
        return None
    blobs = {each.digest.encode(): each for each in (announced.bundle, announced.parameters)}
    return (announced, blobs[digest]) if digest in blobs else None


def _records(file: BinaryIO, blob: Blob) -> Iterator[tuple[int, bytes]]:
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        chunk, length, crc = _HEAD.unpack(head)
        if chunk >= blob.chunks or length != blob.length(chunk) or length > MAX_CHUNK_BYTES:
            return
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload, zlib.crc32(head[:12])) != crc:
            return
        yield chunk, payload
