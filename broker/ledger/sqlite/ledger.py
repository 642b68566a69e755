"""The ledger in one SQLite file: every method of the protocol is one transaction, or reads one state."""

from typing import Final

from broker.ledger.protocol import Ledger
from broker.ledger.sqlite.admission import Admissions
from broker.ledger.sqlite.check import Check
from broker.ledger.sqlite.compaction import Compaction
from broker.ledger.sqlite.curve import Curve
from broker.ledger.sqlite.history import History
from broker.ledger.sqlite.succession import Succession

# Every crash point of this folder; see LEDGER.md.
POINTS: Final = (
    "ledger.before-migration", "ledger.after-migration",
    "ledger.before-hello", "ledger.after-hello",
    "ledger.before-commit", "ledger.after-commit",
    "ledger.before-close", "ledger.after-close",
    "ledger.before-compact", "ledger.after-compact",
)  # fmt: skip


class SqliteLedger(Admissions, Succession, Compaction, History, Curve, Check, Ledger):
    """See the protocol; one connection, used by the thread that has opened it."""
