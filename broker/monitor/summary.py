"""How a fleet is, in a few numbers, out of the book of its devices."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from broker.monitor.fleet import STATES, Device
from broker.monitor.silence import SILENT_S, Contact, guess
from edgeclient.wire.status import DOINGS, OFFLINE

DEPTHS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
AGES_S: Final = (0, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800)
NORMS: Final = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30, 100, 1e3, 1e4, 1e5, 1e6)
# A device that lies must not drown the others in a sum; counts of frames are bounded when a status is decoded.
_MOST: Final = 1e9
_OTHER: Final = "other"
_DOINGS: Final = frozenset(DOINGS)
_REASONS: Final = 8
_NUMBER: Final = re.compile(r"\d+(?:[.:]\d+)?")


@dataclass(slots=True)
class Spread:
    """Values by bound: how many are at most that and over the one before, the last bound being infinity.

    Example:
        >>> spread = Spread((1, 10))
        >>> for value in (0, 1, 5, 1e12): spread.add(value)
        >>> spread.counts, spread.total
        ([2, 1, 1], 1000000006.0)
    """

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One more, of so much at most that it spoils no sum."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += min(value, _MOST)


@dataclass(slots=True)
class Summary:
    """The devices of a task.

    Attributes:
        states: how many by state, one of STATES.
        doings: of those that are connected, by what they do or wait for.
        silent: of those that have said nothing for an hour, by likely reason.
        outbox: frames by stage (queued, sent, returned), summed over devices.
        depths: frames on a device.
        ages: age of the oldest frame on a device (s).
        norms: residual norms of devices that tell theirs.
        notes: of those that wait, by what they say.
    """

    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    doings: Counter[str] = field(default_factory=Counter)
    silent: Counter[str] = field(default_factory=Counter)
    outbox: Counter[str] = field(default_factory=Counter)
    depths: Spread = field(default_factory=lambda: Spread(DEPTHS))
    ages: Spread = field(default_factory=lambda: Spread(AGES_S))
    norms: Spread = field(default_factory=lambda: Spread(NORMS))
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def online(self) -> int:
        """Devices that are connected."""
        return sum(self.states.values()) - self.states[OFFLINE]

    def reasons(self) -> list[tuple[str, int]]:
        """The commonest reasons to wait, numbers in them left out."""
        found = Counter[str]()
        for note, devices in self.notes.items():
            found[_NUMBER.sub("…", note) or "for no reason that it tells"] += devices
        return found.most_common(_REASONS)


def summary(devices: Iterable[Device], now_s: float) -> Summary:
    """All of it, in one pass.

    Args:
        devices: those of a task.
        now_s: by the clock of the fleet.

    Example:
        >>> from edgeclient.wire.status import Status
        >>> said = Status("online", "a", note="quiet hours until 07:00", doing="quiet-hours", queued=3)
        >>> made = summary([Device(said, None, 0.0)], now_s=4000.0)
        >>> made.online, made.reasons(), made.outbox["queued"], made.silent
        (1, [('quiet hours until …', 1)], 3, Counter({'hangs': 1}))
    """
    made = Summary()
    for device in devices:
        said, state, silent_s = device.said, device.state, now_s - device.heard_s
        made.states[state] += 1
        if state != OFFLINE:
            made.doings[said.doing if said.doing in _DOINGS else _OTHER] += 1
        if state == "waiting":
            made.notes[said.note] += 1
        if silent_s > SILENT_S:
            made.silent[guess(Contact(said, age_s=silent_s))] += 1
        made.outbox["queued"] += said.queued
        made.outbox["sent"] += said.sent
        made.outbox["returned"] += said.returned
        made.depths.add(said.queued + said.sent + said.returned)
        made.ages.add(said.oldest_s)
        if said.residual_norm is not None:
            made.norms.add(said.residual_norm)
    return made
