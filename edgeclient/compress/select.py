"""Exact global top-k by magnitude, by partial selection.

float32 magnitudes order like their bit patterns without the sign bit, so selection works on integers:
no NaN surprises, no rounding, and ties are exactly the equal patterns. Ties go to the lower index, and
zeros are never selected. `_numba.py` holds the twin that agrees index for index.
"""

from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from edgeclient.compress.update import F32, I64

Accel: TypeAlias = Literal["auto", "numpy", "numba"]

# Below this size numba never repays its start-up (0.6-0.8 s, 70 MiB); argpartition takes 0.2 ms here.
NUMBA_FROM = 100_000
MAGNITUDE = np.uint32(0x7FFFFFFF)


def top_k(x: F32, k: int, *, accel: Accel = "auto") -> I64:
    """Indices of the k largest magnitudes of `x` (n,), ascending, int64.

    Fewer than k where fewer are non-zero. `x` must be finite.

    Example:
        >>> top_k(np.array([0.5, -2.0, 0.0, 2.0, 1.0], np.float32), 2)
        array([1, 3])
        >>> top_k(np.array([1.0, -1.0, 1.0], np.float32), 2)  # ties: the lower index
        array([0, 1])
    """
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    if k == 0 or x.size == 0:
        return np.empty(0, np.int64)
    if backend(x.size, accel) == "numba":
        from edgeclient.compress._numba import top_k as twin  # noqa: PLC0415 (numba costs 70 MiB: only when used)

        selected: I64 = twin(np.ascontiguousarray(x).view(np.uint32), min(k, x.size))
        return selected
    return _top_k_numpy(x, k)


def backend(n: int, accel: Accel = "auto") -> Literal["numpy", "numba"]:
    """Which kernel `top_k` uses for a vector of n numbers."""
    if accel == "numpy" or (accel == "auto" and n < NUMBA_FROM):
        return "numpy"
    if _numba_works():
        return "numba"
    if accel == "numba":
        raise RuntimeError("accel = 'numba', but numba cannot be used: pip install 'edgeclient[accel]'")
    return "numpy"


@cache
def _numba_works() -> bool:
    try:
        import edgeclient.compress._numba  # noqa: F401, PLC0415 (as above)
    except Exception:  # noqa: BLE001 (a broken numba fails in many ways: ImportError, OSError, its own errors)
        return False
    return True


def _top_k_numpy(x: F32, k: int) -> I64:
    magnitude = np.ascontiguousarray(x).view(np.uint32) & MAGNITUDE
    nonzero = int(np.count_nonzero(magnitude))
    if k >= nonzero:
        return np.flatnonzero(magnitude)
    kth = np.partition(magnitude, x.size - k)[x.size - k]
    above = np.flatnonzero(magnitude > kth)
    ties = np.flatnonzero(magnitude == kth)[: k - above.size]
    return np.sort(np.concatenate([above, ties]))
