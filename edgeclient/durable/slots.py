"""Two preallocated slot files for the residual: write the idle one, fsync, then a transaction names it.

Preallocated, so that a full disk shows at creation and never in the middle of a write.
"""

import os
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient import failpoint, files
from edgeclient.compress.arrays import F32
from edgeclient.durable.lock import DiskFull, StoreError

_READ: Final = 1 << 20


class Slots:
    """Residual slots `residual.0` and `residual.1`, each n float32, little-endian."""

    def __init__(self, directory: Path, size: int) -> None:
        self._paths = [directory / "residual.0", directory / "residual.1"]
        self.size = size
        self._opened: F32 | None = None

    def create(self) -> None:
        """Make both slots, all zero, and wait until they are on the disk.

        Raises:
            DiskFull: it has no room.
        """
        try:
            for path in self._paths:
                with path.open("wb") as file:
                    if self.size:
                        os.posix_fallocate(file.fileno(), 0, 4 * self.size)
                    os.fsync(file.fileno())
        except OSError as error:
            room = f"no room for two residual slots ({8 * self.size >> 20} MiB)"
            raise DiskFull(f"{room} in {self._paths[0].parent}: {error}") from None
        files.sync_directory(self._paths[0].parent)

    def read(self, slot: int) -> F32:
        """A copy of a slot's numbers, (n,); shorter than n if the file is."""
        return np.fromfile(self._paths[slot], "<f4", count=self.size).astype(np.float32, copy=False)

    def view(self, slot: int) -> F32:
        """A slot's numbers, (n,), mapped from its file; read-only.

        Raises:
            StoreError: it was damaged since the store was opened.
        """
        path = self._paths[slot]
        try:
            return np.memmap(path, "<f4", "r", shape=(self.size,)) if self.size else np.empty(0, np.float32)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}): start again, and a new epoch begins") from None

    def open(self, slot: int) -> F32:
        """A slot to be filled through a mapping of its file, (n,); `write` then waits until that is on the disk.

        Raises:
            DiskFull: the file is gone, was cut short or copied with holes, and there is no room to fill it.
        """
        failpoint.hit("durable.before-slot")
        if not self.size:
            return np.empty(0, np.float32)
        try:
            self._allocate(slot)
            self._opened = np.memmap(self._paths[slot], "<f4", "r+", shape=(self.size,))
        except OSError as error:
            raise DiskFull(f"{self._paths[slot].parent}: no room for a residual slot: {error}") from None
        return self._opened

    def _allocate(self, slot: int) -> None:
        self._restore(slot)
        with self._paths[slot].open("r+b") as file:
            # A mapped hole, as a copy of the folder may have, would become a SIGBUS when the disk is full.
            held = os.fstat(file.fileno())
            if min(held.st_size, 512 * held.st_blocks) < 4 * self.size:
                os.posix_fallocate(file.fileno(), 0, 4 * self.size)

    def write(self, slot: int, residual: F32) -> None:
        """Overwrite a slot and wait until it is on the disk; the other slot is not touched.

        Args:
            slot: 0 or 1.
            residual: (n,), what `open` gave for this slot, or any other array.
        """
        if residual.shape != (self.size,):
            raise ValueError(f"a residual of shape {residual.shape} for slots of {self.size}")
        opened, self._opened = self._opened, None
        self._restore(slot)
        with self._paths[slot].open("r+b") as file:
            if residual is not opened:
                failpoint.hit("durable.before-slot")
                file.write(_bytes(residual))
                file.flush()
            failpoint.hit("durable.before-slot-fsync")
            if isinstance(opened, np.memmap):
                opened.flush()
            os.fsync(file.fileno())

    def _restore(self, slot: int) -> None:
        """An idle slot holds nothing, so that one which is gone is made again."""
        if not self._paths[slot].exists():
            self._paths[slot].touch()
            files.sync_directory(self._paths[slot].parent)

    def whole(self, slot: int, stored: int) -> bool:
        """Whether a slot's file has the checksum that was stored."""
        try:
            return self.checksum(slot) == stored
        except OSError:
            return False

    def checksum(self, slot: int) -> int:
        """CRC-32 of a slot's file."""
        crc, left = 0, 4 * self.size
        with self._paths[slot].open("rb") as file:
            while block := file.read(min(left, _READ)):
                crc, left = zlib.crc32(block, crc), left - len(block)
        return crc


def checksum(residual: F32) -> int:
    """CRC-32 over the little-endian bytes."""
    return zlib.crc32(_bytes(residual))


def _bytes(residual: F32) -> memoryview:
    """The little-endian bytes, copied only where they are not in memory like that."""
    return np.ascontiguousarray(residual, "<f4").view(np.uint8).data
