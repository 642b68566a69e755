"""What goes wrong when, on links and with processes, drawn from a seed; and how soon the fleet recovers. No clocks."""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Final, NamedTuple

from broker.demo.plan import AGGREGATOR

BROKER: Final = "broker"
WINDOW_S: Final = 2.0
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
        down_bytes_s: what it carries from there, likewise.
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
    down_bytes_s: float = 0.0
    forgets: float = 0.5


CALM: Final = Faults((0.0, 0.0), fragments=0.0, reset_after_bytes=None, stalls=0.0, forgets=0.0)


class Step(NamedTuple):
    """What happens to the next chunk: at most `size` bytes, late by `delay_s`; swallowed when `stall_s` is given."""

    size: int
    delay_s: float
    stall_s: float | None


class Script:
    """The faults of one direction, "up" or "down", of a link's nth connection; they depend on the arguments alone.

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


class Kill(NamedTuple):
    """After `after_s` the victim dies by SIGKILL; it starts again after `pause_s`."""

    after_s: float
    victim: str
    pause_s: float


class Sample(NamedTuple):
    """How many updates were applied by a time (s)."""

    seconds: float
    updates: int


def kills(seed: int, devices: Sequence[str], every_s: float) -> Iterator[Kill]:
    """Kills without end, in the mean `every_s` apart; one of each kind comes early, so that a short run has them all.

    Example:
        >>> from itertools import islice
        >>> first = list(islice(kills(7, ["a", "b"], 2.0), 3))
        >>> first == list(islice(kills(7, ["a", "b"], 2.0), 3))
        True
        >>> {kill.victim for kill in first} >= {"aggregator", "broker"}
        True
    """
    rng = random.Random(f"{seed}/kills")  # noqa: S311 (a schedule, not a secret)
    order = ["device", AGGREGATOR, BROKER]
    rng.shuffle(order)
    for number in count():
        kind = order[number] if number < len(order) else rng.choices(["device", AGGREGATOR, BROKER], [6, 3, 1])[0]
        device = rng.choice(devices)
        # Half of them start again at once.
        pause_s = max(0.0, rng.uniform(-2.0, 2.0))
        yield Kill(rng.uniform(0.5, 1.5) * every_s, device if kind == "device" else kind, pause_s)


def rate(samples: Sequence[Sample], start_s: float, end_s: float) -> float:
    """Updates a second between two times.

    Example:
        >>> rate([Sample(0, 0), Sample(1, 10), Sample(2, 30)], 1, 2)
        20.0
    """
    return (_updates(samples, end_s) - _updates(samples, start_s)) / (end_s - start_s)


def recovery(samples: Sequence[Sample], cut_s: float, mended_s: float) -> tuple[float, float | None]:
    """Median goodput before the cut (updates/s), and how long after the mending it was reached again (s).

    Goodput is taken over windows of two seconds; the end of the first full one counts. None: never.

    Example:
        >>> steady = [Sample(t, 5 * t) for t in range(11)] + [Sample(t, 50) for t in range(11, 20)]
        >>> recovery([*steady, *(Sample(t, 50 + 5 * (t - 22)) for t in range(22, 30))], 10, 20)
        (5.0, 4)
    """
    first_s = next((sample.seconds for sample in samples if sample.updates), cut_s)
    before = [
        rate(samples, s.seconds - WINDOW_S, s.seconds) for s in samples if first_s + WINDOW_S <= s.seconds <= cut_s
    ]
    usual = median(before) if before else 0.0
    for sample in samples:
        if sample.seconds >= mended_s + WINDOW_S and rate(samples, sample.seconds - WINDOW_S, sample.seconds) >= usual:
            return usual, sample.seconds - mended_s
    return usual, None


def _updates(samples: Sequence[Sample], seconds: float) -> int:
    """The last count not after a time."""
    i = bisect_right(samples, seconds, key=lambda sample: sample.seconds)
    return samples[i - 1].updates if i else 0
