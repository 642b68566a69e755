"""What goes wrong on a link, drawn from a seed: no sockets, no clocks."""

import math
import random
from dataclasses import dataclass
from typing import Final, NamedTuple

_READ_BYTES: Final = 16384
_FRAGMENT_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad a link is.

    Attributes:
        latency_s: each chunk is late by a time between these.
        fragments: probability that a chunk ends after 1 to 64 bytes.
        reset_after_bytes: a direction resets the connection after so many bytes, drawn between these; None: never.
        stalls: probability that a chunk is swallowed, and the direction is silent before the connection is reset.
        stall_s: how long it is silent.
        up_bytes_s: what the link carries towards the upstream; 0: as fast as it goes.
        forgets: probability that a connection that lived through an outage is reset at its end.

    Example:
        >>> Faults(latency_s=(0.0, 0.0), reset_after_bytes=None, stalls=0.0).fragments
        0.1
    """

    latency_s: tuple[float, float] = (0.001, 0.005)
    fragments: float = 0.1
    reset_after_bytes: tuple[int, int] | None = (20_000, 150_000)
    stalls: float = 0.002
    stall_s: tuple[float, float] = (0.5, 1.5)
    up_bytes_s: float = 0.0
    forgets: float = 0.5


CALM: Final = Faults((0.0, 0.0), fragments=0.0, reset_after_bytes=None, stalls=0.0, forgets=0.0)


class Step(NamedTuple):
    """What happens to the next chunk: at most `size` bytes, late by `delay_s`; swallowed when `stall_s` is given."""

    size: int
    delay_s: float
    stall_s: float | None


class Script:
    """The faults of one direction of one connection; they depend on nothing but the arguments.

    Args:
        faults: how bad.
        seed: of the run.
        link: name of the link.
        number: of the connection on that link.
        direction: "up" or "down".

    Attributes:
        budget: bytes until the reset; infinite without one.
        forgotten: whether an outage ends this connection.

    Example:
        >>> a, b = (Script(Faults(), 7, "d0", 0, "up") for _ in range(2))
        >>> a.budget == b.budget, [a.next() for _ in range(9)] == [b.next() for _ in range(9)]
        (True, True)
    """

    def __init__(self, faults: Faults, seed: int, link: str, number: int, direction: str) -> None:
        self._faults = faults
        self._rng = random.Random(f"{seed}/{link}/{number}/{direction}")  # noqa: S311 (faults, not secrets)
        spread = faults.reset_after_bytes
        self.budget: float = math.inf if spread is None else self._rng.randint(*spread)
        self.forgotten = self._rng.random() < faults.forgets

    def next(self) -> Step:
        """Draw what happens to the next chunk."""
        rng, faults = self._rng, self._faults
        size = rng.randint(1, _FRAGMENT_BYTES) if rng.random() < faults.fragments else _READ_BYTES
        delay_s = rng.uniform(*faults.latency_s)
        return Step(size, delay_s, rng.uniform(*faults.stall_s) if rng.random() < faults.stalls else None)
