"""What a ledger tells of a task at a glance: its versions with their bytes, its rounds with their members; reads only.

The caller opens the database and may do so while an aggregator writes.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broker.ledger import record

_POINTS: Final = 400  # more than a chart can show
_SHOWN: Final = 12  # devices of a round, before all of them are asked for


class Point(NamedTuple):
    """A version on the learning curve.

    Attributes:
        number: of the version.
        made_s: Unix seconds.
        updates: that all versions up to it were made of.
        frame_bytes: bytes of the frames of all versions up to it.
        metrics: what it is worth, empty until it is evaluated.
    """

    number: int
    made_s: float
    updates: int
    frame_bytes: int
    metrics: dict[str, float]


class Round(NamedTuple):
    """A version and who contributed: up to a dozen devices, and how many there are."""

    number: int
    made_s: float
    updates: int
    frames: int
    frame_bytes: int | None
    devices: list[str]
    contributors: int


class Recent(NamedTuple):
    """A frame that was counted: of which update, from which version, when (Unix seconds), in which version, its bytes.

    `version` is None while it waits, `size` when its bytes are no longer kept.
    """

    update: int
    base_version: int
    received_s: float
    version: int | None
    examples: int
    size: int | None


@dataclass(slots=True)
class Curve:
    """The learning curve of a task, that reads each closing record once.

    Versions that are no longer kept count like the next one that is.
    """

    task: str
    _bytes: dict[int, int] = field(default_factory=dict)

    def read(self, db: sqlite3.Connection) -> list[Point]:
        """All versions that are kept, thinned to what a chart can show; the first and the last always stay."""
        points = list(self._points(db))
        step = -(-len(points) // _POINTS)
        return points[:-1:step] + points[-1:] if step > 1 else points

    def _points(self, db: sqlite3.Connection) -> Iterator[Point]:
        before = updates = frame_bytes = 0
        for number, made_s, batch, made_of, metrics in db.execute(
            "SELECT number, created, batch, updates, metrics FROM version WHERE task = ? ORDER BY number", (self.task,)
        ).fetchall():
            gap = number - before if batch is not None else 0
            if batch is not None:
                updates += made_of * gap
                frame_bytes += self._of(db, number) * gap
            before = number
            yield Point(number, made_s, updates, frame_bytes, json.loads(metrics))

    def _of(self, db: sqlite3.Connection, number: int) -> int:
        if number not in self._bytes:
            (written,) = db.execute(
                "SELECT record FROM version WHERE task = ? AND number = ?", (self.task, number)
            ).fetchone() or (None,)
            self._bytes[number] = _frame_bytes(record.decode(written)[1]) or 0 if written else 0
        return self._bytes[number]


def waiting(db: sqlite3.Connection, task: str) -> int:
    """Updates that wait for the next version."""
    (updates,) = db.execute(
        "SELECT coalesce(sum(leads), 0) FROM contribution WHERE task = ? AND batch IS NULL", (task,)
    ).fetchone()
    return int(updates)


def settings(db: sqlite3.Connection, task: str) -> dict[str, Any] | None:
    """What the task was added with; None for one that is not there."""
    row = db.execute("SELECT settings FROM task WHERE name = ?", (task,)).fetchone()
    return None if row is None else json.loads(row[0])


def rounds(db: sqlite3.Connection, task: str, before: int, limit: int) -> list[Round]:
    """The newest rounds whose version is below `before`."""
    rows = db.execute(
        "SELECT number, created, updates, frames, record FROM version"
        " WHERE task = ? AND number < ? AND record IS NOT NULL ORDER BY number DESC LIMIT ?",
        (task, before, limit),
    )
    return [_round(*row) for row in rows.fetchall()]


def contributors(db: sqlite3.Connection, task: str, number: int) -> list[str]:
    """Every device of a round; none for a version that is not kept, or not made of any."""
    row = db.execute("SELECT record FROM version WHERE task = ? AND number = ?", (task, number)).fetchone()
    return [] if row is None or row[0] is None else _devices(record.decode(row[0])[0])


def recent(db: sqlite3.Connection, task: str, device: str, limit: int = 20) -> list[Recent]:
    """The newest counted frames of a device that are not compacted yet."""
    rows = db.execute(
        "SELECT number, base_version, received, batch, num_examples, length(body) FROM contribution"
        " WHERE task = ? AND device = ? ORDER BY id DESC LIMIT ?",
        (task, device, limit),
    )
    return [Recent(*row) for row in rows]


def _round(number: int, made_s: float, updates: int, frames: int, written: bytes) -> Round:
    members, terms = record.decode(written)
    devices = _devices(members)
    return Round(number, made_s, updates, frames, _frame_bytes(terms), devices[:_SHOWN], len(devices))


def _devices(members: list[record.Member]) -> list[str]:
    return sorted({member.device for member in members})


def _frame_bytes(terms: dict[str, float]) -> int | None:
    """None in records of 0.2.0 and before."""
    found = terms.get("frame_bytes")
    return None if found is None else int(found)
