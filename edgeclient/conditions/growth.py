"""Local data that has grown since it was learnt from: a reason for a round, though there is no newer version.

A task that rests goes on by it (FedAvg knows no end of data). Files and folders alone tell their size.
"""

import contextlib
import time
from pathlib import Path
from typing import Final

_LOOK_S: Final = 60.0  # a newer version is likelier to come within it
_MORE: Final = 1.1  # as much as lets a resting aggregator go on


class Growth:
    """Of one data source, in bytes.

    Args:
        source: of `[data]`.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     growth = Growth(file.name)
        ...     growth.learnt()
        ...     _ = file.write(bytes(100)), file.flush()
        ...     growth.look(now=time.monotonic() + 61)
        True
    """

    def __init__(self, source: str) -> None:
        self._path = Path(source)
        self._learnt = self._size()
        self._looked_s, self._grown = time.monotonic(), False

    def learnt(self) -> None:
        """A round takes in what there is."""
        self._learnt, self._looked_s, self._grown = self._size(), time.monotonic(), False

    def look(self, *, now: float) -> bool:
        """Whether there is a tenth more than at the last round, looked up once a minute."""
        if now - self._looked_s >= _LOOK_S:
            self._looked_s, self._grown = now, self._size() > _MORE * self._learnt
        return self._grown

    def _size(self) -> int:
        """Of a file with its write-ahead log, or of the files of a folder; 0 for what is neither."""
        with contextlib.suppress(OSError):
            if self._path.is_dir():
                return sum(each.stat().st_size for each in self._path.iterdir())
            log = self._path.with_name(f"{self._path.name}-wal")
            return self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)
        return 0
