"""Where devices stand by their own words, in bounded memory: who publishes chooses the device's name."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from broker.monitor.silence import SILENT_S, Contact, guess
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status

MAX_DEVICES: Final = 50_000  # 39 MB, measured; twice that after a reconnect
# A device that lies must not drown the others in the sum.
MAX_FRAMES: Final = 1_000_000
_MOST: Final = 1e9
OTHER: Final = "other"
_DOINGS: Final = frozenset(status.DOINGS)

DEPTHS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
AGES_S: Final = (0, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800)
NORMS: Final = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30, 100, 1e3, 1e4, 1e5, 1e6)

Key: TypeAlias = tuple[str, str]  # task, device


class Said(NamedTuple):
    """The part of a status that is counted; see there."""

    state: str
    session: str
    doing: str
    note: str
    version: int
    queued: int
    sent: int
    returned: int
    oldest_s: int
    socket_sent: int
    battery_percent: int | None
    temperature_c: float | None
    residual_norm: float | None


@dataclass(slots=True)
class Spread:
    """How many devices are at most at each bound and over the one before, the last being infinity; sum of values."""

    counts: list[int]
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How a fleet is.

    Attributes:
        devices: how many by task and state.
        doings: of those that are connected, by task and what they do or wait for.
        silent: of those that have said nothing for an hour, by task and likely reason.
        outbox: frames by task and stage (queued, sent, returned), summed over devices.
        depths: frames on a device, by task.
        ages: age of the oldest frame on a device (s), by task.
        norms: residual norms, by task, of devices that tell theirs.
    """

    devices: Counter[tuple[str, str]] = field(default_factory=Counter)
    doings: Counter[tuple[str, str]] = field(default_factory=Counter)
    silent: Counter[tuple[str, str]] = field(default_factory=Counter)
    outbox: Counter[tuple[str, str]] = field(default_factory=Counter)
    depths: dict[str, Spread] = field(default_factory=dict)
    ages: dict[str, Spread] = field(default_factory=dict)
    norms: dict[str, Spread] = field(default_factory=dict)


@dataclass(slots=True)
class Presence:
    """The last status of each device, of so many at most.

    Attributes:
        most: further devices are left out, and counted in `left_out`.
        left_out: statuses of devices for which there was no room.
        clock: steady seconds.

    Example:
        >>> presence = Presence()
        >>> presence.hear("edge/v1/har/status/pi-7", status.encode(Status("online", "a", queued=3)))
        True
        >>> presence.summary().devices, presence.summary().outbox["har", "queued"]
        (Counter({('har', 'online'): 1}), 3)
    """

    most: int = MAX_DEVICES
    left_out: int = 0
    clock: Callable[[], float] = time.monotonic
    _last: dict[Key, tuple[Said, float]] = field(default_factory=dict)
    _before: dict[Key, tuple[Said, float]] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take in a message; False when it is on another topic than a status. Empty ones forget the device.

        Raises:
            WireError: it is no status; nothing has changed.
        """
        if "/status/" not in topic:  # three times as fast as to take every upload's topic apart
            return False
        parsed = topics.parse(topic)
        if parsed.kind != "status":
            return False
        key = (parsed.task, parsed.rest[0])
        if not payload:
            self._last.pop(key, None)
            return True
        told, known = _said(status.decode(payload)), self._last.get(key)
        if known is None and len(self._last) >= self.most:
            self.left_out += 1
            return True
        known = known or self._before.pop(key, None)
        if known is None:
            self._last[key] = told, self.clock()
        elif told.state == status.OFFLINE and told.session != known[0].session:
            self._last[key] = known  # a late will
        else:
            # A last will carries no counters: then all but the state is what the same session said before.
            will = told.session == known[0].session and told.socket_sent < known[0].socket_sent
            merged = known[0]._replace(state=told.state) if will else told
            # The same words once more are the broker's, after a reconnect; a device's heartbeat says other numbers.
            self._last[key] = merged, (known[1] if merged == known[0] else self.clock())
        return True

    def forget(self) -> None:
        """A new connection brings the retained statuses again; what it does not bring is gone."""
        self._before, self._last = self._last, {}

    def summary(self) -> Summary:
        """All of it, in one pass: 10,000 devices take 22 ms, measured."""
        now, made = self.clock(), Summary()
        for (task, _), (said, heard_s) in self._last.copy().items():  # while others write
            made.devices[task, said.state] += 1
            if said.state == status.ONLINE:
                made.doings[task, said.doing if said.doing in _DOINGS else OTHER] += 1
            if now - heard_s > SILENT_S:
                made.silent[task, guess(Contact(said, age_s=now - heard_s))] += 1
            made.outbox[task, "queued"] += said.queued
            made.outbox[task, "sent"] += said.sent
            made.outbox[task, "returned"] += said.returned
            _count(made.depths, task, DEPTHS, said.queued + said.sent + said.returned)
            _count(made.ages, task, AGES_S, said.oldest_s)
            if said.residual_norm is not None:
                _count(made.norms, task, NORMS, said.residual_norm)
        return made


def _count(spreads: dict[str, Spread], task: str, bounds: tuple[float, ...], value: float) -> None:
    spread = spreads.get(task)
    if spread is None:
        spread = spreads[task] = Spread([0] * (len(bounds) + 1))
    spread.counts[bisect_left(bounds, value)] += 1
    spread.total += value


def _said(told: Status) -> Said:
    """No number is out of all proportion."""
    norm = told.residual_norm
    return Said(
        told.state,
        told.session,
        told.doing,
        told.note if told.note == "stopped" else "",
        told.version,
        min(max(told.queued, 0), MAX_FRAMES),
        min(max(told.sent, 0), MAX_FRAMES),
        min(max(told.returned, 0), MAX_FRAMES),
        min(max(told.oldest_s, 0), int(_MOST)),
        told.socket_sent,
        told.battery_percent,
        told.temperature_c,
        None if norm is None else min(max(norm, 0.0), _MOST),
    )
