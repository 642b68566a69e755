"""Bytes written to the card, and a daily allowance of them: SD cards wear. Pure functions over time."""

from dataclasses import dataclass
from typing import Final

_DAY_S: Final = 86_400.0
# Measured: a round writes its residual slot once, each frame less than four times and nine pages of the database,
# write-ahead log included; the model of the next version is written once.
_SLOT: Final = 1.1
_FRAME: Final = 4
_PAGES: Final = 9 * 4096


def round_bytes(size: int, frame_bytes: int) -> int:
    """What a round of n = `size` parameters writes at most, the next model included.

    Example:
        >>> round_bytes(1_000_000, 11_000)
        8480864
    """
    return round((_SLOT + 1) * 4 * size) + _FRAME * frame_bytes + _PAGES


@dataclass(frozen=True, slots=True)
class Allowance:
    """A bucket that fills up in a day and is never fuller than that.

    Attributes:
        bytes_a_day: 0 for no limit.
        left: bytes that may be written now; below 0 when the last round took more than there was.
        at_s: when that was, on a steady clock.
    """

    bytes_a_day: int
    left: float
    at_s: float

    def spent(self, count: int, *, now: float) -> "Allowance":
        """After `count` bytes were written."""
        return Allowance(self.bytes_a_day, self._filled(now) - count, now)

    def wait_s(self, *, now: float) -> float:
        """Seconds until something may be written again.

        Example:
            >>> allowance = Allowance(bytes_a_day=86_400, left=100.0, at_s=0.0).spent(160, now=0.0)
            >>> allowance.wait_s(now=0.0), allowance.wait_s(now=100.0)
            (60.0, 0.0)
        """
        return max(0.0, -self._filled(now) / self.bytes_a_day * _DAY_S) if self.bytes_a_day else 0.0

    def _filled(self, now: float) -> float:
        return min(float(self.bytes_a_day), self.left + self.bytes_a_day * (now - self.at_s) / _DAY_S)
