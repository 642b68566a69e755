"""Tasks: added, changed, removed and forgotten; each in one transaction, beside an aggregator that works or not."""

import difflib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from broker.ledger.protocol import LedgerError
from broker.ledger.rows import TaskRow, Version
from broker.ledger.sqlite.database import Database

VERSION: Final = (
    "number, digest, batch, created, updates, frames, total_weight, metrics, terms, state, state_digest, held"
)
# More than any task lets an update be behind, unless asked to: what waits on devices belongs to the removed one.
_APART: Final = 1000


class Tasks(Database):
    def add_task(self, name: str, bundle: str, settings: dict[str, Any], version: Version) -> None:
        with self.transaction() as db:
            there = db.execute("SELECT removed FROM task WHERE name = ?", (name,)).fetchone()
            if there is not None:
                wait = (
                    "is being removed: edgebroker serve finishes that; until then" if there[0] else "is already there:"
                )
                raise LedgerError(f"task {name} {wait} choose another name")
            gone = db.execute("SELECT version FROM gone WHERE task = ?", (name,)).fetchone()
            first = version if gone is None else replace(version, number=gone[0] + _APART)
            db.execute("INSERT INTO task VALUES (?, ?, ?, 0, ?)", (name, bundle, json.dumps(settings), first.number))
            insert_version(db, name, first)

    def tasks(self) -> list[TaskRow]:
        return self._rows(removed=False)

    def removed(self) -> list[TaskRow]:
        return self._rows(removed=True)

    def _rows(self, *, removed: bool) -> list[TaskRow]:
        with self.moment() as db:
            rows = db.execute("SELECT name, bundle, settings FROM task WHERE removed = ? ORDER BY name", (removed,))
            return [TaskRow(name, bundle, json.loads(settings)) for name, bundle, settings in rows]

    def change_task(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> TaskRow:
        with self.transaction() as db:
            row = self._served(name)
            changed = change(row.settings)
            db.execute("UPDATE task SET settings = ? WHERE name = ?", (json.dumps(changed), name))
            if any(changed.get(key) != row.settings.get(key) for key in ("evaluation", "evaluation_options")):
                db.execute("UPDATE version SET metrics = '{}' WHERE task = ?", (name,))
            return row._replace(settings=changed)

    def remove_task(self, name: str) -> None:
        with self.transaction() as db:
            self._served(name)
            db.execute("UPDATE task SET removed = 1 WHERE name = ?", (name,))

    def _served(self, name: str) -> TaskRow:
        served = {row.name: row for row in self.tasks()}
        if name in served:
            return served[name]
        near = difflib.get_close_matches(name, served, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(served) or 'none'}"
        raise LedgerError(f"no task {name} is served here: {known}")

    def forget_task(self, name: str) -> list[str]:
        named = "SELECT bundle FROM task WHERE name = ?1 UNION SELECT digest FROM version WHERE task = ?1"
        states = "SELECT state_digest FROM version WHERE task = ?1 AND state_digest != ''"
        with self.transaction() as db:
            digests = {digest for (digest,) in db.execute(f"{named} UNION {states}", (name,))}
            (last,) = db.execute("SELECT max(number) FROM version WHERE task = ?", (name,)).fetchone()
            _settle(db, name)
            for table in ("frame", "past", "contribution", "version"):
                db.execute(f"DELETE FROM {table} WHERE task = ?", (name,))  # noqa: S608 (its own tables)
            db.execute("DELETE FROM task WHERE name = ?", (name,))
            db.execute("INSERT OR REPLACE INTO gone VALUES (?, ?)", (name, last))
            return sorted(digests - self.digests())

    def since(self, task: str) -> int:
        with self.moment() as db:
            row = db.execute("SELECT since FROM task WHERE name = ?", (task,)).fetchone()
            return int(row[0]) if row else 0

    def go_on(self, task: str, since: int) -> None:
        with self.transaction() as db:
            db.execute("UPDATE task SET since = ? WHERE name = ?", (since, task))

    def grown(self, task: str) -> list[str]:
        with self.moment() as db:
            rows = db.execute(
                "SELECT DISTINCT device FROM contribution c WHERE task = ? AND batch IS NULL AND leads"
                " AND num_examples > 1.1 * coalesce((SELECT max(num_examples) FROM contribution e WHERE"
                " e.task = c.task AND e.device = c.device AND e.batch IS NOT NULL), 0) ORDER BY device",
                (task,),
            )
            return [device for (device,) in rows]

    def digests(self) -> set[str]:
        with self.moment() as db:
            found = db.execute(
                "SELECT digest FROM version UNION SELECT bundle FROM task"
                " UNION SELECT state_digest FROM version WHERE state_digest != ''"
            )
            return {digest for (digest,) in found}


def _settle(db: sqlite3.Connection, task: str) -> None:
    """Below its watermark each epoch is settled, and no more than that is known; above it, nothing."""
    below = (
        "(SELECT count(*) FROM frame f WHERE f.task = epoch.task AND f.device = epoch.device"
        " AND f.epoch = epoch.epoch AND f.sequence < watermark AND f.refusal IS {} NULL)"
    )
    applied, refused = f"applied + {below.format('')}", f"refused + {below.format('NOT')}"
    db.execute(
        f"UPDATE epoch SET applied = {applied}, forgotten = {applied}, refused = {refused},"  # noqa: S608 (the above)
        " seen = watermark, folded = watermark WHERE task = ?",
        (task,),
    )


def insert_version(
    db: sqlite3.Connection, task: str, version: Version, frame_bytes: int = 0, written: bytes | None = None
) -> None:
    """A new version with the bytes of its frames and its record; neither for one that no batch made."""
    numbers = [json.dumps(dict(each)) for each in (version.metrics, version.terms, version.state)]
    db.execute(
        f"INSERT INTO version (task, {VERSION}, frame_bytes, record)"  # noqa: S608
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (task, version.number, version.digest, version.batch, version.created_s, version.updates,
         version.frames, version.total_weight, *numbers, version.state_digest, version.held, frame_bytes, written),
    )  # fmt: skip
