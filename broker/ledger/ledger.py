"""The ledger: every identity is applied at most once, and every answer is durable before it is given."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from broker.ledger.rows import Admission, Contribution, Entry, Pending, Verdict, Version
from broker.ledger.schema import SCHEMA, SCHEMA_VERSION
from edgeclient import failpoint
from edgeclient.wire.limits import MAX_RECEIPT_LIST
from edgeclient.wire.messages import Hello, Receipt, Refusal

_U64: Final = 2**64 - 1


class LedgerError(Exception):
    """The ledger cannot be used; one line that says which file and what to do."""


class Ledger:
    """Identities, contributions, batches and versions of all tasks.

    Args:
        path: the database file; made if missing.
        read_only: for looking on while the aggregator writes.

    Raises:
        LedgerError: not a ledger, or one of a newer version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        try:
            if read_only:
                self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            else:
                self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{path} cannot be opened: {error}") from None
        try:
            self._prepare(path, read_only=read_only)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing is pending, since every method commits."""
        self._db.close()

    # Tasks

    def add_task(self, name: str, bundle: str, settings: dict[str, Any], version: Version) -> None:
        """Record a task with its initial version; LedgerError when the name is taken."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM task WHERE name = ?", (name,)).fetchone():
                raise LedgerError(f"task {name} is already there: choose another name")
            db.execute("INSERT INTO task VALUES (?, ?, ?)", (name, bundle, json.dumps(settings)))
            self._insert_version(name, version)

    def tasks(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, bundle digest and settings of every task."""
        rows = self._db.execute("SELECT name, bundle, settings FROM task ORDER BY name")
        return [(name, bundle, json.loads(settings)) for name, bundle, settings in rows]

    # Frames

    def admit(self, entries: Sequence[Entry], now: float) -> list[Admission]:
        """Decide and record in ONE transaction; the answers are durable when this returns."""
        failpoint.hit("ledger.before-commit")
        with self._transaction():
            admissions = [self._admit(entry, now) for entry in entries]
        failpoint.hit("ledger.after-commit")
        return admissions

    def _admit(self, entry: Entry, now: float) -> Admission:
        identity = (entry.task, entry.device, _signed(entry.epoch), entry.sequence)
        known = self._db.execute(
            "SELECT digest FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence = ?", identity
        ).fetchone()
        if known and not failpoint.sabotaged("double"):
            if known[0] == entry.digest:
                return Admission(Verdict.DUPLICATE)
            return Admission(Verdict.REFUSED, Refusal.CONFLICT)
        update = (*identity[:3], entry.number)
        refusal = entry.refusal
        leader = self._db.execute(
            "SELECT weight, parts FROM contribution WHERE task = ? AND device = ? AND epoch = ? AND number = ?"
            " AND leads", update,
        ).fetchone()  # fmt: skip
        if refusal is None and leader and not failpoint.sabotaged("double"):
            taken = self._db.execute(
                "SELECT 1 FROM contribution WHERE task = ? AND device = ? AND epoch = ? AND number = ? AND part = ?",
                (*update, entry.part),
            ).fetchone()
            if taken or leader[1] != entry.parts:
                refusal = Refusal.UPDATE
        self._db.execute(
            "INSERT OR REPLACE INTO frame VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*identity, entry.digest, None if refusal is None else int(refusal), now),
        )
        if refusal is None:
            self._db.execute(
                "INSERT INTO contribution (task, device, epoch, sequence, number, part, parts, leads, weight,"
                " base_version, num_examples, received, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*identity, entry.number, entry.part, entry.parts, leader is None,
                 leader[0] if leader else entry.weight, entry.base_version, entry.num_examples, now, entry.body),
            )  # fmt: skip
        self._advance(identity)
        return Admission(Verdict.APPLIED if refusal is None else Verdict.REFUSED, refusal)

    def _advance(self, identity: tuple[str, str, int, int]) -> None:
        """Move the epoch's watermark over every sequence that is now settled."""
        task, device, epoch, sequence = identity
        self._db.execute("INSERT OR IGNORE INTO epoch VALUES (?, ?, ?, 0, 0, 0)", (task, device, epoch))
        (watermark, seen) = self._db.execute(
            "SELECT watermark, seen FROM epoch WHERE task = ? AND device = ? AND epoch = ?", (task, device, epoch)
        ).fetchone()
        if sequence == watermark:
            settled = self._db.execute(
                "SELECT sequence FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence >= ?"
                " ORDER BY sequence",
                (task, device, epoch, watermark),
            )
            for (each,) in settled:
                if each != watermark:
                    break
                watermark += 1
        self._db.execute(
            "UPDATE epoch SET watermark = ?, seen = ? WHERE task = ? AND device = ? AND epoch = ?",
            (watermark, max(seen, sequence + 1), task, device, epoch),
        )

    def hello(self, task: str, device: str, hello: Hello) -> None:
        """Note what the device has settled, so that its refusals need not be told again."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO epoch VALUES (?, ?, ?, 0, 0, 0)", (task, device, _signed(hello.epoch)))
            db.execute(
                "UPDATE epoch SET confirmed = max(confirmed, ?) WHERE task = ? AND device = ? AND epoch = ?",
                (hello.confirmed, task, device, _signed(hello.epoch)),
            )

    def receipt(self, task: str, device: str, epoch: int, *, conflict: bool = False) -> Receipt:
        """What the ledger knows about one epoch of a device."""
        key = (task, device, _signed(epoch))
        row = self._db.execute(
            "SELECT watermark, seen, confirmed FROM epoch WHERE task = ? AND device = ? AND epoch = ?", key
        ).fetchone()
        watermark, seen, confirmed = row or (0, 0, 0)
        frames = "SELECT sequence, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ?"
        applied = self._db.execute(
            f"{frames} AND sequence >= ? AND refusal IS NULL ORDER BY sequence LIMIT ?",
            (*key, watermark, MAX_RECEIPT_LIST),
        )
        refused = self._db.execute(
            f"{frames} AND sequence >= ? AND refusal IS NOT NULL ORDER BY sequence LIMIT ?",
            (*key, confirmed, MAX_RECEIPT_LIST + 1),
        )
        return Receipt(
            epoch, watermark, seen, conflict,
            tuple(sequence for sequence, _ in applied),
            tuple((sequence, Refusal(code)) for sequence, code in refused),
        )  # fmt: skip

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
            "task = ? AND device = ? AND epoch = ? AND body IS NOT NULL ORDER BY id", (task, device, _signed(epoch))
        )

    def _contributions(self, where: str, values: tuple[Any, ...]) -> list[Contribution]:
        rows = self._db.execute(
            f"SELECT id, device, epoch, sequence, leads, weight, base_version, body FROM contribution WHERE {where}",  # noqa: S608 (the callers above are the only ones)
            values,
        )
        return [Contribution(r[0], r[1], r[2] & _U64, r[3], bool(r[4]), *r[5:]) for r in rows]

    def close_batch(self, task: str, members: Sequence[Contribution], version: Version) -> None:
        """The closing transaction: members leave the queue and the new version exists, or neither."""
        failpoint.hit("ledger.before-close")
        with self._transaction() as db:
            db.executemany(
                "UPDATE contribution SET batch = ? WHERE id = ?", [(version.batch, member.id) for member in members]
            )
            self._insert_version(task, version)
        failpoint.hit("ledger.after-close")

    def forget_bodies(self, task: str, before_batch: int) -> None:
        """Drop the frames of old batches; identities, weights and members stay."""
        with self._transaction() as db:
            db.execute(
                "UPDATE contribution SET body = NULL WHERE task = ? AND batch < ? AND body IS NOT NULL",
                (task, before_batch),
            )

    def add_metrics(self, task: str, number: int, metrics: dict[str, float]) -> None:
        """Attach an evaluation to a version."""
        with self._transaction() as db:
            db.execute(
                "UPDATE version SET metrics = ? WHERE task = ? AND number = ?", (json.dumps(metrics), task, number)
            )

    def versions(self, task: str, last: int | None = None) -> list[Version]:
        """All versions of a task, oldest first, or the last few of them."""
        rows = self._db.execute(
            "SELECT number, digest, batch, created, updates, frames, total_weight, metrics FROM version"
            " WHERE task = ? ORDER BY number DESC LIMIT ?",
            (task, -1 if last is None else last),
        )
        return [
            Version(number, digest, batch, created, updates, frames, total_weight, json.loads(metrics))
            for number, digest, batch, created, updates, frames, total_weight, metrics in reversed(rows.fetchall())
        ]

    def frame_counts(self, task: str) -> dict[str, tuple[int, int, int]]:
        """Per device: frames applied, refused, and contributions beyond one per identity (must be 0)."""
        counts = self._db.execute(
            "SELECT f.device, sum(f.refusal IS NULL), sum(f.refusal IS NOT NULL), (SELECT count(*) FROM contribution c"
            " WHERE c.task = f.task AND c.device = f.device) FROM frame f WHERE f.task = ? GROUP BY f.device",
            (task,),
        )
        return {device: (applied, refused, total - applied) for device, applied, refused, total in counts}

    def settled(self, task: str, device: str, epoch: int) -> dict[int, Refusal | None]:
        """Every sequence of an epoch that the ledger knows: None for applied, else the refusal."""
        rows = self._db.execute(
            "SELECT sequence, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ?",
            (task, device, _signed(epoch)),
        )
        return {sequence: None if code is None else Refusal(code) for sequence, code in rows}

    def _insert_version(self, task: str, version: Version) -> None:
        self._db.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (task, version.number, version.digest, version.batch, version.created_s, version.updates,
             version.frames, version.total_weight, json.dumps(version.metrics)),
        )  # fmt: skip

    def _prepare(self, path: Path, *, read_only: bool) -> None:
        try:
            self._db.execute("PRAGMA busy_timeout = 10000")
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{path} is not a ledger ({error}): restore a backup or move it away") from None
        if version > SCHEMA_VERSION:
            raise LedgerError(f"{path} has schema {version}, this program knows {SCHEMA_VERSION}: update edgeclient")
        if version == 0 and not read_only:
            with self._transaction() as db:
                for statement in SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _signed(epoch: int) -> int:
    """SQLite integers are signed 64-bit."""
    return epoch - 2**64 if epoch >= 2**63 else epoch
