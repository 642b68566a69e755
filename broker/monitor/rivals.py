"""Other aggregators that have to do with a task, in words."""

from collections.abc import Iterable
from typing import Final

from broker.monitor.events import Met
from broker.views import Contact, Rival

_DID: Final = {
    Contact.ASKED: "asked to serve it: it was told that this one does",
    Contact.ANNOUNCED: "announces it: this one goes on and announces its own again; stop the other",
    Contact.ALIVE: "serves it: it is not served here",
    Contact.SILENT: "has served it and does not answer: it is not served here",
}
RECENT_S: Final = 600.0


def told(contact: Contact, other: str, own: str) -> str:
    """What came of meeting an aggregator with the ledger `other`, where this one has `own`.

    Example:
        >>> told(Contact.ASKED, "ab" * 8, "cd" * 8)
        'an aggregator with another ledger, abababababababab, asked to serve it: it was told that this one does'
    """
    who = "on a copy of this ledger" if other == own else f"with another ledger, {other},"
    return f"an aggregator {who} {_DID[contact]}"


def met(rivals: Iterable[Rival], own: str) -> list[Met]:
    """Those that the ledger `own` remembers."""
    return [Met(each.task, each.met_s, told(each.contact, each.ledger, own)) for each in rivals]


def warning(rivals: list[Rival], own: str, now_s: float) -> str:
    """Of the last 10 minutes, the newest first; "" for none.

    Example:
        >>> rival = Rival("har", "ab" * 8, 1, "5e" * 8, Contact.ANNOUNCED, 100.0)
        >>> warning([rival], "cd" * 8, 200.0).startswith("an aggregator with another"), warning([rival], "", 1000.0)
        (True, '')
    """
    return next((told(each.contact, each.ledger, own) for each in rivals if now_s - each.met_s < RECENT_S), "")
