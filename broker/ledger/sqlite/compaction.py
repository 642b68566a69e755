"""What keeps the ledger small: settled frames fold into short digests, old contributions and versions go."""

import sqlite3
from collections.abc import Iterable
from itertools import groupby

from broker.ledger import digests
from broker.ledger.sqlite.batches import Batches
from broker.views import Epoch
from edgeclient import failpoint
from edgeclient.wire.messages import Refusal


class Compaction(Batches):
    def forget_bodies(self, task: str, before_batch: int) -> None:
        gone = "UPDATE contribution SET body = NULL WHERE task = ? AND batch < ? AND body IS NOT NULL"
        with self.transaction() as db:
            db.execute(gone, (task, before_batch))

    def compact(self, task: str, *, before_batch: int, before_base: int, limit: int = 8192) -> int:
        with self.transaction() as db:
            gone = _fold(db, task, limit) + _forget_contributions(db, task, before_batch, before_base, limit)
            failpoint.hit("ledger.before-compact")
        failpoint.hit("ledger.after-compact")
        return gone

    def forget_versions(self, task: str, numbers: Iterable[int]) -> list[str]:
        which = [(task, number) for number in numbers]
        found = "SELECT digest, state_digest FROM version WHERE task = ? AND number = ?"
        with self.transaction() as db:
            gone = {digest for each in which for digest in db.execute(found, each).fetchone() or () if digest}
            db.executemany("DELETE FROM version WHERE task = ? AND number = ?", which)
            return sorted(gone - self.digests())


def _fold(db: sqlite3.Connection, task: str, limit: int) -> int:
    """Fold settled frame rows, about `limit` at most, and return how many it was.

    Applied rows go once the watermark is past them; refused ones only once the device has confirmed them too, since
    every receipt lists them until then.
    """
    due = db.execute(
        "SELECT device, epoch, watermark, confirmed FROM epoch WHERE task = ? AND watermark - folded >= ? LIMIT ?",
        (task, digests.FOLD_AT, limit),
    ).fetchall()
    folded = 0
    for device, number, watermark, confirmed in due:
        if folded < limit:
            folded += _fold_epoch(db, (task, device, number), watermark, confirmed, limit - folded)
    return folded


def _fold_epoch(db: sqlite3.Connection, epoch: Epoch, watermark: int, confirmed: int, limit: int) -> int:
    rows = db.execute(
        "SELECT sequence, digest, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence < ?"
        " AND (refusal IS NULL OR sequence < ?) ORDER BY sequence LIMIT ?",
        (*epoch, watermark, confirmed, limit),
    ).fetchall()
    frames = [(sequence, digest, None if code is None else Refusal(code)) for sequence, digest, code in rows]
    oldest = max(0, watermark - digests.WINDOW) // digests.CHUNK
    for number, members in groupby(frames, key=lambda each: each[0] // digests.CHUNK):
        if number >= oldest:
            _fold_chunk(db, epoch, number, members)
    db.execute(
        "DELETE FROM past WHERE task = ? AND device = ? AND epoch = ? AND chunk < ?",
        (*epoch, oldest),
    )
    db.executemany(
        "DELETE FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence = ?",
        [(*epoch, sequence) for sequence, _, _ in frames],
    )
    refused = sum(refusal is not None for _, _, refusal in frames)
    reached = watermark if len(frames) < limit else frames[-1][0] + 1
    db.execute(
        "UPDATE epoch SET applied = applied + ?, refused = refused + ?, folded = max(folded, ?)"
        " WHERE task = ? AND device = ? AND epoch = ?",
        (len(frames) - refused, refused, reached, *epoch),
    )
    return len(frames)


def _fold_chunk(
    db: sqlite3.Connection, epoch: Epoch, number: int, frames: Iterable[tuple[int, bytes, Refusal | None]]
) -> None:
    key = (*epoch, number)
    row = db.execute(
        "SELECT digests, refusals FROM past WHERE task = ? AND device = ? AND epoch = ? AND chunk = ?", key
    ).fetchone()
    chunk = (digests.Chunk(*row) if row else digests.Chunk()).with_frames(frames)
    db.execute("INSERT OR REPLACE INTO past VALUES (?, ?, ?, ?, ?, ?)", (*key, chunk.digests, chunk.refusals))


def _forget_contributions(db: sqlite3.Connection, task: str, before_batch: int, before_base: int, limit: int) -> int:
    """Drop contributions of old batches whose frames have folded, and return how many; their batches' records stay.

    An update of several parts stays until its base version is older than `before_base`: then no late part of it can be
    admitted, and nobody needs the weight of its first.
    """
    rows = db.execute(
        "SELECT id, device, epoch FROM contribution c WHERE task = ? AND batch < ? AND body IS NULL"
        " AND (parts = 1 OR base_version < ?) AND NOT EXISTS (SELECT 1 FROM frame f WHERE f.task = c.task"
        " AND f.device = c.device AND f.epoch = c.epoch AND f.sequence = c.sequence) LIMIT ?",
        (task, before_batch, before_base, limit),
    ).fetchall()
    db.executemany("DELETE FROM contribution WHERE id = ?", [(id_,) for id_, _, _ in rows])
    db.executemany(
        "UPDATE epoch SET forgotten = forgotten + 1 WHERE task = ? AND device = ? AND epoch = ?",
        [(task, device, epoch) for _, device, epoch in rows],
    )
    return len(rows)
