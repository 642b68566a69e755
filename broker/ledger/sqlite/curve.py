"""What a ledger tells of a task at a glance: versions with their bytes, rounds with their members; reads only."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Final

from broker.ledger import record
from broker.ledger.sqlite.database import Database
from broker.views import Point, Round

_POINTS: Final = 400  # more than a chart can show
_LISTED: Final = 12  # devices of a round, before all of them are asked for


class Curve(Database):
    def points(self, task: str) -> list[Point]:
        with self.moment() as db:
            found = list(_points(db, task))
        step = -(-len(found) // _POINTS)
        return found[:-1:step] + found[-1:] if step > 1 else found

    def rounds(self, task: str, before: int, limit: int) -> list[Round]:
        with self.moment() as db:
            found = []
            for number, made_s, updates, frames, size, written in db.execute(
                "SELECT number, created, updates, frames, frame_bytes, record FROM version"
                " WHERE task = ? AND number < ? AND record IS NOT NULL ORDER BY number DESC LIMIT ?",
                (task, before, limit),
            ):
                devices = _devices(written)
                found.append(Round(number, made_s, updates, frames, size, devices[:_LISTED], len(devices)))
            return found

    def contributors(self, task: str, number: int) -> list[str]:
        with self.moment() as db:
            row = db.execute("SELECT record FROM version WHERE task = ? AND number = ?", (task, number)).fetchone()
            return [] if row is None or row[0] is None else _devices(row[0])


def _points(db: sqlite3.Connection, task: str) -> Iterator[Point]:
    before = updates = frame_bytes = 0
    for number, made_s, batch, made_of, made_of_bytes, metrics in db.execute(
        "SELECT number, created, batch, updates, frame_bytes, metrics FROM version WHERE task = ? ORDER BY number",
        (task,),
    ):
        gap = number - before if batch is not None else 0
        updates += made_of * gap
        frame_bytes += made_of_bytes * gap
        before = number
        yield Point(number, made_s, updates, frame_bytes, json.loads(metrics))


def _devices(written: bytes) -> list[str]:
    return sorted({member.device for member in record.decode(written)})
