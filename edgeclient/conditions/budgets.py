"""What an owner budgets: bytes over metered links, bytes written to the card, and what a task takes of the board.

Pure values and functions; the guard keeps them.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from edgeclient.conditions.board import Observed

_DAY_S: Final = 86_400.0
_RELEASED: Final = "2025-01-01"  # a clock before it has not been set
# Measured: a round writes its residual slot once, each frame less than four times and nine pages of the database,
# write-ahead log included, and twice the account of starts; the model of the next version is written once.
_SLOT: Final = 1.1
_FRAME: Final = 4
_PAGES: Final = 13 * 4096
# float32 vectors of n in memory while a round is trained (counted in train/rounds.py): base and local parameters,
# gradient, its sum over micro-batches, two of AdamW, delta. The residual is mapped.
_VECTORS: Final = 7
# On the disk: two residual slots, two model slots.
_SLOTS: Final = 4


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


def round_bytes(size: int, frame_bytes: int) -> int:
    """What a round of n = `size` parameters writes at most, the next model included.

    Example:
        >>> round_bytes(1_000_000, 11_000)
        8497248
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
        """Seconds until something may be written again."""
        return max(0.0, -self._filled(now) / self.bytes_a_day * _DAY_S) if self.bytes_a_day else 0.0

    def _filled(self, now: float) -> float:
        return min(float(self.bytes_a_day), self.left + self.bytes_a_day * (now - self.at_s) / _DAY_S)


def lacking(size: int, observed: Observed, written_per_day: int, *, begun: bool) -> str | None:
    """Why this board cannot take a task of n = `size` parameters, or None; what is unknown is taken to be there.

    `written_per_day` bytes may be written to the card, 0 for any; `begun`: the device's files for it are there already.
    """
    memory, disk, written = _VECTORS * 4 * size, _SLOTS * 4 * size, round_bytes(size, 0)
    if observed.free_bytes is not None and memory > observed.free_bytes:
        return (
            f"it needs about {memory >> 20} MiB of memory for training, {observed.free_bytes >> 20} are free:"
            " a smaller model, or a larger board"
        )
    if observed.free_disk_bytes is not None and not begun and disk > observed.free_disk_bytes:
        return f"it needs {disk >> 20} MiB on the disk, {observed.free_disk_bytes >> 20} are free: make room"
    if written_per_day and written > written_per_day:
        return (
            f"a round writes {written >> 20} MiB, more than the {written_per_day >> 20} MiB a day of"
            " conditions.max_written_bytes_per_day: raise it, or leave the task to a device with a larger disk"
        )
    return None
