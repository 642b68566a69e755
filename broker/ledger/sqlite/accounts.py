"""How many frames there were and what became of each, folded or not; reads only."""

from collections import Counter

from broker.ledger import digests
from broker.ledger.sqlite.database import Database
from broker.ledger.sqlite.receipts import epoch_of
from edgeclient.wire.messages import Refusal


class Accounts(Database):
    def frame_counts(self, task: str, device: str | None = None) -> dict[str, tuple[int, int, int]]:
        with self.moment() as db:
            of = "WHERE task = ?1" + (" AND device = ?2" if device is not None else "") + " GROUP BY device"
            applied, refused, contributed = Counter[str](), Counter[str](), Counter[str]()
            for name, *counts in db.execute(
                f"SELECT device, sum(refusal IS NULL), sum(refusal IS NOT NULL), 0 FROM frame {of}"  # noqa: S608
                f" UNION ALL SELECT device, sum(applied), sum(refused), sum(forgotten) FROM epoch {of}"
                f" UNION ALL SELECT device, 0, 0, count(*) FROM contribution {of}",
                (task,) if device is None else (task, device),
            ):
                for counter, count in zip((applied, refused, contributed), counts, strict=True):
                    counter[name] += count
            return {
                name: (applied[name], refused[name], contributed[name] - applied[name])
                for name in sorted(applied)
                if applied[name] or refused[name] or contributed[name]
            }

    def lost_to_restore(self, task: str) -> dict[str, int]:
        with self.moment() as db:
            rows = db.execute(
                "SELECT device, sum(lost_to_restore) s FROM epoch WHERE task = ? GROUP BY 1 HAVING s", (task,)
            )
            return dict(rows.fetchall())

    def settled(self, task: str, device: str, epoch: int) -> dict[int, Refusal | None]:
        key = epoch_of(task, device, epoch)
        with self.moment() as db:
            known: dict[int, Refusal | None] = {}
            first = 0
            for number, *columns in db.execute(
                "SELECT chunk, digests, refusals FROM past"
                " WHERE task = ? AND device = ? AND epoch = ? ORDER BY chunk DESC",
                key,
            ):
                first = number * digests.CHUNK
                known.update(digests.Chunk(*columns).frames(first))
            folded = db.execute(
                "SELECT applied + refused FROM epoch WHERE task = ? AND device = ? AND epoch = ?", key
            ).fetchone()
            if folded and folded[0] - len(known) == first:
                known.update(dict.fromkeys(range(first)))
            rows = db.execute("SELECT sequence, refusal FROM frame WHERE task = ? AND device = ? AND epoch = ?", key)
            return known | {sequence: None if code is None else Refusal(code) for sequence, code in rows}

    def devices(self) -> list[str]:
        with self.moment() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT device FROM epoch ORDER BY device")]
