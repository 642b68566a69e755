"""Where devices stand by their own words, in bounded memory: who publishes chooses the device's name."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Final, NamedTuple, TypeAlias

from broker.monitor.silence import SILENT_S, Contact, guess
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status

MAX_DEVICES: Final = 50_000  # 61 MB, measured
# A device that lies must not drown the others in the sum.
MAX_FRAMES: Final = 1_000_000
_MOST: Final = 1e9
OTHER: Final = "other"

DEPTHS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
AGES_S: Final = (0, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800)
NORMS: Final = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30, 100, 1e3, 1e4, 1e5, 1e6)

Key: TypeAlias = tuple[str, str]  # task, device


class Spread(NamedTuple):
    """How many devices are at or below each bound, the last being infinity, and the sum of their values."""

    counts: list[int]
    total: float


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
        >>> presence.devices(), presence.outbox()["har", "queued"]
        (Counter({('har', 'online'): 1}), 3)
    """

    most: int = MAX_DEVICES
    left_out: int = 0
    clock: Callable[[], float] = time.monotonic
    _last: dict[Key, tuple[Status, float]] = field(default_factory=dict)
    _before: dict[Key, tuple[Status, float]] = field(default_factory=dict)

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
        told, known = _bounded(status.decode(payload)), self._last.get(key)
        if known is None and len(self._last) >= self.most:
            self.left_out += 1
            return True
        known = known or self._before.pop(key, None)
        if known is None:
            self._last[key] = told, self.clock()
        elif told.state == status.OFFLINE and told.session != known[0].session:
            self._last[key] = known  # a late will
        else:
            merged = _merged(known[0], told)
            # The same words once more are the broker's, after a reconnect; a device's heartbeat says other numbers.
            self._last[key] = merged, (known[1] if merged == known[0] else self.clock())
        return True

    def forget(self) -> None:
        """A new connection brings the retained statuses again; what it does not bring is gone."""
        self._before, self._last = self._last, {}

    def devices(self) -> Counter[tuple[str, str]]:
        """How many by task and state."""
        return Counter((task, said.state) for task, said, _ in self._each())

    def doings(self) -> Counter[tuple[str, str]]:
        """How many of those that are connected, by task and what they do or wait for."""
        return Counter(
            (task, said.doing if said.doing in status.DOINGS else OTHER)
            for task, said, _ in self._each()
            if said.state == status.ONLINE
        )

    def silent(self) -> Counter[tuple[str, str]]:
        """How many have said nothing for an hour, by task and likely reason."""
        now = self.clock()
        return Counter(
            (task, guess(Contact(said, age_s=now - heard_s)))
            for task, said, heard_s in self._each()
            if now - heard_s > SILENT_S
        )

    def outbox(self) -> Counter[tuple[str, str]]:
        """Frames by task and stage (queued, sent, returned), summed over devices."""
        sums = Counter[tuple[str, str]]()
        for task, said, _ in self._each():
            sums[task, "queued"] += said.queued
            sums[task, "sent"] += said.sent
            sums[task, "returned"] += said.returned
        return sums

    def depths(self) -> dict[str, Spread]:
        """Frames on a device, by task."""
        return _spread(((task, said.queued + said.sent + said.returned) for task, said, _ in self._each()), DEPTHS)

    def ages(self) -> dict[str, Spread]:
        """Age of the oldest frame on a device (s), by task."""
        return _spread(((task, said.oldest_s) for task, said, _ in self._each()), AGES_S)

    def norms(self) -> dict[str, Spread]:
        """Residual norms, by task, of devices that tell theirs."""
        told = ((task, said.residual_norm) for task, said, _ in self._each())
        return _spread(((task, norm) for task, norm in told if norm is not None), NORMS)

    def _each(self) -> Iterator[tuple[str, Status, float]]:
        for (task, _), (said, heard_s) in list(self._last.items()):
            yield task, said, heard_s


def _spread(values: Iterator[tuple[str, float]], bounds: tuple[float, ...]) -> dict[str, Spread]:
    """By task.

    Example:
        >>> _spread(iter([("t", 3), ("t", 9)]), (1, 5))
        {'t': Spread(counts=[0, 1, 2], total=12.0)}
    """
    at: dict[str, list[int]] = {}
    totals: dict[str, float] = {}
    for task, value in values:
        at.setdefault(task, [0] * (len(bounds) + 1))[bisect_left(bounds, value)] += 1
        totals[task] = totals.get(task, 0.0) + value
    return {task: Spread(list(accumulate(each)), totals[task]) for task, each in at.items()}


def _merged(known: Status, told: Status) -> Status:
    """A last will carries no counters: then all but the state is what the same session said before."""
    if known.session == told.session and told.socket_sent < known.socket_sent:
        return replace(known, state=told.state)
    return told


def _bounded(told: Status) -> Status:
    """Without what nobody counts, to spare memory, and with no number that is out of all proportion."""
    return replace(
        told,
        note="stopped" if told.note == "stopped" else "",
        software="",
        queued=min(max(told.queued, 0), MAX_FRAMES),
        sent=min(max(told.sent, 0), MAX_FRAMES),
        returned=min(max(told.returned, 0), MAX_FRAMES),
        oldest_s=min(max(told.oldest_s, 0), int(_MOST)),
        residual_norm=None if told.residual_norm is None else min(max(told.residual_norm, 0.0), _MOST),
    )
