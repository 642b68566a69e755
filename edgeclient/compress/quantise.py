"""Deadzone step quantiser: step = threshold, entropy near one bit, error kept for the next round.

With error feedback the selected magnitudes are nearly equal, because the residual sits just below the
threshold (measured mean/min 1.03-1.4): a sign and a coarse level lose less than 3 % of the energy.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from edgeclient.compress.update import CENTROID_LEVELS, F32, MAX_LEVEL, U8, FloatValues, StepValues, Values

# Below this a bfloat16 step and its multiples leave the normal range: send float32 instead.
SMALLEST_STEP: Final = np.float32(2.0**-110)
# More entries than this above the grid's last level, and the grid would cut off what matters: at density 1
# it sent 0.01 % of a first update's energy (measured), at 1 % nothing is above.
MAX_OFF_GRID: Final = 1 / 16
# Centroids are sums of |x|/t in units of 2^-20, in int64: exact, so no CPU or backend can differ.
_UNIT: Final = float(1 << 20)


def bfloat16_down(x: np.float32) -> np.float32:
    """The largest bfloat16 number that is not above x >= 0."""
    return np.uint32(x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def bfloat16_nearest(x: float) -> np.float32:
    """x >= 0 rounded to the nearest bfloat16 number (ties to even), never to infinity."""
    bits = int(np.float32(x).view(np.uint32))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.uint32(min(rounded, 0x7F7F0000)).view(np.float32)


def quantise(selected: F32, limit: float) -> Values:
    """Put selected entries on a step grid.

    Args:
        selected: (k,) finite, non-zero float32.
        limit: no decoded magnitude exceeds it: a power of two, or infinity for none. What is cut off
            stays with the caller, who keeps `x - decoded` as residual.

    Returns:
        Values of the same length; `decoded()` has the signs of `selected`.

    Example:
        >>> quantise(np.array([1.0, -1.0, 2.5], np.float32), 16.0).decoded()
        array([ 1. , -1. ,  2.5], dtype=float32)
    """
    magnitudes = np.minimum(np.abs(selected), np.float32(min(limit, float(np.finfo(np.float32).max))))
    negative = np.signbit(selected)
    if magnitudes.size == 0 or magnitudes.min() < SMALLEST_STEP:
        return FloatValues(np.where(negative, -magnitudes, magnitudes))
    threshold = bfloat16_down(magnitudes.min())
    steps = magnitudes.astype(np.float64) / float(threshold)  # float64: no quotient rounds up to a level
    if np.count_nonzero(steps > MAX_LEVEL + 2) > MAX_OFF_GRID * steps.size:
        return FloatValues(np.where(negative, -magnitudes, magnitudes))
    top = int(min(MAX_LEVEL, max(CENTROID_LEVELS - 1, np.floor(limit / float(threshold) - 1.5))))
    # Cut before the cast: a quotient can exceed int64, and what the cast makes of it depends on the CPU.
    levels = np.minimum(np.minimum(steps, MAX_LEVEL + 1).astype(np.int64) - 1, top).astype(np.uint8)
    return StepValues(threshold, _centroids(steps, levels, float(threshold)), negative, levels)


def _centroids(
    steps: npt.NDArray[np.float64], levels: U8, threshold: float
) -> tuple[np.float32, np.float32, np.float32]:
    """Mean magnitude of levels 0, 1, 2 as bfloat16; 0 for an empty level."""
    centroids = []
    for level in range(CENTROID_LEVELS):
        members = steps[levels == level]
        if members.size == 0:
            centroids.append(np.float32(0))
            continue
        # Capped at 2^20 steps: only the limit can push so much into a low level.
        units = (np.minimum(members, _UNIT) * _UNIT).astype(np.int64)
        mean_steps = int(units.sum()) / (members.size * _UNIT)
        centroids.append(bfloat16_nearest(min(mean_steps * threshold, float(np.finfo(np.float32).max))))
    first, second, third = centroids
    return first, second, third
