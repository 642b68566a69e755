"""Whose ledger it is: its identity, the starts on it, who was succeeded, and which others were met."""

from typing import Final

from broker.ledger.rows import Start
from broker.ledger.sqlite.database import Database
from broker.views import Contact, Rival

_MET: Final = 16  # of a task, at most: who publishes may invent them


class Succession(Database):
    def identity(self) -> Start:
        with self.moment() as db:
            return Start(*db.execute("SELECT ledger, term FROM identity").fetchone())

    def begin(self, above: int = 0) -> Start:
        with self.transaction() as db:
            db.execute("UPDATE identity SET term = max(term, ?) + 1", (above,))
            return self.identity()

    def lineage(self, task: str) -> dict[str, Start]:
        with self.moment() as db:
            rows = db.execute("SELECT ledger, term, service, place FROM lineage WHERE task = ? ORDER BY since", (task,))
            return {row[0]: Start(*row) for row in rows}

    def inherit(self, task: str, start: Start, now: float) -> None:
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO lineage VALUES (?, ?, ?, ?, ?, ?)", (task, *start, now))

    def meet(self, rival: Rival) -> None:
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO rival VALUES (?, ?, ?, ?, ?, ?)", rival)
            db.execute(
                "DELETE FROM rival WHERE task = ?1 AND met < (SELECT met FROM rival WHERE task = ?1"
                " ORDER BY met DESC LIMIT 1 OFFSET ?2)",
                (rival.task, _MET - 1),
            )

    def rivals(self, task: str) -> list[Rival]:
        with self.moment() as db:
            rows = db.execute(
                "SELECT task, ledger, term, service, contact, met FROM rival WHERE task = ? ORDER BY met DESC", (task,)
            )
            return [
                Rival(of, id_, term, service, Contact(contact), met) for of, id_, term, service, contact, met in rows
            ]
