"""Which examples of an endless stream are kept: every one with equal chance, decided by its number alone.

Reservoir sampling (J. S. Vitter, Random sampling with a reservoir, 1985, algorithm R) with a hash for the random
numbers: after a crash the same examples get the same places again, so that doing it twice changes nothing.
"""

from typing import Final

import numpy as np

from edgeclient.compress.arrays import I64, U64

_GOLDEN: Final = 0x9E3779B97F4A7C15
_WORD: Final = (1 << 64) - 1


def places(seed: int, first: int, count: int, capacity: int) -> I64:
    """Where the examples `first`, `first` + 1, ... of a stream go, int64 (count,): a place, or -1 for nowhere.

    Args:
        seed: of this stream.
        first: number of the first, from 0.
        count: how many.
        capacity: how many places there are.

    Example:
        >>> places(7, 0, 4, 4)
        array([0, 1, 2, 3])
        >>> kept = {}
        >>> for number, place in enumerate(places(7, 0, 100_000, 1000)):
        ...     if place >= 0:
        ...         kept[int(place)] = number
        >>> len(kept), round(float(np.mean(list(kept.values()))), -4)
        (1000, 50000.0)
    """
    number = np.arange(first, first + count, dtype=np.uint64)
    chance = (_hashed(number + np.uint64((seed * _GOLDEN) & _WORD)) >> np.uint64(11)) * 2.0**-53
    place = (chance * (number + np.uint64(1))).astype(np.int64)
    place = np.where(number < capacity, number.astype(np.int64), place)
    return np.where(place < capacity, place, -1)


def _hashed(number: U64) -> U64:
    """The output of SplitMix64 at these positions of its sequence."""
    number = number * np.uint64(_GOLDEN)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))
