"""`goal = "auto"`: a batch is as large as a share of the fleet that takes part, and waits as long as it takes.

Half of the devices, so that a fleet of one or two never waits for somebody who is not there, and one of many neither
makes a version of every update nor waits for its slowest half.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

ROUNDS: Final = 4  # what is lately: a fleet that shrinks is followed after so many, one that grows likewise
MOST: Final = 64
_SHORTEST_S: Final = 60.0
_LONGEST_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Turnout:
    """Who took part lately.

    Attributes:
        devices: different ones whose updates are in the last few versions.
        update_s: time per update between these versions; None before there are two.

    Example:
        >>> Turnout.of([(100.0, 1), (104.0, 2), (108.0, 2)], [["pi-7"], ["pi-7", "pi-8"], ["pi-7", "pi-9"]])
        Turnout(devices=3, update_s=2.0)
    """

    devices: int = 0
    update_s: float | None = None

    @classmethod
    def of(cls, made: Sequence[tuple[float, int]], members: Sequence[Collection[str]]) -> "Turnout":
        """Of the last versions, oldest first: when each was made (s) and of how many updates, and by whom."""
        devices = len({device for each in members for device in each})
        updates = sum(count for _, count in made[1:])
        span_s = made[-1][0] - made[0][0] if made else 0.0
        # A clock that was set back between them tells nothing.
        return cls(devices, span_s / updates if updates and span_s >= 0 else None)


def goal(turnout: Turnout) -> int:
    """Updates that fill a batch: half of the devices that took part lately, 1 to 64.

    Example:
        >>> [goal(Turnout(devices)) for devices in (0, 1, 2, 3, 4, 16, 10_000)]
        [1, 1, 1, 1, 2, 8, 64]
    """
    return max(1, min(MOST, turnout.devices // 2))


def deadline_s(turnout: Turnout, wanted: int) -> float:
    """How long a batch of `wanted` updates may stay open: twice as long as these took lately, 1 to 10 minutes.

    Example:
        >>> deadline_s(Turnout(16, 20.0), 8), deadline_s(Turnout(16, 0.5), 8), deadline_s(Turnout(16), 8)
        (320.0, 60.0, 600.0)
    """
    if turnout.update_s is None:
        return _LONGEST_S
    return max(_SHORTEST_S, min(_LONGEST_S, 2 * wanted * turnout.update_s))
