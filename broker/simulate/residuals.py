"""What each device has not sent yet, on disk: ten thousand residuals are larger than the memory."""

import os
import tempfile
from typing import Self

import numpy as np

from edgeclient.compress.arrays import F32


class Residuals:
    """A row of n numbers for each device, zero until it is written; rows that nobody wrote take no disk.

    Example:
        >>> with Residuals(3) as residuals:
        ...     residuals.write(7, np.ones(3, np.float32))
        ...     residuals.read(7), residuals.read(0)
        (array([1., 1., 1.], dtype=float32), array([0., 0., 0.], dtype=float32))
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._file = tempfile.TemporaryFile(prefix="edgeclient-residuals-")  # noqa: SIM115 (it lives as long as this)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, device: int) -> F32:
        """A copy of a row, float32 (n,)."""
        row: F32 = np.zeros(self._size, np.float32)
        content = os.pread(self._file.fileno(), row.nbytes, device * row.nbytes)
        row.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        return row

    def write(self, device: int, row: F32) -> None:
        """Replace a row.

        Raises:
            OSError: the disk is full.
        """
        content, at = row.tobytes(), 0
        while at < len(content):
            at += os.pwrite(self._file.fileno(), content[at:], device * row.nbytes + at)
