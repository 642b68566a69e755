"""Buffered rounds: close at a goal count of updates, or at a deadline (FedBuff, 2106.06639)."""

from dataclasses import dataclass


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

        Args:
            updates: whole updates that wait (by their first frame).
            opened_s: when the first of them was admitted.
            last_s: when the last version was made.
            now: all times on one clock. A time that lies ahead of it shows that the clock was set back: how much
                has passed is unknown, so that wait is over rather than as long as the step.
        """
        if updates == 0 or opened_s is None:
            return None
        due = now if updates >= self.goal or opened_s > now else opened_s + self.deadline_s
        spaced = now if last_s > now else last_s + self.min_interval_s
        return max(due, spaced) - now
