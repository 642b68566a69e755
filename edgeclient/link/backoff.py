"""How long to wait before the next attempt to connect: a pure function of what came of the last ones."""

import random
from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
MAX_BACKOFF_S: Final = 8.0
REFUSED_BACKOFF_S: Final = 300.0  # a wrong password does not get better by asking
_WORTH: Final = 2.0  # times as long as it was waited for
_USEFUL_BYTES: Final = 16 << 10
_USEFUL_MESSAGES: Final = 16  # more than a device says of itself at every connection


class Backoff:
    """Doubles with every attempt, and begins anew after a connection that was worth its while.

    That is one that lasted twice as long as it was waited for, or carried something. A CONNACK alone is none: a broker
    that hangs up at every message accepts us each time, and of two clients with one id each throws the other out. The
    jitter takes away up to half, since a fleet that lost its broker comes back all at once.

    Args:
        draw: random numbers in 0..1.

    Example:
        >>> backoff = Backoff(draw=lambda: 0.0)
        >>> [backoff.next_s(refused=False) for _ in range(5)], [backoff.next_s(refused=True) for _ in range(7)]
        ([1.0, 2.0, 4.0, 8.0, 8.0], [16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0])
        >>> backoff.ended(lasted_s=599.0), backoff.next_s(refused=True)
        (None, 300.0)
        >>> backoff.ended(lasted_s=600.0), backoff.next_s(refused=True)
        (None, 1.0)
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._last_s = self._waited_s = 0.0

    def next_s(self, *, refused: bool) -> float:
        """Seconds to wait now; `refused` if somebody has to put something right first."""
        most_s = REFUSED_BACKOFF_S if refused else MAX_BACKOFF_S
        self._last_s = min(most_s, max(FIRST_S, 2 * self._last_s))
        self._waited_s = self._last_s * (1 - self._draw() / 2)
        return self._waited_s

    def ended(self, *, lasted_s: float, arrived_bytes: int = 0, acknowledged: int = 0) -> None:
        """A connection has ended that lasted so long, brought so much and had so many messages acknowledged."""
        if lasted_s >= _WORTH * self._waited_s or arrived_bytes >= _USEFUL_BYTES or acknowledged >= _USEFUL_MESSAGES:
            self.begin()

    def begin(self) -> None:
        """What kept us off is known and put right."""
        self._last_s = self._waited_s = 0.0
