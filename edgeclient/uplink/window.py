"""Which frames are under way: an adaptive window with resends, as a pure state machine over time.

A PUBACK only paces sending. A frame leaves the window when its receipt has settled it, and is sent again
when no receipt came in time. The window grows by one for each window of receipts, and is halved when the
link breaks or a receipt stays out: additive increase, multiplicative decrease, as in TCP (RFC 5681). What
is under way when a link breaks has to be sent again, so a window that is too large livelocks a bad link.
A resend waits for the time that receipts usually take and four deviations more (RFC 6298), at least `retry_after_s`,
and doubles from there up to 8 s, with jitter, since a fleet that lost its broker comes back all at once. When no
receipt of any kind comes for several resends, nobody counts at the other end: then it doubles up to 300 s.
After a reconnect nothing goes out before the receipt that answers HELLO, or the time for it, has passed: it tells
which frames came through before the break.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_RETRY_S: Final = 8.0
MAX_SILENT_S: Final = 300.0
PATIENCE: Final = 6  # resends without any receipt
# Between the connection and the first receipts nobody knows what the link carries.
FIRST: Final = 4
_JITTER: Final = 0.25


@dataclass(slots=True)
class _Flight:
    sent_s: float
    due_s: float
    delay_s: float
    resent: bool


class Window:
    """Frames by sequence, most important first, at most `most` without a receipt.

    Args:
        most: frames, whatever the receipts say.
        retry_after_s: at least so long for a first receipt.
        draw: random numbers in 0..1, for the jitter.

    Attributes:
        unanswered: times in a row that frames were sent again and no receipt of any kind has come.

    Example:
        >>> window = Window(most=1, retry_after_s=2.0, draw=lambda: 0.5)
        >>> window.due(now=0.0, waiting=[0, 1])
        [0]
        >>> window.sent(0, now=0.0)
        >>> window.due(now=1.0, waiting=[0, 1]), window.due(now=2.0, waiting=[0, 1])
        ([], [0])
    """

    def __init__(self, *, most: int, retry_after_s: float, draw: Callable[[], float] = random.random) -> None:
        self._most = most
        self._retry_after_s = retry_after_s
        self._draw = draw
        self._size = float(min(FIRST, most))
        self.unanswered = 0
        self._flights: dict[int, _Flight] = {}
        self._held_until_s = -math.inf
        self._shrunk_s = -math.inf
        self._usual_s: float | None = None  # that a receipt takes, a running average
        self._deviation_s = 0.0

    @property
    def size(self) -> int:
        """How many frames may be under way now."""
        return max(1, min(self._most, int(self._size)))

    def due(self, *, now: float, waiting: Sequence[int]) -> list[int]:
        """Sequences to publish now; `waiting` are all that have no receipt, most important first."""
        if now < self._held_until_s:
            return []
        self._held_until_s = -math.inf
        open_ = set(waiting)
        settled = [sequence for sequence in self._flights if sequence not in open_]
        for sequence in settled:
            flight = self._flights.pop(sequence)
            if not flight.resent:  # of a resent frame nobody knows which copy was answered (Karn)
                self._learn(now - flight.sent_s)
            self._size = min(self._most, self._size + 1 / self._size)
        late = [sequence for sequence, flight in self._flights.items() if flight.due_s <= now]
        room = self.size - (len(self._flights) - len(late))
        new = [sequence for sequence in waiting if sequence not in self._flights or sequence in late]
        return new[: max(0, room)]

    def next_s(self) -> float | None:
        """When something may be due again; None when nothing is under way or held."""
        times = [flight.due_s for flight in self._flights.values()]
        if self._held_until_s > -math.inf:
            times.append(self._held_until_s)
        return min(times, default=None)

    def held(self, *, now: float) -> bool:
        """Whether everything waits for the answer to HELLO."""
        return now < self._held_until_s

    def carries(self, sequence: int | None) -> bool:
        """Whether this frame is under way."""
        return sequence in self._flights

    def sent(self, sequence: int, *, now: float) -> None:
        """Note that a frame was published."""
        before = self._flights.get(sequence)
        if before and now > self._shrunk_s:
            self._shrink(now)
            self.unanswered += 1
        if before:  # a receipt takes at least so long, or never comes
            self._usual_s = max(self._usual_s or 0.0, min(now - before.sent_s, MAX_RETRY_S))
        wanted_s = 2 * before.delay_s if before else self._first_delay_s
        delay_s = min(max(wanted_s, self._silent_s), max(MAX_RETRY_S, self._silent_s, self._retry_after_s))
        due_s = now + delay_s * (1 + _JITTER * (2 * self._draw() - 1))
        self._flights[sequence] = _Flight(now, due_s, delay_s, resent=before is not None)

    def restart(self, *, now: float) -> None:
        """A new connection or a new aggregator: everything unsettled is due, once HELLO is answered."""
        if self._flights:
            self._shrink(now)
        self._flights.clear()
        self._held_until_s = now + self._retry_after_s

    def answered(self) -> None:
        """A receipt came."""
        self._held_until_s, self.unanswered = -math.inf, 0

    @property
    def _silent_s(self) -> float:
        """The least delay while nobody answers; 0 as long as that may be chance."""
        beyond = min(self.unanswered - PATIENCE, 8)
        return min(MAX_SILENT_S, MAX_RETRY_S * 2.0**beyond) if beyond > 0 else 0.0

    @property
    def _first_delay_s(self) -> float:
        if self._usual_s is None:
            return self._retry_after_s
        return max(self._retry_after_s, self._usual_s + 4 * self._deviation_s)

    def _learn(self, took_s: float) -> None:
        if self._usual_s is None:
            self._usual_s, self._deviation_s = took_s, took_s / 2
            return
        self._deviation_s += (abs(took_s - self._usual_s) - self._deviation_s) / 4
        self._usual_s += (took_s - self._usual_s) / 8

    def _shrink(self, now: float) -> None:
        """Once for all that is late together."""
        self._size = max(1.0, self._size / 2)
        self._shrunk_s = now
