"""One process at a time on one store."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.02


class StoreError(Exception):
    """The store cannot be used; the text says which file and what to do."""


class DiskFull(StoreError):
    """Nothing could be written and nothing was changed; it goes on once there is room."""


def in_use(path: Path) -> bool:
    """Whether a process holds the lock; nothing is made or kept."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another account may ask, or the disk be read-only
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


class Lock:
    """An exclusive lock on a file, held until closed or the process ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        for left in reversed(range(_ATTEMPTS)):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if left:
                    time.sleep(_PAUSE_S)  # `in_use` of another process takes it for a moment
                    continue
                os.close(self._descriptor)
                why = f"{path.parent} is in use by another edgeclient process: stop that one first"
                raise StoreError(why) from None

    def close(self) -> None:
        """Let another process have the store."""
        os.close(self._descriptor)
