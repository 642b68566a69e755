"""Which implementation of the ledger is used: the one place that knows more than the protocol."""

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
