"""What a ledger tells of the past: all about one device, and what is new since the last look; reads only.

The caller opens the database and may do so while an aggregator writes.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from broker.ledger import record
from broker.ledger.digests import Chunk
from edgeclient.wire.messages import Refusal

# An update older than this many versions is found in no record; reading one takes 0.1 ms.
_RECORDS: Final = 200

Epoch: TypeAlias = tuple[str, str, int]  # task, device, epoch
Mark: TypeAlias = tuple[int, int, int, int]  # watermark, seen, confirmed, lost


class Counted(NamedTuple):
    """The newest counted update of a device; Unix seconds, None where no longer known."""

    base_version: int
    received_s: float | None
    version: int | None
    made_s: float | None


class Past(NamedTuple):
    """What is known of one device in one task.

    Attributes:
        settings: of the task, as JSON.
        version: the task's current one.
        waiting: updates that wait for the next version.
        epochs: stores that the device has begun, as far as they have uploaded.
        applied: frames, ever.
        refused: frames, ever.
        lost: frames that a restored ledger does not know.
        last_frame_s: when its newest frame came, counted or refused, if that is still known (Unix seconds).
        update: its newest counted update.
        refusals: how many by reason, as far as reasons are still known.
        last_refusal: sequence, reason and time of the newest of them.
    """

    settings: dict[str, Any]
    version: int
    waiting: int
    epochs: int
    applied: int
    refused: int
    lost: int
    last_frame_s: float | None
    update: Counted | None
    refusals: dict[str, int]
    last_refusal: tuple[int, str, float] | None


class NewVersion(NamedTuple):
    """Task, number, when it was made (Unix seconds), and of how many updates; None for one not made of any."""

    task: str
    number: int
    made_s: float
    updates: int | None


class NewMark(NamedTuple):
    """An epoch that has moved: when its first and its newest frame came, and (sequence, reason, time) of refusals."""

    epoch: Epoch
    mark: Mark
    first_s: float | None
    last_s: float | None
    refused: tuple[tuple[int, str, float], ...]


def tasks(db: sqlite3.Connection) -> list[str]:
    """Their names."""
    return [name for (name,) in db.execute("SELECT name FROM task ORDER BY name")]


def devices(db: sqlite3.Connection) -> list[str]:
    """All that have ever uploaded."""
    return [name for (name,) in db.execute("SELECT DISTINCT device FROM epoch ORDER BY device")]


def of_device(db: sqlite3.Connection, task: str, device: str) -> Past:
    """The past of a device; zeros for one that nobody knows."""
    who = (task, device)
    with _moment(db):
        (settings,) = db.execute("SELECT settings FROM task WHERE name = ?", (task,)).fetchone()
        (version,) = db.execute("SELECT max(number) FROM version WHERE task = ?", (task,)).fetchone()
        (waiting,) = db.execute(
            "SELECT coalesce(sum(leads), 0) FROM contribution WHERE task = ? AND batch IS NULL", (task,)
        ).fetchone()
        epochs, folded_applied, folded_refused, lost = db.execute(
            "SELECT count(*), coalesce(sum(applied), 0), coalesce(sum(refused), 0), coalesce(sum(lost_to_restore), 0)"
            " FROM epoch WHERE task = ? AND device = ?",
            who,
        ).fetchone()
        frames, frames_refused, last_frame_s = db.execute(
            "SELECT count(*), count(refusal), max(received) FROM frame WHERE task = ? AND device = ?", who
        ).fetchone()
        newest = db.execute(
            "SELECT sequence, refusal, received FROM frame WHERE task = ? AND device = ? AND refusal IS NOT NULL"
            " ORDER BY received DESC LIMIT 1",
            who,
        ).fetchone()
        update = _update(db, task, device)
        if update is not None and update.received_s is not None:
            last_frame_s = max(last_frame_s or 0.0, update.received_s)
        return Past(
            settings=json.loads(settings),
            version=version,
            waiting=waiting,
            epochs=epochs,
            applied=folded_applied + frames - frames_refused,
            refused=folded_refused + frames_refused,
            lost=lost,
            last_frame_s=last_frame_s,
            update=update,
            refusals=_refusals(db, task, device),
            last_refusal=newest and (newest[0], Refusal(newest[1]).reason, newest[2]),
        )


def news(
    db: sqlite3.Connection, versions: Mapping[str, int], marks: Mapping[Epoch, Mark]
) -> tuple[list[NewVersion], list[NewMark]]:
    """What the ledger has beyond what is known; 13 ms for 10,000 devices when nothing is new, measured.

    Args:
        db: the ledger's.
        versions: newest known number of each task.
        marks: of each known epoch.
    """
    made: list[NewVersion] = []
    moved: list[NewMark] = []
    with _moment(db):
        for task in tasks(db):
            rows = db.execute(
                "SELECT number, created, batch, updates FROM version WHERE task = ? AND number > ? ORDER BY number",
                (task, versions.get(task, -1)),
            )
            made += [NewVersion(task, number, s, None if b is None else updates) for number, s, b, updates in rows]
        for *key, watermark, seen, confirmed, lost in db.execute(
            "SELECT task, device, epoch, watermark, seen, confirmed, lost_to_restore FROM epoch"
        ).fetchall():
            epoch, mark = (key[0], key[1], key[2]), (watermark, seen, confirmed, lost)
            known = marks.get(epoch)
            if known != mark:
                moved.append(_moved(db, epoch, mark, since=known[0] if known else 0))
    return made, moved


@contextmanager
def _moment(db: sqlite3.Connection) -> Iterator[None]:
    """One consistent state, however the aggregator writes meanwhile."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def _moved(db: sqlite3.Connection, epoch: Epoch, mark: Mark, since: int) -> NewMark:
    frames = "FROM frame WHERE task = ? AND device = ? AND epoch = ?"
    (first_s,) = db.execute(f"SELECT max(received) {frames} AND sequence = 0", epoch).fetchone()
    (last_s,) = db.execute(f"SELECT max(received) {frames} AND sequence >= ?", (*epoch, since)).fetchone()
    refused = db.execute(
        f"SELECT sequence, refusal, received {frames} AND sequence >= ? AND refusal IS NOT NULL",
        (*epoch, since),
    )
    told = tuple((sequence, Refusal(code).reason, when_s) for sequence, code, when_s in refused)
    return NewMark(epoch, mark, first_s, last_s, told)


def _refusals(db: sqlite3.Connection, task: str, device: str) -> dict[str, int]:
    """By reason: of frames that are kept, and of those that have folded."""
    counts = Counter[str]()
    for code, count in db.execute(
        "SELECT refusal, count(*) FROM frame WHERE task = ? AND device = ? AND refusal IS NOT NULL GROUP BY refusal",
        (task, device),
    ):
        counts[Refusal(code).reason] += count
    for columns in db.execute("SELECT digests, refusals FROM past WHERE task = ? AND device = ?", (task, device)):
        counts.update(refusal.reason for _, refusal in Chunk(*columns).frames(0) if refusal is not None)
    return dict(counts)


def _update(db: sqlite3.Connection, task: str, device: str) -> Counted | None:
    """The newest counted one: its contribution, or what the records of versions say once that is compacted."""
    row = db.execute(
        "SELECT base_version, received, batch FROM contribution WHERE task = ? AND device = ? ORDER BY id DESC LIMIT 1",
        (task, device),
    ).fetchone()
    if row is not None:
        made = db.execute("SELECT created FROM version WHERE task = ? AND batch = ?", (task, row[2])).fetchone()
        return Counted(row[0], row[1], row[2], made and made[0])
    for number, created, written in db.execute(
        "SELECT number, created, record FROM version WHERE task = ? AND record IS NOT NULL"
        " ORDER BY number DESC LIMIT ?",
        (task, _RECORDS),
    ):
        bases = [member.base_version for member in record.decode(written)[0] if member.device == device]
        if bases:
            return Counted(bases[-1], None, number, created)
    return None
