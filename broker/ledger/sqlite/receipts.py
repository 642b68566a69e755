"""How far an epoch has come, and the receipt that tells it: settled below the watermark, single answers above.

HELLO says how much of that a device knows, so that its refusals need not be told again.
"""

import sqlite3
from collections.abc import Sequence

from broker.ledger.sqlite.database import Database
from broker.views import Epoch
from edgeclient import failpoint
from edgeclient.wire.limits import MAX_RECEIPT_LIST
from edgeclient.wire.messages import Hello, Receipt, Refusal


def epoch_of(task: str, device: str, number: int) -> Epoch:
    """The key of an unsigned epoch; its number is signed there, as SQLite's integers are.

    Example:
        >>> epoch_of("har", "pi-7", 2**64 - 3)
        ('har', 'pi-7', -3)
    """
    return task, device, number - 2**64 if number >= 2**63 else number


class Receipts(Database):
    def greet(self, hellos: Sequence[tuple[str, str, Hello]]) -> list[int]:
        if not hellos:
            return []
        with self.transaction() as db:
            lost = [_greet(db, *each) for each in hellos]
            failpoint.hit("ledger.before-hello")
        failpoint.hit("ledger.after-hello")
        return lost

    def receipt(self, task: str, device: str, epoch: int, *, conflict: tuple[int, bytes] | None = None) -> Receipt:
        key = epoch_of(task, device, epoch)
        frames = "SELECT sequence, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence >= ?"
        with self.moment() as db:
            watermark, seen, confirmed = reached(db, key)
            applied = db.execute(
                f"{frames} AND refusal IS NULL ORDER BY sequence LIMIT ?", (*key, watermark, MAX_RECEIPT_LIST)
            )
            refused = db.execute(
                f"{frames} AND refusal IS NOT NULL ORDER BY sequence LIMIT ?", (*key, confirmed, MAX_RECEIPT_LIST + 1)
            )
            return Receipt(
                epoch, watermark, seen, conflict,
                tuple(sequence for sequence, _ in applied),
                tuple((sequence, Refusal(code)) for sequence, code in refused),
            )  # fmt: skip


def _greet(db: sqlite3.Connection, task: str, device: str, hello: Hello) -> int:
    """Note what the device has settled, so that its refusals need not be told again.

    Returns:
        How many sequences the device has settled that this ledger has never seen: they were answered by a ledger
        that a restored backup does not remember. Whether they counted is unknown, so that a late copy must not: they
        are taken as settled, and the watermark passes over them.
    """
    if not hello.confirmed:
        return 0
    epoch = epoch_of(task, device, hello.epoch)
    watermark, seen, confirmed = reached(db, epoch)
    lost = 0
    if hello.confirmed > watermark:
        (known,) = db.execute(
            "SELECT count(*) FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence >= ? AND sequence < ?",
            (*epoch, watermark, hello.confirmed),
        ).fetchone()
        lost = hello.confirmed - watermark - known
        watermark = past_settled(db, epoch, hello.confirmed)
    reach(db, epoch, watermark, max(seen, watermark))
    db.execute(
        "UPDATE epoch SET confirmed = ?, lost_to_restore = lost_to_restore + ?"
        " WHERE task = ? AND device = ? AND epoch = ?",
        (max(confirmed, hello.confirmed), lost, *epoch),
    )
    return lost


def reached(db: sqlite3.Connection, epoch: Epoch) -> tuple[int, int, int]:
    """Watermark, seen and confirmed; zeros for an epoch of which nothing is known."""
    row = db.execute(
        "SELECT watermark, seen, confirmed FROM epoch WHERE task = ? AND device = ? AND epoch = ?", epoch
    ).fetchone()
    return row or (0, 0, 0)


def reach(db: sqlite3.Connection, epoch: Epoch, watermark: int, seen: int) -> None:
    """Note how far an epoch has come."""
    db.execute(
        "INSERT INTO epoch (task, device, epoch, watermark, seen, confirmed) VALUES (?, ?, ?, ?, ?, 0)"
        " ON CONFLICT DO UPDATE SET watermark = excluded.watermark, seen = excluded.seen",
        (*epoch, watermark, seen),
    )


def past_settled(db: sqlite3.Connection, epoch: Epoch, watermark: int) -> int:
    """The first sequence from the watermark on that is not settled."""
    rows = db.execute(
        "SELECT sequence FROM frame WHERE task = ? AND device = ? AND epoch = ? AND sequence >= ? ORDER BY sequence",
        (*epoch, watermark),
    )
    for (sequence,) in rows:
        if sequence != watermark:
            break
        watermark += 1
    return watermark
