"""The ledger in one SQLite file: every method of the protocol is one transaction, or reads one state."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Admission, Contribution, Entry, Pending, TaskRow, Version, Withdrawal
from broker.ledger.sqlite import accounts, admission, batches, check, compaction, curve, history
from broker.ledger.sqlite.database import Database
from broker.views import Breach, Epoch, Mark, NewMark, NewVersion, Past, Point, Recent, Round
from edgeclient import failpoint
from edgeclient.wire.messages import Hello, Receipt, Refusal

# Every crash point of this folder; see LEDGER.md.
POINTS: Final = (
    "ledger.before-migration",
    "ledger.after-migration",
    "ledger.before-hello",
    "ledger.after-hello",
    "ledger.before-commit",
    "ledger.after-commit",
    "ledger.before-close",
    "ledger.after-close",
    "ledger.before-compact",
    "ledger.after-compact",
)


class SqliteLedger(Ledger):
    """See the protocol; one connection, used by the thread that has opened it.

    Args:
        path: the database file; made if missing.
        read_only: for looking on while the aggregator writes.

    Raises:
        LedgerError: not a ledger, or one of another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, read_only=read_only)
        self._moment, self._transaction = self._database.moment, self._database.transaction

    def close(self) -> None:
        self._database.close()

    def moment(self) -> AbstractContextManager[object]:
        return self._moment()

    def add_task(self, name: str, bundle: str, settings: dict[str, Any], version: Version) -> None:
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM task WHERE name = ?", (name,)).fetchone():
                raise LedgerError(f"task {name} is already there: choose another name")
            db.execute("INSERT INTO task VALUES (?, ?, ?)", (name, bundle, json.dumps(settings)))
            batches.insert_version(db, name, version)

    def tasks(self) -> list[TaskRow]:
        with self._moment() as db:
            rows = db.execute("SELECT name, bundle, settings FROM task ORDER BY name")
            return [TaskRow(name, bundle, json.loads(settings)) for name, bundle, settings in rows]

    # Frames

    def admit(self, asked: Sequence[Entry | Withdrawal], now: float) -> list[Admission]:
        if not asked:
            return []
        with self._transaction() as db:
            admissions = [admission.admit(db, each, now) for each in asked]
            failpoint.hit("ledger.before-commit")
        failpoint.hit("ledger.after-commit")
        return admissions

    def greet(self, hellos: Sequence[tuple[str, str, Hello]]) -> list[int]:
        if not hellos:
            return []
        with self._transaction() as db:
            lost = [admission.greet(db, *each) for each in hellos]
            failpoint.hit("ledger.before-hello")
        failpoint.hit("ledger.after-hello")
        return lost

    def receipt(self, task: str, device: str, epoch: int, *, conflict: tuple[int, bytes] | None = None) -> Receipt:
        with self._moment() as db:
            return admission.receipt(db, task, device, epoch, conflict=conflict)

    # Batches and versions

    def pending(self, task: str) -> Pending:
        with self._moment() as db:
            return batches.pending(db, task)

    def open_contributions(self, task: str, limit: int, after: int = 0) -> list[Contribution]:
        waiting = "batch IS NULL AND task = ? AND id > ? ORDER BY leads DESC, id LIMIT ?"
        with self._moment() as db:
            return batches.contributions(db, waiting, task, after, limit)

    def close_batch(self, task: str, members: Sequence[Contribution], version: Version) -> None:
        with self._transaction() as db:
            batches.close(db, task, members, version)
            failpoint.hit("ledger.before-close")
        failpoint.hit("ledger.after-close")

    def batch(self, task: str, number: int) -> list[Contribution]:
        with self._moment() as db:
            return batches.contributions(db, "batch = ? AND task = ? AND body IS NOT NULL ORDER BY id", number, task)

    def by_device(self, task: str, device: str, epoch: int) -> list[Contribution]:
        kept = "task = ? AND device = ? AND epoch = ? AND body IS NOT NULL ORDER BY id"
        with self._moment() as db:
            return batches.contributions(db, kept, *admission.epoch_of(task, device, epoch))

    def versions(self, task: str, last: int | None = None) -> list[Version]:
        with self._moment() as db:
            return batches.versions(db, task, last)

    def add_metrics(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        with self._transaction() as db:
            written = json.dumps(dict(metrics))
            db.execute("UPDATE version SET metrics = ? WHERE task = ? AND number = ?", (written, task, number))

    def digests(self) -> set[str]:
        with self._moment() as db:
            return {digest for (digest,) in db.execute(batches.NAMED)}

    def jump(self, now: float, only: str = "") -> None:
        with self._transaction() as db:
            for name in [only] if only else [each.name for each in self.tasks()]:
                batches.jump(db, name, now)

    # Compaction

    def forget_bodies(self, task: str, before_batch: int) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE contribution SET body = NULL WHERE task = ? AND batch < ? AND body IS NOT NULL",
                (task, before_batch),
            )

    def compact(self, task: str, *, before_batch: int, before_base: int, limit: int = 8192) -> int:
        with self._transaction() as db:
            gone = compaction.fold(db, task, limit)
            gone += compaction.forget_contributions(db, task, before_batch, before_base, limit)
            failpoint.hit("ledger.before-compact")
        failpoint.hit("ledger.after-compact")
        return gone

    def forget_versions(self, task: str, numbers: Iterable[int]) -> list[str]:
        with self._transaction() as db:
            return compaction.forget_versions(db, task, numbers)

    # The account

    def frame_counts(self, task: str) -> dict[str, tuple[int, int, int]]:
        with self._moment() as db:
            return accounts.frame_counts(db, task)

    def lost_to_restore(self, task: str) -> dict[str, int]:
        with self._moment() as db:
            return accounts.lost_to_restore(db, task)

    def settled(self, task: str, device: str, epoch: int) -> dict[int, Refusal | None]:
        with self._moment() as db:
            return accounts.settled(db, admission.epoch_of(task, device, epoch))

    # For people

    def devices(self) -> list[str]:
        with self._moment() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT device FROM epoch ORDER BY device")]

    def device(self, task: str, name: str) -> Past:
        with self._moment() as db:
            return history.of_device(db, task, name)

    def recent(self, task: str, device: str, limit: int = 20) -> list[Recent]:
        with self._moment() as db:
            return history.recent(db, task, device, limit)

    def news(self, versions: Mapping[str, int], marks: Mapping[Epoch, Mark]) -> tuple[list[NewVersion], list[NewMark]]:
        with self._moment() as db:
            return history.news(db, versions, marks)

    def points(self, task: str) -> list[Point]:
        with self._moment() as db:
            return curve.points(db, task)

    def rounds(self, task: str, before: int, limit: int) -> list[Round]:
        with self._moment() as db:
            return curve.rounds(db, task, before, limit)

    def contributors(self, task: str, number: int) -> list[str]:
        with self._moment() as db:
            return curve.contributors(db, task, number)

    # Upkeep

    def check_pages(self) -> None:
        self._database.check_pages()

    def check(self) -> list[Breach]:
        return check.check(self._database)

    def copy_to(self, path: Path) -> None:
        self._database.copy_to(path)

    def size(self) -> dict[str, int]:
        """Bytes of the file, of its log, free bytes inside, and rows of each table."""
        return self._database.size()
