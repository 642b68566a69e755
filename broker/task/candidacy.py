"""Whether a start may serve a task, judged by what it has heard of others; no I/O, no clock (LEDGER.md, 6)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from broker.ledger.rows import Start
from broker.views import Contact
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.claim import Claim

# One that lives answers within a turn of its service, which may take seconds while it makes a version.
ANSWER_S: Final = 5.0
# Between the own claim, which comes back after what the broker has retained, and what may still follow.
_GRACE_S: Final = 0.1
_HEARD: Final = 16  # announcements: who publishes may invent them
# Starts that an older self, put back, may be behind: who invents a higher term must not use up the numbers.
_BEHIND: Final = 1 << 24


class Verdict(NamedTuple):
    """May it serve?

    Attributes:
        why: not, as a line with what to do; "" for yes.
        rival: who serves or has served instead: ledger, term and service.
        contact: whether that one answered.
        above: the highest term that is known of this ledger.
    """

    why: str = ""
    rival: Start | None = None
    contact: Contact = Contact.SILENT
    above: int = 0


@dataclass(slots=True)
class Candidacy:
    """A start that would serve a task.

    Attributes:
        task: task id.
        me: the start.
        lineage: who has served the task and who was succeeded, as its ledger knows.
        asked_s: when it began to ask.

    Example:
        >>> me = Start("aa" * 8, 1, "11" * 8, "here")
        >>> candidacy = Candidacy("har", me, {}, asked_s=0.0)
        >>> candidacy.claimed(candidacy.claim, now=0.2)  # the own question: nothing else was retained
        >>> candidacy.verdict(now=0.25) is None, candidacy.verdict(now=0.5).why
        (True, '')
        >>> candidacy.claimed(Claim("bb" * 8, 7, "22" * 8, True, answers=me.service), now=0.6)
        >>> candidacy.verdict(now=0.6).why[:56]
        'task har is served from another ledger, bbbbbbbbbbbbbbbb'
    """

    task: str
    me: Start
    lineage: Mapping[str, Start]
    asked_s: float
    _echoed_s: float | None = None
    _alive: Start | None = None
    _announced: dict[str, Announcement] = field(default_factory=dict)

    @property
    def claim(self) -> Claim:
        """The question."""
        return Claim(self.me.ledger, self.me.term, self.me.service, self.me.ledger in self.lineage)

    def announced(self, heard: Announcement) -> None:
        """The task is announced, or was and that is retained."""
        known = self.lineage.get(self.me.ledger)
        # Of this very place, whose lock is ours: it is dead.
        dead = known is not None and (known.service, known.place) == (heard.service, self.me.place)
        if heard.service != self.me.service and not dead and len(self._announced) < _HEARD:
            self._announced[heard.service] = heard

    def claimed(self, heard: Claim, *, now: float) -> None:
        """Another start claims the task, or this one's own claim comes back."""
        if heard.service == self.me.service:
            self._echoed_s = now if self._echoed_s is None else self._echoed_s
        elif heard.answers == self.me.service or (heard.answers is None and not self.outranks(heard)):
            self._alive = Start(heard.ledger, heard.term, heard.service)

    def outranks(self, other: Claim) -> bool:
        """Of two that ask at the same time, whether this one serves."""
        mine = self.claim
        return (mine.served, mine.term, mine.service) > (other.served, other.term, other.service)

    def verdict(self, *, now: float) -> Verdict | None:
        """None while an answer may still come."""
        if self._alive is not None:
            return Verdict(self._why_not(self._alive), self._alive, Contact.ALIVE)
        began_s, waited_s = self._echoed_s, now - self.asked_s
        known = self.lineage.get(self.me.ledger)
        moved = known is not None and known.place != self.me.place
        if waited_s < ANSWER_S and (began_s is None or now - began_s < _GRACE_S or moved or self._announced):
            return None
        for heard in self._announced.values():
            if heard.ledger != self.me.ledger and self._yields_to(heard):
                rival = Start(heard.ledger, heard.term, heard.service)
                return Verdict(self._why_silent(rival), rival)
        own = [heard.term for heard in self._announced.values() if heard.ledger == self.me.ledger]
        return Verdict(above=max((term for term in own if term <= self.me.term + _BEHIND), default=0))

    def _yields_to(self, heard: Announcement) -> bool:
        """To another ledger that does not answer: unless it was succeeded, or this one has served and was not."""
        succeeded = self.lineage.get(heard.ledger)
        if succeeded is not None and succeeded.term >= heard.term:
            return False
        return self.me.ledger in heard.succeeds or self.me.ledger not in self.lineage

    def _why_not(self, alive: Start) -> str:
        if alive.ledger == self.me.ledger:
            return (
                f"task {self.task} is served by another start on a copy of this ledger, which is alive: it is not"
                " served here; stop that one first, if this is the copy to go on with"
            )
        return (
            f"task {self.task} is served from another ledger, {alive.ledger}, so it is not served here; stop that"
            f" aggregator first, then edgebroker takeover {self.task}, if this one is to go on instead"
        )

    def _why_silent(self, rival: Start) -> str:
        return (
            f"task {self.task} was served from another ledger, {rival.ledger}, which does not answer now: it is not"
            f" served here; if that one is gone for good: edgebroker takeover {self.task}"
        )
