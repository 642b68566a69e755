"""A log file that stays bounded while its writer runs, for where nobody else sees to that (Termux)."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1_000_000


class LogFile(logging.Handler):
    """Takes all that the process writes to standard output and error, libraries included.

    Looked at with every log line: at `max_bytes` the file becomes NAME.1, in place of an older one, and begins anew.

    Args:
        path: its folder is made if missing.
        max_bytes: of each of the two files, up to what is written between two log lines.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__()
        self._path, self._max_bytes = path, max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._begin()
        self.emit(None)

    def emit(self, _: logging.LogRecord | None) -> None:
        """See logging.Handler; the line itself is written by the handler of standard error."""
        with suppress(OSError):  # no room for a new one: the old one goes on
            if os.fstat(2).st_size >= self._max_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._begin()

    def _begin(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for standard in (1, 2):
                os.dup2(descriptor, standard)
        finally:
            os.close(descriptor)
