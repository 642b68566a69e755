"""Which frames are under way: a bounded window with resends, as a pure state machine over time.

A PUBACK only paces sending. A frame leaves the window when its receipt has settled it, and is sent again
when no receipt came in time. Resends double their delay up to 8 s, since the link, not the frame, is
what fails.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_RETRY_S: Final = 8.0


@dataclass(slots=True)
class _Flight:
    sent_s: float
    tries: int


class Window:
    """Frames by sequence, oldest first, at most `size` without a receipt.

    Example:
        >>> window = Window(size=1, retry_after_s=2.0)
        >>> window.due(now=0.0, waiting=[0, 1])
        [0]
        >>> window.sent(0, now=0.0)
        >>> window.due(now=1.0, waiting=[0, 1]), window.due(now=2.0, waiting=[0, 1])
        ([], [0])
    """

    def __init__(self, *, size: int, retry_after_s: float) -> None:
        self._size = size
        self._retry_after_s = retry_after_s
        self._flights: dict[int, _Flight] = {}

    def due(self, *, now: float, waiting: Iterable[int]) -> list[int]:
        """Sequences to publish now; `waiting` are all that have no receipt, oldest first."""
        open_ = sorted(waiting)[: self._size]
        self._flights = {sequence: flight for sequence, flight in self._flights.items() if sequence in open_}
        return [sequence for sequence in open_ if self._due_s(sequence, now) <= now]

    def next_s(self, *, now: float) -> float | None:
        """When the next resend is due; None when nothing is under way."""
        return min((self._due_s(sequence, now) for sequence in self._flights), default=None)

    def sent(self, sequence: int, *, now: float) -> None:
        """Note that a frame was published."""
        tries = self._flights[sequence].tries + 1 if sequence in self._flights else 1
        self._flights[sequence] = _Flight(now, tries)

    def restart(self) -> None:
        """A new connection or a new aggregator: everything unsettled is due at once."""
        self._flights.clear()

    def _due_s(self, sequence: int, now: float) -> float:
        flight = self._flights.get(sequence)
        if flight is None:
            return now
        doubled: float = self._retry_after_s * 2 ** min(flight.tries - 1, 10)
        return flight.sent_s + min(doubled, max(MAX_RETRY_S, self._retry_after_s))
