"""Bytes that went over metered links, today and this month: a pure value, kept as a small file by the agent."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Final

_RELEASED: Final = "2025-01-01"  # a clock before it has not been set


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used up.

    Attributes:
        day: ISO date that `day_bytes` speaks of, by the device's clock.
        day_bytes: sent and received on metered links on that day.
        month_bytes: in the month of that day.
    """

    day: str = ""
    day_bytes: int = 0
    month_bytes: int = 0

    def on(self, today: date) -> "Usage":
        """The same account on another day; what was counted stays counted when the clock goes back.

        A clock that nobody has set yet says nothing. One that was wrong, and is put right, decides from then on:
        otherwise a budget that was used up in a wrong year would not come back before that year.

        Example:
            >>> Usage("2026-11-29", 5, 9).on(date(2026, 11, 30)), Usage("2026-11-29", 5, 9).on(date(2026, 12, 1))
            (Usage(day='2026-11-30', day_bytes=0, month_bytes=9), Usage(day='2026-12-01', day_bytes=0, month_bytes=0))
        """
        day = today.isoformat()
        if day == self.day or day < _RELEASED:
            return self
        if day < self.day:
            return replace(self, day=day)
        return Usage(day, 0, self.month_bytes if day[:7] == self.day[:7] else 0)

    def plus(self, count: int) -> "Usage":
        """After `count` more bytes."""
        return replace(self, day_bytes=self.day_bytes + count, month_bytes=self.month_bytes + count)
