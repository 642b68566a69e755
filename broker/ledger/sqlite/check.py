"""What the ledger promises, checked against what is in it: every breach is a broken promise or a damaged file."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator

from broker.ledger import record
from broker.ledger.protocol import LedgerError
from broker.ledger.sqlite import admission
from broker.ledger.sqlite.database import Database
from broker.views import REPORT, RESTORE, Breach


class Check(Database):
    def check(self) -> list[Breach]:
        def damaged(found: object) -> Breach:
            return Breach(str(self.path), f"the file is damaged: {found}", RESTORE)

        try:
            pages = [text for (text,) in self.db.execute("PRAGMA integrity_check(8)") if text != "ok"]
            if pages:
                return [damaged(" ".join(text.split())) for text in pages]
            with self.moment() as db:
                promises = (_once, _past, _accounts, _watermarks, _updates, _batches)
                return [breach for promise in promises for breach in promise(db)]
        except (sqlite3.DatabaseError, LedgerError, ValueError) as error:
            return [damaged(error)]


def _once(db: sqlite3.Connection) -> Iterator[Breach]:
    """Every applied frame has one contribution, and nothing else has one."""
    rows = db.execute(
        "SELECT f.task, f.device, f.sequence, f.refusal IS NULL, coalesce(n, 0) FROM frame f LEFT JOIN"
        " (SELECT task, device, epoch, sequence, count(*) n FROM contribution GROUP BY 1, 2, 3, 4) c"
        " USING (task, device, epoch, sequence) WHERE coalesce(n, 0) != (f.refusal IS NULL)"
    )
    for task, device, sequence, applied, count in rows:
        kind = "applied" if applied else "refused"
        yield Breach(_device(task, device), f"frame {sequence} is {kind}, but counted {count} times", REPORT)
    rows = db.execute(
        "SELECT task, device, sequence, count(*) FROM contribution GROUP BY task, device, epoch, sequence"
        " HAVING count(*) > 1"
    )
    for task, device, sequence, count in rows:
        yield Breach(_device(task, device), f"frame {sequence} has {count} contributions", REPORT)


def _past(db: sqlite3.Connection) -> Iterator[Breach]:
    """A contribution without a frame row is one of a frame that has folded as applied."""
    rows = db.execute(
        "SELECT c.task, c.device, c.epoch, c.sequence FROM contribution c LEFT JOIN frame f"
        " USING (task, device, epoch, sequence) WHERE f.task IS NULL ORDER BY 1, 2, 3, 4"
    ).fetchall()
    for task, device, number, sequence in rows:
        found = admission.find(db, (task, device, number), sequence, b"")
        if found is None or found.refusal is not None:
            yield Breach(_device(task, device), f"frame {sequence} is counted, but not applied", REPORT)


def _accounts(db: sqlite3.Connection) -> Iterator[Breach]:
    """What has folded and what has not adds up to what was counted, epoch by epoch."""
    rows = db.execute(
        "SELECT e.task, e.device, e.applied + coalesce(f.n, 0), e.forgotten + coalesce(c.n, 0) FROM epoch e LEFT JOIN"
        " (SELECT task, device, epoch, count(*) n FROM frame WHERE refusal IS NULL GROUP BY 1, 2, 3) f"
        " USING (task, device, epoch) LEFT JOIN"
        " (SELECT task, device, epoch, count(*) n FROM contribution GROUP BY 1, 2, 3) c USING (task, device, epoch)"
    )
    for task, device, applied, counted in rows:
        if applied != counted:
            yield Breach(_device(task, device), f"{applied} frames are applied, {counted} were counted", REPORT)


def _watermarks(db: sqlite3.Connection) -> Iterator[Breach]:
    """Everything below the watermark is settled, the watermark itself is not, and nothing lies beyond `seen`."""
    rows = db.execute(
        "SELECT e.task, e.device, watermark, seen, confirmed, folded, applied + refused + lost_to_restore"
        " + sum(coalesce(sequence < watermark, 0)), coalesce(max(sequence = watermark), 0),"
        " coalesce(max(sequence) + 1, 0) FROM epoch e LEFT JOIN frame USING (task, device, epoch)"
        " GROUP BY e.task, e.device, e.epoch"
    )
    for task, device, watermark, seen, confirmed, folded, settled, stuck, beyond in rows:
        for wrong, what in (
            (settled != watermark, f"the watermark is {watermark}, but {settled} frames below it are known"),
            (stuck, f"the watermark stops at {watermark}, which is settled"),
            (seen != max(watermark, beyond), f"{seen} sequences are seen, but {max(watermark, beyond)} are there"),
            (confirmed > watermark, f"the device has confirmed {confirmed} frames, {watermark} are settled"),
            (folded > watermark, f"{folded} frames have folded, {watermark} are settled"),
        ):
            if wrong:
                yield Breach(_device(task, device), what, REPORT)


def _updates(db: sqlite3.Connection) -> Iterator[Breach]:
    """An update leads once, and weighs the same in each of its parts."""
    rows = db.execute(
        "SELECT task, device, number, sum(leads), count(DISTINCT weight || terms), count(*) - count(DISTINCT part)"
        " FROM contribution GROUP BY task, device, epoch, number"
        " HAVING sum(leads) > 1 OR count(DISTINCT weight || terms) > 1 OR count(*) != count(DISTINCT part)"
    )
    for task, device, number, leads, weights, twice in rows:
        what = f"update {number} leads {leads} times, has {weights} weights and {twice} parts twice"
        yield Breach(_device(task, device), what, REPORT)


def _batches(db: sqlite3.Connection) -> Iterator[Breach]:
    """A version is what its record says, and contributions of its batch are members of it."""
    there: dict[tuple[str, int], list[record.Member]] = defaultdict(list)
    rows = db.execute(
        "SELECT task, batch, device, epoch, sequence, number, base_version, weight, leads, terms FROM contribution"
        " WHERE batch IS NOT NULL"
    )
    for task, batch, device, epoch, sequence, number, base, weight, leads, terms in rows:
        member = record.Member(device, epoch % 2**64, sequence, number, base, weight, bool(leads), json.loads(terms))
        there[task, batch].append(member)
    newest: dict[str, int] = {}
    versions = db.execute(
        "SELECT task, number, batch, updates, frames, total_weight, record FROM version ORDER BY task, number"
    )
    for task, number, batch, updates, frames, total_weight, written in versions:
        newest[task] = number
        members = record.decode(written) if written is not None else []
        weights = {(m.device, m.epoch, m.number): m.weight for m in members}  # late parts weigh too, once an update
        found = (sum(m.leads for m in members), len(members), sum(weights.values()))
        if found != (updates, frames, total_weight):
            yield Breach(f"task {task} version {number}", "its closing record says something else", REPORT)
        told = {(member.device, member.epoch, member.sequence): member for member in members}
        if any(told.get((m.device, m.epoch, m.sequence)) != m for m in there.pop((task, batch), ())):
            yield Breach(f"task {task} version {number}", "contributions of its batch are not in its record", REPORT)
    for task, batch in there:  # versions are thinned out with age, so that an old one may be gone
        if batch >= newest.get(task, 0):
            yield Breach(f"task {task} batch {batch}", "it was closed, but there is no version of it", REPORT)


def _device(task: str, device: str) -> str:
    return f"task {task} device {device}"
