"""Two preallocated slot files for the residual: write the idle one, fsync, then a transaction names it.

Preallocated, so that a full disk shows at creation and never in the middle of a write.
"""

import os
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeclient import failpoint, files


class Slots:
    """Residual slots `residual.0` and `residual.1`, each n float32, little-endian."""

    def __init__(self, directory: Path, size: int) -> None:
        self._paths = [directory / "residual.0", directory / "residual.1"]
        self.size = size

    def create(self) -> None:
        """Make both slots, all zero, and wait until they are on the disk.

        Raises:
            OSError: the disk has no room.
        """
        for path in self._paths:
            with path.open("wb") as file:
                if self.size:
                    os.posix_fallocate(file.fileno(), 0, 4 * self.size)
                os.fsync(file.fileno())
        files.sync_directory(self._paths[0].parent)

    def read(self, slot: int) -> npt.NDArray[np.float32]:
        """A copy of a slot's numbers, (n,); shorter than n if the file is."""
        return np.fromfile(self._paths[slot], "<f4", count=self.size).astype(np.float32, copy=False)

    def write(self, slot: int, residual: npt.NDArray[np.float32]) -> None:
        """Overwrite a slot and wait until it is on the disk; the other slot is not touched."""
        if residual.shape != (self.size,):
            raise ValueError(f"a residual of shape {residual.shape} for slots of {self.size}")
        failpoint.hit("durable.before-slot")
        with self._paths[slot].open("r+b") as file:
            file.write(residual.astype("<f4", copy=False).tobytes())
            file.flush()
            failpoint.hit("durable.before-slot-fsync")
            os.fsync(file.fileno())


def checksum(residual: npt.NDArray[np.float32]) -> int:
    """CRC-32 over the little-endian bytes."""
    return zlib.crc32(residual.astype("<f4", copy=False).tobytes())
