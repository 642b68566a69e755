"""One aggregator at a time on one ledger: two would make different models of the same version."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.ledger.protocol import LedgerError


class AggregatorLock:
    """An exclusive lock on a file beside the ledger, held until closed or until the process ends.

    Raises:
        LedgerError: another process has it.
    """

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name("serve.lock")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise LedgerError(f"{ledger.parent} is in use by another edgebroker process: stop that one first") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process work on the ledger."""
        os.close(self._descriptor)
