"""What a ledger tells of the past: all about one device, and what is new since the last look; reads only."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Final

from broker.ledger import record
from broker.ledger.digests import Chunk
from broker.ledger.rows import PENDING, SAME_AS
from broker.ledger.sqlite.accounts import Accounts
from broker.ledger.sqlite.batches import Batches
from broker.views import Counted, Epoch, Mark, NewMark, NewVersion, Past, Recent
from edgeclient.wire.messages import Refusal

# An update older than this many versions is found in no record; reading one takes 0.1 ms.
_RECORDS: Final = 200


class History(Accounts, Batches):
    def device(self, task: str, name: str) -> Past:
        who = (task, name)
        with self.moment() as db:
            (settings,) = db.execute("SELECT settings FROM task WHERE name = ?", (task,)).fetchone()
            (version,) = db.execute("SELECT max(number) FROM version WHERE task = ?", (task,)).fetchone()
            (epochs,) = db.execute("SELECT count(*) FROM epoch WHERE task = ? AND device = ?", who).fetchone()
            (last_frame_s,) = db.execute(
                "SELECT max(received) FROM frame WHERE task = ? AND device = ?", who
            ).fetchone()
            newest = db.execute(
                "SELECT sequence, refusal, received FROM frame WHERE task = ? AND device = ? AND refusal IS NOT NULL"
                " ORDER BY received DESC LIMIT 1",
                who,
            ).fetchone()
            update = _update(db, *who)
            if update is not None and update.received_s is not None:
                last_frame_s = max(last_frame_s or 0.0, update.received_s)
            applied, refused, _ = self.frame_counts(task, name).get(name, (0, 0, 0))
            return Past(
                settings=json.loads(settings),
                version=version,
                waiting=self.pending(task).updates,
                epochs=epochs,
                applied=applied,
                refused=refused,
                lost=self.lost_to_restore(task).get(name, 0),
                last_frame_s=last_frame_s,
                update=update,
                refusals=_refusals(db, *who),
                last_refusal=newest and (newest[0], Refusal(newest[1]).reason, newest[2]),
                stores=self.stores(task, name).get(name, []),
            )

    def stores(self, task: str, device: str | None = None) -> dict[str, list[tuple[float, float]]]:
        query = (
            "SELECT device, min(received), max(received) FROM"
            " (SELECT device, epoch, received FROM frame WHERE task = ?1 AND device BETWEEN ?2 AND ?3"
            " UNION ALL"
            " SELECT device, epoch, received FROM contribution WHERE task = ?1 AND device BETWEEN ?2 AND ?3)"
            " GROUP BY device, epoch"
        )
        found: dict[str, list[tuple[float, float]]] = {}
        with self.moment() as db:
            for name, *span in db.execute(query, (task, device or "", device or "~")):  # ids are below "~"
                found.setdefault(name, []).append((span[0], span[1]))
        return found

    def recent(self, task: str, device: str, limit: int = 20) -> list[Recent]:
        with self.moment() as db:
            rows = db.execute(
                "SELECT number, base_version, received, batch, num_examples, length(body) FROM contribution"
                " WHERE task = ? AND device = ? ORDER BY id DESC LIMIT ?",
                (task, device, limit),
            )
            return [Recent(*row) for row in rows]

    def news(self, versions: Mapping[str, int], marks: Mapping[Epoch, Mark]) -> tuple[list[NewVersion], list[NewMark]]:
        with self.moment() as db:
            made: list[NewVersion] = []
            moved: list[NewMark] = []
            for (task,) in db.execute("SELECT name FROM task ORDER BY name").fetchall():
                rows = db.execute(
                    "SELECT number, created, batch, updates, held, terms FROM version"
                    " WHERE task = ? AND number > ? AND held != ? ORDER BY number",
                    (task, versions.get(task, -1), PENDING),
                )
                made += [
                    NewVersion(task, number, s, None if b is None else updates, held, json.loads(terms).get(SAME_AS))
                    for number, s, b, updates, held, terms in rows
                ]
            for *key, watermark, seen, confirmed, lost in db.execute(
                "SELECT task, device, epoch, watermark, seen, confirmed, lost_to_restore FROM epoch"
            ).fetchall():
                epoch, mark = (key[0], key[1], key[2]), (watermark, seen, confirmed, lost)
                known = marks.get(epoch)
                if known != mark:
                    moved.append(_moved(db, epoch, mark, since=known[0] if known else 0))
            return made, moved


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
        bases = [member.base_version for member in record.decode(written) if member.device == device]
        if bases:
            return Counted(bases[-1], None, number, created)
    return None
