"""What waits, batches and versions, inside the caller's transaction."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.ledger import record
from broker.ledger.rows import Contribution, Pending, Version
from broker.ledger.sqlite.admission import epoch_of

_CONTRIBUTION: Final = "id, device, epoch, sequence, number, leads, weight, base_version, body"
_VERSION: Final = "number, digest, batch, created, updates, frames, total_weight, metrics"
_LONGEST_S: Final = 10.0 * 365 * 86400  # a clock that is wrong by more must not exhaust the numbers
_U64: Final = 2**64 - 1


def pending(db: sqlite3.Connection, task: str) -> Pending:
    """See Ledger.pending."""
    updates, frames, opened = db.execute(
        "SELECT coalesce(sum(leads), 0), count(*), min(CASE WHEN leads THEN received END) FROM contribution"
        " WHERE task = ? AND batch IS NULL",
        (task,),
    ).fetchone()
    return Pending(updates, frames, opened)


def contributions(db: sqlite3.Connection, where: str, *values: Any) -> list[Contribution]:
    """Those for which `where` holds, a constant of the caller."""
    rows = db.execute(f"SELECT {_CONTRIBUTION} FROM contribution WHERE {where}", values)  # noqa: S608
    return [Contribution(r[0], r[1], r[2] & _U64, r[3], r[4], bool(r[5]), *r[6:]) for r in rows]


def close(
    db: sqlite3.Connection, task: str, members: Sequence[Contribution], version: Version, terms: Mapping[str, float]
) -> None:
    """See Ledger.close_batch."""
    listed = [
        record.Member(m.device, epoch_of(task, m.device, m.epoch).number, m.sequence, m.base_version, m.weight, m.leads)
        for m in members
    ]
    db.executemany("UPDATE contribution SET batch = ? WHERE id = ?", [(version.batch, each.id) for each in members])
    insert_version(db, task, version, sum(len(each.body) for each in members), record.encode(listed, terms))


def insert_version(
    db: sqlite3.Connection, task: str, version: Version, frame_bytes: int = 0, written: bytes | None = None
) -> None:
    """A new version with the bytes of its frames and its record; neither for one that no batch made."""
    db.execute(
        f"INSERT INTO version (task, {_VERSION}, frame_bytes, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (task, version.number, version.digest, version.batch, version.created_s, version.updates,
         version.frames, version.total_weight, json.dumps(version.metrics), frame_bytes, written),
    )  # fmt: skip


def versions(db: sqlite3.Connection, task: str, last: int | None) -> list[Version]:
    """See Ledger.versions."""
    rows = db.execute(
        f"SELECT {_VERSION} FROM version WHERE task = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
        (task, -1 if last is None else last),
    ).fetchall()
    return [
        Version(number, digest, batch, created, updates, frames, total_weight, json.loads(metrics))
        for number, digest, batch, created, updates, frames, total_weight, metrics in reversed(rows)
    ]


def jump(db: sqlite3.Connection, task: str, now: float) -> None:
    """See Ledger.jump."""
    (last,) = versions(db, task, 1)
    number = last.number + 1000 + int(min(max(0.0, now - last.created_s), _LONGEST_S))
    insert_version(db, task, Version(number, last.digest, None, now, 0, 0, 0, last.metrics))
