"""Buffered rounds: close at a goal count of updates, or at a deadline (FedBuff, 2106.06639), by any clock."""

import math
from dataclasses import dataclass
from typing import Final

# A clock that is corrected by less than this has not been set.
_TOLERATED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Buffer:
    """When a batch closes.

    Attributes:
        goal: updates that fill a batch.
        deadline_s: an unfilled batch closes this long after its first update.
        min_interval_s: two versions are at least this far apart.

    Example:
        >>> Buffer(goal=8, deadline_s=60, min_interval_s=0).wait_s(updates=3, opened_s=100.0, last_s=90.0, now=130.0)
        30.0
    """

    goal: int
    deadline_s: float
    min_interval_s: float

    def wait_s(self, *, updates: int, opened_s: float | None, last_s: float, now: float) -> float | None:
        """Seconds until the batch closes; 0 or less means now, None that nothing waits.

        So many updates wait (by their first frame) since `opened_s`, and the last version was made at `last_s`, all on
        one clock. A time that lies ahead of `now` shows that the clock was set back: how much has passed is unknown, so
        that wait is over rather than as long as the step.
        """
        if updates == 0 or opened_s is None:
            return None
        due = now if updates >= self.goal or opened_s > now else opened_s + self.deadline_s
        spaced = now if last_s > now else last_s + self.min_interval_s
        return max(due, spaced) - now


class Ages:
    """How long ago a few named times of the wall clock were, on a clock that nobody can set.

    Each age is read on the wall clock once, when its time is first seen, and then keeps growing: a clock
    that is set while we run must neither hold a batch open for a year nor close all at once.

    Example:
        >>> ages = Ages()
        >>> ages.of("opened", 1000.0, wall_s=1003.0, steady_s=50.0)
        3.0
        >>> ages.of("opened", 1000.0, wall_s=-3e7, steady_s=52.0)
        5.0
    """

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}

    def of(self, name: str, mark_s: float, *, wall_s: float, steady_s: float) -> float:
        """Seconds since `mark_s`; infinite for a time in the future, which only a clock set back can explain.

        A new `mark_s` of the same name replaces the old. It and `wall_s` are Unix seconds, `steady_s` monotonic ones.
        """
        known = self._began.get(name)
        if known is None or known[0] != mark_s:
            age = wall_s - mark_s
            if age < 0:
                age = 0.0 if age > -_TOLERATED_S else math.inf
            known = self._began[name] = (mark_s, steady_s - age)
        return steady_s - known[1]
