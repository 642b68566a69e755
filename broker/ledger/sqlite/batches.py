"""What waits, batches and versions, inside the caller's transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from broker.ledger import record
from broker.ledger.rows import Contribution, Pending, Version

# Every content of the registry that a task or a version names.
NAMED: Final = (
    "SELECT digest FROM version UNION SELECT state_digest FROM version WHERE state_digest != ''"
    " UNION SELECT bundle FROM task"
)
_CONTRIBUTION: Final = "id, device, epoch, sequence, number, leads, weight, terms, base_version, body"
_VERSION: Final = "number, digest, batch, created, updates, frames, total_weight, metrics, terms, state, state_digest"
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
    return [
        Contribution(id_, device, epoch & _U64, sequence, number, bool(leads), weight, json.loads(terms), base, body)
        for id_, device, epoch, sequence, number, leads, weight, terms, base, body in db.execute(
            f"SELECT {_CONTRIBUTION} FROM contribution WHERE {where}",  # noqa: S608
            values,
        )
    ]


def close(db: sqlite3.Connection, task: str, members: Sequence[Contribution], version: Version) -> None:
    """See Ledger.close_batch."""
    listed = record.encode(
        record.Member(m.device, m.epoch, m.sequence, m.number, m.base_version, m.weight, m.leads, m.terms)
        for m in members
    )
    db.executemany("UPDATE contribution SET batch = ? WHERE id = ?", [(version.batch, each.id) for each in members])
    (frame_bytes,) = db.execute(
        "SELECT coalesce(sum(length(body)), 0) FROM contribution WHERE task = ? AND batch = ?", (task, version.batch)
    ).fetchone()
    insert_version(db, task, version, frame_bytes, listed)


def insert_version(
    db: sqlite3.Connection, task: str, version: Version, frame_bytes: int = 0, written: bytes | None = None
) -> None:
    """A new version with the bytes of its frames and its record; neither for one that no batch made."""
    numbers = [json.dumps(dict(each)) for each in (version.metrics, version.terms, version.state)]
    db.execute(
        f"INSERT INTO version (task, {_VERSION}, frame_bytes, record)"  # noqa: S608
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (task, version.number, version.digest, version.batch, version.created_s, version.updates,
         version.frames, version.total_weight, *numbers, version.state_digest, frame_bytes, written),
    )  # fmt: skip


def versions(db: sqlite3.Connection, task: str, last: int | None) -> list[Version]:
    """See Ledger.versions."""
    rows = db.execute(
        f"SELECT {_VERSION} FROM version WHERE task = ? ORDER BY number DESC LIMIT ?",  # noqa: S608
        (task, -1 if last is None else last),
    ).fetchall()
    return [
        Version(number, digest, batch, created_s, updates, frames, total_weight,
                json.loads(metrics), json.loads(terms), json.loads(state), state_digest)
        for number, digest, batch, created_s, updates, frames, total_weight, metrics, terms, state, state_digest
        in reversed(rows)
    ]  # fmt: skip


def jump(db: sqlite3.Connection, task: str, now: float) -> None:
    """See Ledger.jump."""
    (last,) = versions(db, task, 1)
    number = last.number + 1000 + int(min(max(0.0, now - last.created_s), _LONGEST_S))
    again = Version(
        number, last.digest, None, now, metrics=last.metrics, state=last.state, state_digest=last.state_digest
    )
    insert_version(db, task, again)
