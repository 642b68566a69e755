"""What waits, batches and versions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.ledger import record
from broker.ledger.rows import Contribution, Pending, Version
from broker.ledger.sqlite.receipts import epoch_of
from broker.ledger.sqlite.tasks import VERSION, Tasks, insert_version
from edgeclient import failpoint

_CONTRIBUTION: Final = "device, epoch, sequence, number, base_version, weight, leads, terms, id, body"
_LONGEST_S: Final = 10.0 * 365 * 86400  # a clock that is wrong by more must not exhaust the numbers
_U64: Final = 2**64 - 1


class Batches(Tasks):
    def pending(self, task: str) -> Pending:
        with self.moment() as db:
            updates, frames, opened = db.execute(
                "SELECT coalesce(sum(leads), 0), count(*), min(CASE WHEN leads THEN received END) FROM contribution"
                " WHERE task = ? AND batch IS NULL",
                (task,),
            ).fetchone()
            return Pending(updates, frames, opened)

    def open_contributions(self, task: str, limit: int, after: int = 0) -> list[Contribution]:
        return self._members(
            "batch IS NULL AND task = ? AND id > ? ORDER BY leads DESC, id LIMIT ?", task, after, limit
        )

    def batch(self, task: str, number: int) -> list[Contribution]:
        return self._members("batch = ? AND task = ? AND body IS NOT NULL ORDER BY id", number, task)

    def by_device(self, task: str, device: str, epoch: int) -> list[Contribution]:
        kept = "task = ? AND device = ? AND epoch = ? AND body IS NOT NULL ORDER BY id"
        return self._members(kept, *epoch_of(task, device, epoch))

    def _members(self, where: str, *values: Any) -> list[Contribution]:
        with self.moment() as db:
            rows = db.execute(f"SELECT {_CONTRIBUTION} FROM contribution WHERE {where}", values)  # noqa: S608
            return [
                Contribution(
                    device, epoch & _U64, sequence, number, base, weight, bool(leads), json.loads(terms), id_, body
                )
                for device, epoch, sequence, number, base, weight, leads, terms, id_, body in rows
            ]

    def close_batch(self, task: str, members: Sequence[Contribution], version: Version) -> None:
        with self.transaction() as db:
            moved = [(version.batch, each.id) for each in members]
            db.executemany("UPDATE contribution SET batch = ? WHERE id = ?", moved)
            (frame_bytes,) = db.execute(
                "SELECT coalesce(sum(length(body)), 0) FROM contribution WHERE task = ? AND batch = ?",
                (task, version.batch),
            ).fetchone()
            insert_version(db, task, version, frame_bytes, record.encode(members))
            failpoint.hit("ledger.before-close")
        failpoint.hit("ledger.after-close")

    def versions(self, task: str, last: int | None = None) -> list[Version]:
        with self.moment() as db:
            rows = db.execute(
                f"SELECT {VERSION} FROM version WHERE task = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
                (task, -1 if last is None else last),
            ).fetchall()
            return [
                Version(number, digest, batch, created_s, updates, frames, total_weight,
                        json.loads(metrics), json.loads(terms), json.loads(state), state_digest, held)
                for number, digest, batch, created_s, updates, frames, total_weight, metrics, terms, state,
                state_digest, held in reversed(rows)
            ]  # fmt: skip

    def add_metrics(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        with self.transaction() as db:
            written = json.dumps(dict(metrics))
            db.execute("UPDATE version SET metrics = ? WHERE task = ? AND number = ?", (written, task, number))

    def judge(self, task: str, number: int, held: str, instead: Version | None = None) -> None:
        with self.transaction() as db:
            db.execute("UPDATE version SET held = ? WHERE task = ? AND number = ?", (held, task, number))
            if instead is not None:
                insert_version(db, task, instead)

    def jump(self, now: float, only: str = "") -> None:
        with self.transaction() as db:
            for name in [only] if only else [each.name for each in self.tasks()]:
                *before, last = self.versions(name, 2)
                seen = before[0] if last.held and before else last
                number = last.number + 1000 + int(min(max(0.0, now - last.created_s), _LONGEST_S))
                made = Version(number, seen.digest, None, now, 0, 0, 0, seen.metrics, {}, seen.state, seen.state_digest)
                insert_version(db, name, made)
                db.execute("UPDATE task SET since = ? WHERE name = ?", (number, name))
