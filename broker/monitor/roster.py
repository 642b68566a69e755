"""What every device last said of itself, for people: by state, in pages, in bounded memory."""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from broker.monitor.events import Event
from broker.monitor.presence import MAX_DEVICES
from broker.monitor.story import printable
from edgeclient.wire import status, topics
from edgeclient.wire.status import OFFLINE, Status

STATES: Final = ("training", "sending", "waiting", "offline")
PAGE: Final = 100
_EVENTS: Final = 100
_REASONS: Final = 8
_MAX_OUTBOX: Final = 1_000_000  # of a device that may lie
# What comes this soon after a connection is what the MQTT broker has kept: when that was said is unknown.
_KEPT_S: Final = 3.0
_NUMBER: Final = re.compile(r"\d+(?:[.:]\d+)?")


class Known(NamedTuple):
    """A device: its status, since when it is online or offline (Unix seconds, None: unknown), and when it said so."""

    said: Status
    since_s: float | None
    heard_s: float

    @property
    def state(self) -> str:
        """One of STATES."""
        return doing(self.said)


class Page(NamedTuple):
    """Some of the devices that were asked for, by name, and how many there are."""

    devices: list[tuple[str, Known]]
    total: int


class Summary(NamedTuple):
    """Devices by state; the commonest reasons to wait, numbers in them left out; frames that wait on devices."""

    states: dict[str, int]
    reasons: list[tuple[str, int]]
    outbox: int


def doing(said: Status) -> str:
    """One of STATES.

    Example:
        >>> doing(Status("online", "a", note="training")), doing(Status("online", "a", note="quiet hours until 07:00"))
        ('training', 'waiting')
    """
    if said.state == OFFLINE:
        return "offline"
    return next((each for each in ("training", "sending") if said.note.startswith(each)), "waiting")


@dataclass(slots=True)
class Roster:
    """The devices of all tasks; written by one thread at a time (Metrics looks under a lock), read by that of the page.

    Attributes:
        clock: Unix seconds.
        most: devices beyond so many are left out.
        changes: rises with every status.
        events: who came and went, newest last.

    Example:
        >>> roster = Roster(clock=lambda: 1e9)
        >>> roster.hear("edge/v1/har/status/pi-7", status.encode(Status("online", "a", note="training")))
        >>> roster.summary("har").states
        {'training': 1, 'sending': 0, 'waiting': 0, 'offline': 0}
        >>> [name for name, _ in roster.page("har", state="training", search="PI").devices]
        ['pi-7']
    """

    clock: Callable[[], float] = time.time
    most: int = MAX_DEVICES
    changes: int = 0
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    _last: dict[str, dict[str, Known]] = field(default_factory=dict)
    _before: dict[str, dict[str, Known]] = field(default_factory=dict)
    _connected_s: float = 0.0

    def connected(self) -> None:
        """The statuses that the MQTT broker has kept follow; devices of which none follows have left."""
        self._before, self._last, self._connected_s = self._last, {}, self.clock()
        self.changes += 1

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a status; an empty one forgets the device.

        Raises:
            WireError: it is no status; nothing has changed.
        """
        parsed = topics.parse(topic)
        (device,) = parsed.rest
        fleet = self._last.setdefault(parsed.task, {})
        self.changes += 1
        if not payload:
            fleet.pop(device, None)
            return
        told, now = status.decode(payload), self.clock()
        known = fleet.get(device)
        if known is None and sum(map(len, self._last.values())) >= self.most:
            return
        if known is not None and told.state == OFFLINE and told.session != known.said.session:
            return  # the late will of an earlier session
        known = known or self._before.get(parsed.task, {}).pop(device, None)
        fleet[device] = self._merged(parsed.task, device, known, told, now)

    def _merged(self, task: str, device: str, known: Known | None, told: Status, now: float) -> Known:
        """A last will carries no counters: then they are what the same session said before."""
        was_kept = now - self._connected_s < _KEPT_S
        if not told.note.isprintable():
            told = replace(told, note=printable(told.note))
        if known is None:
            return Known(told, None if was_kept else now, now)
        if known.said.session == told.session and told.socket_sent < known.said.socket_sent:
            told = replace(known.said, state=told.state, note=told.note)
        if known.said.state == told.state:
            return Known(told, known.since_s, now)
        text = f"is offline: {told.note}" if told.state == OFFLINE else "is online"
        self.events.append(Event(now, task, device, told.state, text))
        return Known(told, now, now)

    def find(self, task: str, device: str) -> Known | None:
        """One device."""
        return self._last.get(task, {}).get(device)

    def summary(self, task: str) -> Summary:
        """The whole fleet in a few numbers; 20 ms for 10,000 devices, measured."""
        states = dict.fromkeys(STATES, 0)
        notes, reasons = Counter[str](), Counter[str]()
        outbox = 0
        for known in self._last.get(task, {}).copy().values():  # while others write
            state = known.state
            states[state] += 1
            outbox += min(known.said.queued + known.said.sent + known.said.returned, _MAX_OUTBOX)
            if state == "waiting":
                notes[known.said.note] += 1
        for note, devices in notes.items():
            reasons[_NUMBER.sub("…", note) or "for no reason that it tells"] += devices
        return Summary(states, reasons.most_common(_REASONS), outbox)

    def page(self, task: str, *, state: str = "", search: str = "", number: int = 0) -> Page:
        """Devices in a state, or in any, whose name contains `search`; PAGE of them from page `number` on."""
        found = sorted(self._found(task, state, search.lower()))
        return Page(found[number * PAGE : (number + 1) * PAGE], len(found))

    def _found(self, task: str, state: str, search: str) -> Iterator[tuple[str, Known]]:
        for device, known in self._last.get(task, {}).copy().items():
            if search in device.lower() and state in {"", known.state}:
                yield device, known
