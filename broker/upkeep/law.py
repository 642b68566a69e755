"""The law of conservation, checked from outside: what was trained = what was applied + what waits + the residual."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgeclient.compress.arrays import F32, F64
from edgeclient.compress.update import SparseUpdate


@dataclass(frozen=True, slots=True)
class Balance:
    """Whether the law holds for one account: the worst error in units of what float32 rounding explains."""

    holds: bool
    worst: float
    coordinate: int


def check(trained: F64, absolute: F64, rounds: int, residual: F32, elsewhere: Iterable[SparseUpdate]) -> Balance:
    """Compare both sides of the account, coordinate by coordinate.

    Every round adds and subtracts once in float32, and no intermediate magnitude exceeds the sum of |delta|,
    since a decoded entry is never off by more than the entry itself: the error is at most
    rounds · 2^-23 · sum |delta|.

    Args:
        trained: sum of deltas as the auditor knows it (n,).
        absolute: sum of their magnitudes (n,).
        rounds: how many.
        residual: what the store holds (n,).
        elsewhere: the entries of every applied frame and of every frame that still waits, each once.

    Example:
        >>> one = np.ones(1)
        >>> check(one, one, 1, np.ones(1, np.float32), []).holds
        True
        >>> check(one, one, 1, np.zeros(1, np.float32), []).holds
        False
    """
    accounted = residual.astype(np.float64)
    for update in elsewhere:
        update.add_to(accounted)
    allowed = (rounds + 1) * 2.0**-23 * absolute + 1e-30
    excess = np.abs(trained - accounted) / allowed
    worst = int(excess.argmax())
    return Balance(bool(excess[worst] <= 1), float(excess[worst]), worst)
