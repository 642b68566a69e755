"""Whether a frame counts, decided and recorded.

| the ledger knows of the identity | a frame | a withdrawal |
|---|---|---|
| nothing | applied, or refused as judged at the door | withdrawn: a tombstone |
| the same bytes, applied | duplicate | applied: it came too late |
| the same bytes, refused | duplicate | refused, as it was |
| the same bytes, withdrawn | refused (withdrawn) | withdrawn |
| settled, but no more than that | duplicate | applied |
| other bytes | refused (conflict) | refused (conflict) |
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from broker.ledger import digests
from broker.ledger.digests import Settled
from broker.ledger.rows import Admission, Entry, Verdict, Withdrawal
from broker.ledger.sqlite.receipts import Receipts, epoch_of, past_settled, reach, reached
from broker.views import Epoch
from edgeclient import failpoint
from edgeclient.wire.messages import Refusal

_CONFLICT: Final = Admission(Verdict.REFUSED, Refusal.CONFLICT)


class Admissions(Receipts):
    def admit(self, asked: Sequence[Entry | Withdrawal], now: float) -> list[Admission]:
        if not asked:
            return []
        with self.transaction() as db:
            admissions = [_admit(db, each, now) for each in asked]
            failpoint.hit("ledger.before-commit")
        failpoint.hit("ledger.after-commit")
        return admissions


def _admit(db: sqlite3.Connection, asked: Entry | Withdrawal, now: float) -> Admission:
    """The verdict on a frame or a withdrawal, recorded."""
    epoch = epoch_of(asked.task, asked.device, asked.epoch)
    known = find(db, epoch, asked.sequence, asked.digest)
    if isinstance(asked, Withdrawal):
        return _withdraw(db, epoch, asked, known, now)
    forgotten = known is not None and known.refusal is Refusal.WITHDRAWN and failpoint.sabotaged("tombstone")
    if known is None or forgotten or failpoint.sabotaged("double"):
        return _count(db, epoch, asked, now)
    if not known.same:
        return _CONFLICT
    if known.refusal is Refusal.WITHDRAWN:
        return Admission(Verdict.REFUSED, Refusal.WITHDRAWN)
    return Admission(Verdict.DUPLICATE)


def find(db: sqlite3.Connection, epoch: Epoch, sequence: int, digest: bytes) -> Settled | None:
    """What is known of an identity; None: nothing, it is new."""
    row = db.execute(
        "SELECT digest, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence = ?",
        (*epoch, sequence),
    ).fetchone()
    if row is not None:
        return Settled(row[0] == digest, None if row[1] is None else Refusal(row[1]))
    watermark, _, _ = reached(db, epoch)
    if sequence >= watermark:
        return None
    chunk = db.execute(
        "SELECT digests, refusals FROM past WHERE task = ? AND device = ? AND epoch = ? AND chunk = ?",
        (*epoch, sequence // digests.CHUNK),
    ).fetchone()
    return digests.Chunk(*chunk).at(sequence, digest) if chunk else Settled(same=True, refusal=None, known=False)


def _withdraw(db: sqlite3.Connection, epoch: Epoch, asked: Withdrawal, known: Settled | None, now: float) -> Admission:
    if known is None:
        _record(db, epoch, asked.sequence, asked.digest, Refusal.WITHDRAWN, now)
        return Admission(Verdict.WITHDRAWN, Refusal.WITHDRAWN)
    if not known.same:
        return _CONFLICT
    if known.refusal is None:
        return Admission(Verdict.APPLIED)
    withdrawn = known.refusal is Refusal.WITHDRAWN
    return Admission(Verdict.WITHDRAWN if withdrawn else Verdict.REFUSED, known.refusal)


def _count(db: sqlite3.Connection, epoch: Epoch, entry: Entry, now: float) -> Admission:
    """A new identity: its frame is applied unless it was judged at the door or does not fit its update.

    The first admitted frame of an update leads it, whichever part that is: the update counts and weighs there, and
    later parts keep weight and terms. Parts that never come, because they were withdrawn or refused, change nothing.
    """
    update, key = "FROM contribution WHERE task = ? AND device = ? AND epoch = ? AND number = ?", (*epoch, entry.number)
    leader = db.execute(f"SELECT weight, terms, parts {update} AND leads", key).fetchone()
    refusal = entry.refusal
    if refusal is None and leader and not failpoint.sabotaged("double"):
        taken = db.execute(f"SELECT 1 {update} AND part = ?", (*key, entry.part)).fetchone()
        if taken or leader[2] != entry.parts:
            refusal = Refusal.UPDATE
    _record(db, epoch, entry.sequence, entry.digest, refusal, now)
    if refusal is not None:
        return Admission(Verdict.REFUSED, refusal)
    db.execute(
        "INSERT INTO contribution (task, device, epoch, sequence, number, part, parts, leads, weight, base_version,"
        " num_examples, terms, received, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*epoch, entry.sequence, entry.number, entry.part, entry.parts, leader is None,
         leader[0] if leader else entry.weight, entry.base_version, entry.num_examples,
         leader[1] if leader else json.dumps(dict(entry.terms)), now, entry.body),
    )  # fmt: skip
    return Admission(Verdict.APPLIED)


def _record(
    db: sqlite3.Connection, epoch: Epoch, sequence: int, digest: bytes, refusal: Refusal | None, now: float
) -> None:
    code = None if refusal is None else int(refusal)
    db.execute("INSERT OR REPLACE INTO frame VALUES (?, ?, ?, ?, ?, ?, ?)", (*epoch, sequence, digest, code, now))
    watermark, seen, _ = reached(db, epoch)
    if sequence == watermark:
        watermark = past_settled(db, epoch, watermark)
    reach(db, epoch, watermark, max(seen, sequence + 1))
