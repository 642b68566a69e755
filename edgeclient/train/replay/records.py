"""A preallocated file of examples, each in a record of fixed size that vouches for itself.

    offset  size  field
    0       8     number of the example in its stream, int64
    8       4     CRC-32 of the number and the arrays
    12      ...   the arrays of the example in the model's order, labels last, little-endian

A record that a power cut has left half written, or that nobody has written, fails its checksum and is not there.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeclient import failpoint, files
from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import I64, Bools
from edgeclient.train.batches import BLOCK_BYTES, Batch


class Records:
    """The file, of `capacity` records; nothing is opened or made before it is used."""

    def __init__(self, path: Path, manifest: Manifest, capacity: int) -> None:
        self._path = path
        tensors = (*manifest.inputs, manifest.labels)
        self._arrays = [f"array{at}" for at in range(len(tensors))]
        fields: list[Any] = [
            (name, np.dtype(tensor.dtype).newbyteorder("<"), tensor.shape[1:])
            for name, tensor in zip(self._arrays, tensors, strict=True)
        ]
        self._kind = np.dtype([("number", "<i8"), ("crc", "<u4"), *fields])
        self.capacity = capacity

    @property
    def record_bytes(self) -> int:
        """Of one record."""
        return self._kind.itemsize

    @property
    def whole(self) -> bool:
        """Whether the file is there in full size."""
        return self._path.is_file() and self._path.stat().st_size == self.capacity * self.record_bytes

    def create(self) -> None:
        """Make the file, without any example, and wait until it is on the disk.

        Raises:
            OSError: the disk has no room; nothing is left of it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.capacity * self.record_bytes)
                os.fsync(file.fileno())
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        files.sync_directory(self._path.parent)

    def write(self, places: Sequence[int] | I64, numbers: I64, batch: Batch) -> None:
        """Put examples into records; `sync` waits until they are on the disk.

        Args:
            places: of the records, (n,); of equal ones the last counts.
            numbers: of the examples in their stream, (n,).
            batch: the examples, arrays of length n.
        """
        made = np.zeros(len(numbers), self._kind)
        made["number"] = numbers
        for name, array in zip(self._arrays, batch, strict=True):
            made[name] = array
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for place, content in zip(places, made, strict=True):
                content["crc"] = _checksum(content.tobytes())
                failpoint.hit("replay.before-record")
                os.pwrite(descriptor, content.tobytes(), int(place) * self.record_bytes)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def numbers(self) -> I64:
        """The example in each record, int64 (capacity,); -1 where there is none."""
        found = np.full(self.capacity, -1, np.int64)
        step = max(1, BLOCK_BYTES // self.record_bytes)
        for first in range(0, self.capacity, step):
            places = np.arange(first, min(first + step, self.capacity))
            good, numbers, _ = self._read(places)
            found[places[good]] = numbers
        return found

    def read(self, places: I64) -> Batch:
        """The examples of some records, without those that have become unreadable."""
        return self._read(places)[2]

    def _read(self, places: I64) -> tuple[Bools, I64, Batch]:
        size = self.record_bytes
        good, contents = np.zeros(len(places), np.bool_), []
        if self._path.is_file():
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for at, place in enumerate(places):
                    content = os.pread(descriptor, size, int(place) * size)
                    if len(content) == size and content[8:12] == _checksum(content).to_bytes(4, "little"):
                        good[at] = True
                        contents.append(content)
            finally:
                os.close(descriptor)
        found = np.frombuffer(b"".join(contents), self._kind)
        arrays = tuple(np.ascontiguousarray(found[name], found[name].dtype.newbyteorder("=")) for name in self._arrays)
        return good, found["number"].astype(np.int64), arrays


def _checksum(content: bytes) -> int:
    # Of an empty record it is not 0, which is what stands there.
    return zlib.crc32(content[12:], zlib.crc32(content[:8]))
