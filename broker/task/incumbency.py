"""Who serves the tasks of a ledger: asked before anything is published or counted, defended after that (LEDGER.md, 6).

Nothing that is heard makes an aggregator stop that serves: whoever can publish could say it.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from broker.ledger.protocol import Ledger, LedgerUnavailable
from broker.ledger.rows import Start
from broker.task.candidacy import Candidacy, Verdict
from broker.task.journal import Journal
from broker.views import Contact, Rival
from edgeclient.link.mqtt import Link, LinkDown, Message
from edgeclient.wire import announcement, topics
from edgeclient.wire import claim as claims
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.claim import Claim
from edgeclient.wire.errors import WireError

_ASK_AGAIN_S: Final = 1.0
_ANSWER_S: Final = 0.1  # between two answers
_DEFEND_S: Final = 5.0  # between two own announcements against others
_MAX_DEFEND_S: Final = 320.0


@dataclass(slots=True)
class Defence:
    """When a task that is served is announced again, since another one has announced it; no I/O, no clock.

    Of two that both live, each answers ever more rarely; but one that claims to succeed this one is answered within
    5 s, for devices follow it where nobody objects for twice as long.

    Example:
        >>> defence = Defence()
        >>> [(defence.contested(), defence.due(now=now))[1] for now in (0.0, 4.9, 5.0, 14.9, 15.0)]
        [True, False, True, False, True]
        >>> [(defence.contested(urgent=True), defence.due(now=now))[1] for now in (34.9, 35.0, 40.0)]
        [True, False, True]
    """

    answered_s: float = -_ANSWER_S
    _wanted: bool = False
    _pause_s: float = _DEFEND_S
    _last_s: float = -_MAX_DEFEND_S

    def contested(self, *, urgent: bool = False) -> None:
        """Another one has announced the task."""
        self._wanted = True
        if urgent:
            self._pause_s = _DEFEND_S

    def due(self, *, now: float) -> bool:
        """Whether to announce it now."""
        if not self._wanted or now < self._last_s + self._pause_s:
            return False
        quiet = now > self._last_s + 2 * _MAX_DEFEND_S
        self._pause_s = _DEFEND_S if quiet or self._last_s < 0 else min(2 * self._pause_s, _MAX_DEFEND_S)
        self._wanted, self._last_s = False, now
        return True


class Incumbency:
    """A start of an aggregator, as others on the MQTT broker meet it.

    Args:
        ledger: says who it is, and remembers whom it has met.
        link: to the MQTT broker.
        journal: is told of others.
        place: of the ledger.

    Attributes:
        me: the start.
    """

    def __init__(self, ledger: Ledger, link: Link, journal: Journal, place: str) -> None:
        self._ledger, self._link, self._journal = ledger, link, journal
        self.me = ledger.begin()._replace(service=secrets.token_hex(8), place=place)
        self._candidacies: dict[str, Candidacy] = {}
        self._served: dict[str, Defence] = {}
        self._refused: dict[str, str] = {}  # why
        self._asked_s = 0.0

    def stand(self, task: str) -> None:
        """Would serve a task, once it is known that nobody else does; asks again on every connection until then."""
        self._candidacies[task] = Candidacy(task, self.me, self._ledger.lineage(task), time.monotonic())
        self._listen(task)

    def retire(self, task: str) -> None:
        """A task is removed."""
        for known in (self._candidacies, self._served, self._refused):
            known.pop(task, None)
        with suppress(LinkDown):
            self._link.unsubscribe(topics.head(task), topics.claim(task))

    def connected(self) -> None:
        """A new connection: listen to others, and ask once more for what is not served yet."""
        for task in [*self._candidacies]:
            self.stand(task)
        for task in self._served:
            self._listen(task)

    def hear(self, message: Message) -> bool:
        """Whether a message was about who serves, and needs nothing more."""
        kind, task = _about(message.topic)
        with suppress(WireError):
            if kind == "claim":
                self._claimed(claims.decode(message.payload), task)
            elif kind == "head" and message.payload:
                self._announced(announcement.decode(message.payload), task, retained=message.retained)
        return bool(kind)

    def cleared(self, message: Message) -> str:
        """The task whose announcement somebody has cleared by this message; "" for none."""
        kind, task = _about(message.topic)
        return task if kind == "head" and not message.payload else ""

    def elected(self) -> Iterator[str]:
        """Tasks that are served from now on, each named once, whatever becomes of the next."""
        now = time.monotonic()
        if now - self._asked_s > _ASK_AGAIN_S:
            self._ask(now)
        for task, candidacy in [*self._candidacies.items()]:
            verdict = candidacy.verdict(now=now)
            if verdict is None or not self._link.connected:
                continue
            if verdict.rival is not None:
                self._yield(task, verdict.rival, verdict)
                del self._candidacies[task]
                continue
            if verdict.above >= self.me.term:
                self.me = self.me._replace(term=self._ledger.begin(verdict.above).term)
            self._ledger.inherit(task, self.me, time.time())
            self._served[task] = Defence()
            del self._candidacies[task]
            yield task

    @property
    def idle(self) -> str:
        """Why no task is served, since others serve them; "" when that is not so."""
        return "" if self._served or self._candidacies else "; ".join(self._refused.values())

    def contested(self) -> list[str]:
        """Tasks to announce again now, since another one has announced them."""
        now = time.monotonic()
        return [task for task, defence in self._served.items() if defence.due(now=now)]

    def _ask(self, now: float) -> None:
        self._asked_s = now
        for task, candidacy in self._candidacies.items():
            self._say(task, candidacy.claim)

    def _listen(self, task: str) -> None:
        """To whoever else has to do with a task; what is asked after that comes back after what is retained."""
        with suppress(LinkDown):  # the next connection listens
            self._link.subscribe(topics.head(task), topics.claim(task), qos=0)
        if task in self._candidacies:
            self._say(task, self._candidacies[task].claim)

    def _say(self, task: str, claim: Claim) -> None:
        with suppress(LinkDown):
            self._link.publish(topics.claim(task), claims.encode(claim))

    def _announced(self, heard: Announcement, task: str, *, retained: bool) -> None:
        candidacy, defence = self._candidacies.get(task), self._served.get(task)
        if candidacy is not None:
            candidacy.announced(heard)
        own = heard.ledger == self.me.ledger
        # What a broker has kept of an earlier start of this ledger is no rival.
        if defence is None or heard.service == self.me.service or (own and retained and heard.term < self.me.term):
            return
        defence.contested(urgent=self.me.ledger in heard.succeeds)
        self._meet(task, Start(heard.ledger, heard.term, heard.service), Contact.ANNOUNCED)

    def _claimed(self, heard: Claim, task: str) -> None:
        now = time.monotonic()
        candidacy, defence = self._candidacies.get(task), self._served.get(task)
        if candidacy is not None:
            candidacy.claimed(heard, now=now)
        if heard.service == self.me.service or heard.answers is not None:
            return
        answer = Claim(self.me.ledger, self.me.term, self.me.service, True, answers=heard.service)
        if defence is not None and now - defence.answered_s >= _ANSWER_S:
            defence.answered_s = now
            self._say(task, answer)
            self._meet(task, Start(heard.ledger, heard.term, heard.service), Contact.ASKED)
        elif candidacy is not None and candidacy.outranks(heard):
            self._say(task, answer)

    def _yield(self, task: str, rival: Start, verdict: Verdict) -> None:
        self._refused[task] = verdict.why
        self._ledger.meet(Rival(task, rival.ledger, rival.term, rival.service, verdict.contact, time.time()))
        alone = not self._served and len(self._candidacies) == 1
        self._journal.refused(task, verdict.why, verdict.contact, alone=alone)

    def _meet(self, task: str, other: Start, contact: Contact) -> None:
        """Tell people, at most twice a minute."""
        if self._journal.met(task, other.ledger, self.me.ledger, contact):
            with suppress(LedgerUnavailable):
                self._ledger.meet(Rival(task, other.ledger, other.term, other.service, contact, time.time()))


def _about(topic: str) -> tuple[str, str]:
    """Whether it is the head or the claim of a task, and of which; nothing for others: a device may be called head."""
    if topic.endswith(("/head", "/claim")):  # faster than to take every upload's topic apart
        with suppress(WireError):
            parsed = topics.parse(topic)
            return (parsed.kind, parsed.task) if not parsed.rest else ("", "")
    return "", ""
