"""Who is killed when, drawn from a seed, and how soon the fleet recovers: pure functions."""

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import count
from statistics import median
from typing import Final, NamedTuple

from broker.demo.plan import AGGREGATOR

BROKER: Final = "broker"
WINDOW_S: Final = 2.0


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
    """Kills without end; one of each kind comes early, so that a short run has them all.

    Args:
        seed: decides everything.
        devices: their names.
        every_s: mean time between two.

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
