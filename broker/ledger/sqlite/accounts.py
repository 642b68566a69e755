"""How many frames there were and what became of each, folded or not; reads only."""

import sqlite3
from collections import Counter

from broker.ledger import digests
from broker.ledger.sqlite.admission import Epoch
from edgeclient.wire.messages import Refusal


def frame_counts(db: sqlite3.Connection, task: str, device: str | None = None) -> dict[str, tuple[int, int, int]]:
    """See Ledger.frame_counts; of one device when it is given."""
    where = "WHERE task = ?1" + (" AND device = ?2" if device is not None else "")
    applied, refused, contributed = Counter[str](), Counter[str](), Counter[str]()
    for name, *counts in db.execute(
        f"SELECT device, sum(refusal IS NULL), sum(refusal IS NOT NULL), 0 FROM frame {where} GROUP BY device"  # noqa: S608
        f" UNION ALL SELECT device, sum(applied), sum(refused), sum(forgotten) FROM epoch {where} GROUP BY device"
        f" UNION ALL SELECT device, 0, 0, count(*) FROM contribution {where} GROUP BY device",
        (task,) if device is None else (task, device),
    ):
        for counter, count in zip((applied, refused, contributed), counts, strict=True):
            counter[name] += count
    return {
        name: (applied[name], refused[name], contributed[name] - applied[name])
        for name in sorted(applied)
        if applied[name] or refused[name] or contributed[name]
    }


def lost_to_restore(db: sqlite3.Connection, task: str) -> dict[str, int]:
    """See Ledger.lost_to_restore."""
    rows = db.execute(
        "SELECT device, sum(lost_to_restore) FROM epoch WHERE task = ? GROUP BY device HAVING sum(lost_to_restore)",
        (task,),
    )
    return dict(rows.fetchall())


def settled(db: sqlite3.Connection, epoch: Epoch) -> dict[int, Refusal | None]:
    """See Ledger.settled."""
    known: dict[int, Refusal | None] = {}
    first = 0
    for number, *columns in db.execute(
        "SELECT chunk, digests, refusals FROM past WHERE task = ? AND device = ? AND epoch = ? ORDER BY chunk DESC",
        epoch,
    ):
        first = number * digests.CHUNK
        known.update(digests.Chunk(*columns).frames(first))
    folded = db.execute(
        "SELECT applied + refused FROM epoch WHERE task = ? AND device = ? AND epoch = ?", epoch
    ).fetchone()
    if folded and folded[0] - len(known) == first:
        known.update(dict.fromkeys(range(first)))
    rows = db.execute("SELECT sequence, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ?", epoch)
    return known | {sequence: None if code is None else Refusal(code) for sequence, code in rows}
