"""Opening the ledger: the one place that knows more than the protocol; and the lock of whoever aggregates on it."""

import fcntl
import os
from hashlib import sha256
from pathlib import Path

from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.sqlite.ledger import SqliteLedger


def open_ledger(path: Path, *, read_only: bool = False) -> Ledger:
    """The ledger in the file at `path`.

    Args:
        path: made if missing, unless read-only.
        read_only: for looking on while the aggregator writes; the file must be there.

    Raises:
        LedgerError: not a ledger, a missing or damaged one, or one of another version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, open_ledger(Path(folder) / "ledger.db") as ledger:
        ...     ledger.tasks()
        []
    """
    if read_only and not path.exists():
        raise LedgerError(
            f"{path} does not exist: nothing was counted here yet: add a task first, see edgebroker task add --help"
        )
    return SqliteLedger(path, read_only=read_only)


class AggregatorLock:
    """One aggregator at a time on one ledger, until closed or until the process ends.

    Two would make different models of the same version.

    Raises:
        LedgerError: another process has it.
    """

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name("serve.lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise LedgerError(f"{ledger.parent} is in use by another edgebroker process: stop that one first") from None

    def close(self) -> None:
        """Let another process work on the ledger."""
        os.close(self._descriptor)


def place(ledger: Path) -> str:
    """Names the file of a ledger on this machine: a copy of it elsewhere, or beside it, has another name.

    Who holds the lock on the ledger of a place knows that no earlier start of that place is alive.

    Example:
        >>> place(Path("/")) == place(Path("/tmp/..")), place(Path("/")) == place(Path("/proc"))
        (True, False)
    """
    # A cloned card has other addresses, and another board under it.
    network = sorted(each.parent / "address" for each in Path("/sys/class/net").glob("*/device"))
    machine = [_read(each) for each in (Path("/etc/machine-id"), Path("/proc/device-tree/serial-number"), *network)]
    there = ledger.stat()
    return sha256(f"{machine}/{there.st_dev}/{there.st_ino}".encode()).hexdigest()[:16]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
