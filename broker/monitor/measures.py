"""What a run of versions is worth and what it cost: each measure once, for dry runs, comparisons, demo and page.

Versions of a fleet move by 2 to 10 points from one to the next, so that one evaluation tells little: `late` is the mean
over the last fifth of the versions, `avg` the accuracy of the mean of their parameters. They rank methods differently.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

MANY: Final = 4  # evaluated versions, from which on a live task's mean says more than the newest


def window(versions: int) -> int:
    """How many versions are the last ones of so many.

    Example:
        >>> window(100), window(3)
        (20, 1)
    """
    return max(1, versions // 5)


def late(points: Iterable[tuple[int, float | None]], versions: int, fewest: int = 1) -> float | None:
    """Mean accuracy of the last fifth of the versions, of those that were evaluated; None: fewer were.

    Args:
        points: number and accuracy of each.
        versions: how many there are.
        fewest: evaluated ones without which the mean says no more than one of them.

    Example:
        >>> late([(0, 0.1), (8, None), (9, 0.7), (10, 0.8)], 10)
        0.75
    """
    found = [accuracy for number, accuracy in points if number > versions - window(versions) and accuracy is not None]
    return math.fsum(found) / len(found) if len(found) >= fewest else None


class Gap(NamedTuple):
    """A difference over paired seeds: its mean, and its standard deviation (0 for one seed)."""

    mean: float
    deviation: float


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Gap:
    """Ours less theirs, seed by seed.

    Example:
        >>> paired([0.75, 0.80], [0.70, 0.75])
        Gap(mean=0.05, deviation=0.0)
    """
    gaps = np.subtract(ours, theirs)
    deviation = float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
    return Gap(round(float(gaps.mean()), 12), round(deviation, 12))


def reached(points: Iterable[tuple[float, float | None]], accuracy: float) -> float | None:
    """The first place at which an accuracy is reached; None: it never is.

    Args:
        points: place (a version, bytes, seconds) and accuracy there, in order.
        accuracy: at least.

    Example:
        >>> reached([(100, 0.2), (200, None), (300, 0.6)], 0.5)
        300
    """
    return next((place for place, found in points if found is not None and found >= accuracy), None)


class Cost(NamedTuple):
    """Bytes of a whole fleet, and how many times as many dense float32 takes.

    Attributes:
        uplink_bytes: what devices sent.
        dense_bytes: 4n per applied update.
        reduction: dense_bytes ÷ uplink_bytes.
        downlink_bytes: what devices received.
        first_fetch_bytes: of that, bundle and first parameters.
        socket_bytes: both, all that was carried.
        total_dense_bytes: 4n per applied update and per version that a device trained from.
        total_reduction: total_dense_bytes ÷ socket_bytes.
        steady_reduction: the same without the first fetch on either side.
    """

    uplink_bytes: int
    dense_bytes: int
    reduction: float
    downlink_bytes: int
    first_fetch_bytes: int
    socket_bytes: int
    total_dense_bytes: int
    total_reduction: float
    steady_reduction: float


def cost(
    *, parameters: int, updates: int, trained_from: int, fetched: int, bundle_bytes: int,
    uplink_bytes: int, downlink_bytes: int, socket_bytes: int,
) -> Cost:  # fmt: skip
    """Bytes in both directions beside dense ones.

    Args:
        parameters: n.
        updates: applied.
        trained_from: versions that devices trained from, counted once a device.
        fetched: devices that have a model; each has fetched the bundle before.
        bundle_bytes: of the bundle.
        uplink_bytes: as of Cost.
        downlink_bytes: likewise.
        socket_bytes: likewise.

    Example:
        >>> made = cost(parameters=1000, updates=10, trained_from=4, fetched=1, bundle_bytes=9000, uplink_bytes=500,
        ...             downlink_bytes=20_000, socket_bytes=25_000)
        >>> made.reduction, made.first_fetch_bytes, made.total_reduction, round(made.steady_reduction, 2)
        (80.0, 13000, 2.24, 4.33)
    """
    dense = 4 * parameters
    first = fetched * (bundle_bytes + dense)
    both = dense * (updates + trained_from)
    # Dense learning fetches its first model, too: that is no part of either side.
    steady, steady_dense = socket_bytes - first, both - fetched * dense
    return Cost(
        uplink_bytes,
        dense * updates,
        dense * updates / uplink_bytes if uplink_bytes else 0.0,
        downlink_bytes,
        first,
        socket_bytes,
        both,
        both / socket_bytes if socket_bytes else 0.0,
        max(0, steady_dense) / steady if steady > 0 else 0.0,
    )
