"""The ledger: every identity is applied at most once, and every answer is durable before it is given."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from broker.ledger import record
from broker.ledger.rows import Admission, Contribution, Entry, Pending, Version, Withdrawal
from broker.ledger.sqlite import admission, compaction
from broker.ledger.sqlite.database import Database, LedgerError, LedgerUnavailable
from edgeclient import failpoint
from edgeclient.wire.messages import Hello, Receipt, Refusal

__all__ = ["POINTS", "Ledger", "LedgerError", "LedgerUnavailable"]

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
_LONGEST_S: Final = 10.0 * 365 * 86400  # a clock that is wrong by more must not exhaust the numbers
_CONTRIBUTION: Final = "id, device, epoch, sequence, number, leads, weight, base_version, body"
_U64: Final = 2**64 - 1


class Ledger:
    """Identities, contributions, batches and versions of all tasks.

    Every method that writes is one transaction, and raises LedgerUnavailable with nothing written while the disk is
    full.

    Args:
        path: the database file; made if missing.
        read_only: for looking on while the aggregator writes.

    Raises:
        LedgerError: not a ledger, or one of another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, read_only=read_only)
        self._db = self._database.db

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing is pending, since every method commits."""
        self._database.close()

    def check_pages(self) -> None:
        """LedgerError when the file is damaged."""
        self._database.check_pages()

    def copy_to(self, path: Path) -> None:
        """A consistent copy as one file, synced; another process may write meanwhile."""
        self._database.copy_to(path)

    def size(self) -> dict[str, int]:
        """Bytes of the file, of its log, free bytes inside, and rows of each table."""
        return self._database.size()

    # Tasks

    def add_task(self, name: str, bundle: str, settings: dict[str, Any], version: Version) -> None:
        """Record a task with its initial version; LedgerError when the name is taken."""
        with self._database.transaction() as db:
            if db.execute("SELECT 1 FROM task WHERE name = ?", (name,)).fetchone():
                raise LedgerError(f"task {name} is already there: choose another name")
            db.execute("INSERT INTO task VALUES (?, ?, ?)", (name, bundle, json.dumps(settings)))
            self._insert_version(name, version, None)

    def tasks(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, bundle digest and settings of every task."""
        rows = self._db.execute("SELECT name, bundle, settings FROM task ORDER BY name")
        return [(name, bundle, json.loads(settings)) for name, bundle, settings in rows]

    # Frames

    def admit(self, asked: Sequence[Entry | Withdrawal], now: float) -> list[Admission]:
        """Decide and record in ONE transaction, in this order; the answers are durable when this returns."""
        if not asked:
            return []
        with self._database.transaction() as db:
            admissions = [admission.admit(db, each, now) for each in asked]
            failpoint.hit("ledger.before-commit")
        failpoint.hit("ledger.after-commit")
        return admissions

    def hello(self, task: str, device: str, hello: Hello) -> int:
        """Note what the device has settled; how many frames of that this ledger has never seen (see LEDGER.md)."""
        return self.greet([(task, device, hello)])[0]

    def greet(self, hellos: Sequence[tuple[str, str, Hello]]) -> list[int]:
        """The same for many in one transaction."""
        if not hellos:
            return []
        with self._database.transaction() as db:
            lost = [admission.greet(db, *each) for each in hellos]
            failpoint.hit("ledger.before-hello")
        failpoint.hit("ledger.after-hello")
        return lost

    def receipt(self, task: str, device: str, epoch: int, *, conflict: tuple[int, bytes] | None = None) -> Receipt:
        """What the ledger knows about one epoch of a device."""
        return admission.receipt(self._db, task, device, epoch, conflict=conflict)

    # Batches and versions

    def pending(self, task: str) -> Pending:
        """What waits for the next batch."""
        updates, frames, opened = self._db.execute(
            "SELECT coalesce(sum(leads), 0), count(*), min(CASE WHEN leads THEN received END) FROM contribution"
            " WHERE task = ? AND batch IS NULL",
            (task,),
        ).fetchone()
        return Pending(updates, frames, opened)

    def open_contributions(self, task: str, limit: int) -> list[Contribution]:
        """The oldest contributions that are in no batch yet; those that lead an update first, since they weigh."""
        return self._contributions("batch IS NULL AND task = ? ORDER BY leads DESC, id LIMIT ?", (task, limit))

    def batch(self, task: str, number: int) -> list[Contribution]:
        """The members of a closed batch whose bodies are still kept."""
        return self._contributions("batch = ? AND task = ? AND body IS NOT NULL ORDER BY id", (number, task))

    def by_device(self, task: str, device: str, epoch: int) -> list[Contribution]:
        """Every contribution of an epoch whose body is still kept."""
        return self._contributions(
            "task = ? AND device = ? AND epoch = ? AND body IS NOT NULL ORDER BY id",
            admission.epoch_of(task, device, epoch),
        )

    def _contributions(self, where: str, values: tuple[Any, ...]) -> list[Contribution]:
        rows = self._db.execute(
            f"SELECT {_CONTRIBUTION} FROM contribution WHERE {where}",  # noqa: S608 (the callers above are the only ones)
            values,
        )
        return [Contribution(r[0], r[1], r[2] & _U64, r[3], r[4], bool(r[5]), *r[6:]) for r in rows]

    def close_batch(
        self, task: str, members: Sequence[Contribution], version: Version, terms: Mapping[str, float] | None = None
    ) -> None:
        """The closing transaction: members leave the queue, the record and the new version exist; or nothing of it.

        Args:
            task: task id.
            members: contributions that are in no batch yet.
            version: made of them.
            terms: what else the sum depended on, for the record.
        """
        listed = [
            record.Member(m.device, admission.epoch_of(task, m.device, m.epoch).number, m.sequence, m.base_version,
                          m.weight, m.leads)
            for m in members
        ]  # fmt: skip
        with self._database.transaction() as db:
            db.executemany(
                "UPDATE contribution SET batch = ? WHERE id = ?", [(version.batch, member.id) for member in members]
            )
            self._insert_version(task, version, record.encode(listed, terms or {}))
            failpoint.hit("ledger.before-close")
        failpoint.hit("ledger.after-close")

    def add_metrics(self, task: str, number: int, metrics: dict[str, float]) -> None:
        """Attach an evaluation to a version."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE version SET metrics = ? WHERE task = ? AND number = ?", (json.dumps(metrics), task, number)
            )

    def versions(self, task: str, last: int | None = None) -> list[Version]:
        """The versions that are kept, oldest first, or the last few of them."""
        rows = self._db.execute(
            "SELECT number, digest, batch, created, updates, frames, total_weight, metrics FROM version"
            " WHERE task = ? ORDER BY number DESC LIMIT ?",
            (task, -1 if last is None else last),
        )
        return [
            Version(number, digest, batch, created, updates, frames, total_weight, json.loads(metrics))
            for number, digest, batch, created, updates, frames, total_weight, metrics in reversed(rows.fetchall())
        ]

    def digests(self) -> set[str]:
        """Every content of the registry that a task or a version names."""
        return {digest for (digest,) in self._db.execute("SELECT digest FROM version UNION SELECT bundle FROM task")}

    def jump(self, now: float, only: str = "") -> None:
        """For a restored ledger: its parameters become versions that no device has seen (LEDGER.md, restore).

        A task may have made versions after the backup, at most one a second and a thousand more, as is assumed.
        """
        with self._database.transaction() as db:
            assert db is self._db
            for name in [only] if only else [name for name, _, _ in self.tasks()]:
                (last,) = self.versions(name, last=1)
                number = last.number + 1000 + int(min(max(0.0, now - last.created_s), _LONGEST_S))
                self._insert_version(name, Version(number, last.digest, None, now, 0, 0, 0, last.metrics), None)

    def _insert_version(self, task: str, version: Version, written: bytes | None) -> None:
        self._db.execute(
            "INSERT INTO version (task, number, digest, batch, created, updates, frames, total_weight, metrics, record)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (task, version.number, version.digest, version.batch, version.created_s, version.updates,
             version.frames, version.total_weight, json.dumps(version.metrics), written),
        )  # fmt: skip

    def has_jumped(self, task: str) -> bool:
        """Whether one of the versions that are kept comes from a restore."""
        return any(version.batch is None and version.number for version in self.versions(task))

    # Compaction

    def forget_bodies(self, task: str, before_batch: int) -> None:
        """Drop the frames of old batches; identities, weights and members stay."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE contribution SET body = NULL WHERE task = ? AND batch < ? AND body IS NOT NULL",
                (task, before_batch),
            )

    def compact(self, task: str, *, before_batch: int, before_base: int, limit: int = compaction.STEP) -> int:
        """One bounded step: settled frames fold, and contributions of old batches go; returns how many rows went.

        Args:
            task: task id.
            before_batch: contributions of older batches go once their bodies have.
            before_base: updates of several parts stay until their base version is older.
            limit: rows of either kind at most.
        """
        with self._database.transaction() as db:
            gone = compaction.fold(db, task, limit)
            gone += compaction.forget_contributions(db, task, before_batch, before_base, limit)
            failpoint.hit("ledger.before-compact")
        failpoint.hit("ledger.after-compact")
        return gone

    def forget_versions(self, task: str, keep: int, served: Iterable[str]) -> list[str]:
        """Drop old versions (see compaction.kept), some at a time; returns digests that nothing names any more."""
        with self._database.transaction() as db:
            return compaction.forget_versions(db, task, keep, served)

    # The account

    def frame_counts(self, task: str) -> dict[str, tuple[int, int, int]]:
        """Per device: frames applied, refused, and contributions beyond one per identity (must be 0)."""
        applied, refused, contributed = Counter[str](), Counter[str](), Counter[str]()
        for device, *counts in self._db.execute(
            "SELECT device, sum(refusal IS NULL), sum(refusal IS NOT NULL), 0 FROM frame WHERE task = ?1"
            " GROUP BY device UNION ALL"
            " SELECT device, sum(applied), sum(refused), sum(forgotten) FROM epoch WHERE task = ?1"
            " GROUP BY device UNION ALL"
            " SELECT device, 0, 0, count(*) FROM contribution WHERE task = ?1 GROUP BY device",
            (task,),
        ):
            for counter, count in zip((applied, refused, contributed), counts, strict=True):
                counter[device] += count
        return {
            device: (applied[device], refused[device], contributed[device] - applied[device])
            for device in sorted(applied)
            if applied[device] or refused[device] or contributed[device]
        }

    def lost_to_restore(self, task: str) -> dict[str, int]:
        """Per device, where there are any: frames that it has settled and that a restored ledger does not know."""
        rows = self._db.execute(
            "SELECT device, sum(lost_to_restore) FROM epoch WHERE task = ? GROUP BY device HAVING sum(lost_to_restore)",
            (task,),
        )
        return dict(rows.fetchall())

    def settled(self, task: str, device: str, epoch: int) -> dict[int, Refusal | None]:
        """Every sequence of an epoch that the ledger knows: None for applied, else the refusal.

        More than 65,536 below the watermark all that the ledger knows is how many frames there were: when they are
        all that there could be, they are told as applied, otherwise they are left out.
        """
        return admission.settled(self._db, admission.epoch_of(task, device, epoch))
