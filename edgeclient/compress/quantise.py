"""Selected entries as values of low precision; the error stays with the caller, for the next round.

The default is a deadzone step quantiser (step = threshold, entropy near one bit). With error feedback the selected
magnitudes are nearly equal, because the residual sits just below the threshold (measured mean/min 1.03-1.4): a sign
and a coarse level lose less than 3 % of the energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from edgeclient.compress.arrays import F32, F64, I64, U8, Bools
from edgeclient.compress.update import (
    CENTROID_LEVELS,
    LARGEST,
    MAX_LEVEL,
    Centroids,
    FloatValues,
    GridValues,
    HalfValues,
    SignValues,
    StepValues,
    Values,
)

Mode: TypeAlias = Literal["step", "float32", "bfloat16", "int8", "int4", "sign"]

# Below this a bfloat16 step and its multiples leave the normal range: send float32 instead.
SMALLEST_STEP: Final = np.float32(2.0**-110)
# More entries than this above the grid's last level, and the grid would cut off what matters: at density 1
# it sent 0.01 % of a first update's energy (measured), at 1 % nothing is above.
MAX_OFF_GRID: Final = 1 / 16
# Centroids are sums of |x|/t in units of 2^-20, in int64: exact, so no CPU or backend can differ.
_UNIT: Final = float(1 << 20)
_MAX: Final = float(LARGEST)
_LARGEST_BFLOAT16: Final = 0x7F7F0000
# A run with centroids of its own costs about as much as this many entries (8 bytes at 9 bits each).
_RUN_ENTRIES: Final = 7
# A grid's step may be that many times halved below one that reaches the largest entry. At density 1, error feedback
# piles up what a grid of 4 bits cuts off: with 3, a heavy-tailed delta sent 30 times left 2 of itself, with 5 a half.
_HALVINGS: Final = 5


def bfloat16_down(x: np.float32) -> np.float32:
    """The largest bfloat16 number that is not above x >= 0."""
    return np.uint32(x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def bfloat16_up(x: float) -> np.float32:
    """The smallest bfloat16 number that is not below x >= 0; the largest one, where there is none."""
    down = bfloat16_down(np.float32(min(x, _MAX)))
    bits = int(down.view(np.uint32))
    return np.uint32(min(bits + 0x10000 * (float(down) < x), _LARGEST_BFLOAT16)).view(np.float32)


def bfloat16_nearest(x: float) -> np.float32:
    """x >= 0 rounded to the nearest bfloat16 number (ties to even), never to infinity."""
    bits = int(np.float32(x).view(np.uint32))
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.uint32(min(rounded, _LARGEST_BFLOAT16)).view(np.float32)


@dataclass(frozen=True, slots=True)
class Quantiser:
    """How a device puts its entries on a grid: `quantise` with everything but the entries.

    Attributes:
        limit, mode, rng: as `quantise`.
        bounds: coordinates where tensors begin, ascending, and n: tells the runs.
    """

    limit: float = float("inf")
    mode: Mode = "step"
    rng: "np.random.Generator | None" = None
    bounds: Sequence[int] = ()

    def __call__(self, indices: I64, selected: F32) -> Values:
        """The selected entries (k,) at `indices` (k,), ascending."""
        runs = np.diff(np.searchsorted(indices, np.asarray(self.bounds, np.int64))).tolist()
        return quantise(selected, self.limit, self.mode, self.rng, runs)


def quantise(
    selected: F32,
    limit: float,
    mode: Mode = "step",
    rng: "np.random.Generator | None" = None,
    runs: Sequence[int] = (),
) -> Values:
    """Put selected entries on a grid of the wire.

    What the mode cannot hold is sent as float32: magnitudes below 2^-110, and under "step" a range so wide that
    the grid would cut off what matters.

    Args:
        selected: (k,) finite, non-zero float32.
        limit: no decoded magnitude exceeds it: a power of two, or infinity for none. What is cut off
            stays with the caller, who keeps `x - decoded` as residual.
        mode: how precise: "step" 1.0 to 1.6 bits, "sign" 1, "int4" 4, "int8" 8, "bfloat16" 16, "float32" 32.
        rng: makes the rounding of bfloat16, int8 and int4 stochastic, so that its mean is the entry itself;
            None rounds to the nearest, so that no entry is off by more than itself; under "sign" it may be, but all
            of them together are not.
        runs: under "step", how many consecutive entries lie in each tensor; a tensor gets centroids of its own
            where their gain in sent energy is worth their bytes.

    Returns:
        Values of the same length; `decoded()` has the signs of `selected`.

    Example:
        >>> quantise(np.array([1.0, -1.0, 2.5], np.float32), 16.0).decoded()
        array([ 1. , -1. ,  2.5], dtype=float32)
        >>> quantise(np.array([1.0, -1.0, 2.5], np.float32), 16.0, mode="sign").decoded()
        array([ 1.5, -1.5,  1.5], dtype=float32)
    """
    magnitudes = np.minimum(np.abs(selected), np.float32(min(limit, _MAX)))
    negative = np.signbit(selected)
    if mode == "float32" or magnitudes.size == 0 or magnitudes.min() < SMALLEST_STEP:
        return FloatValues(np.where(negative, -magnitudes, magnitudes))
    if mode == "bfloat16":
        return _half(magnitudes, negative, rng)
    if mode == "sign":
        # No other magnitude leaves less, and whatever the entries are, less than came (EF-signSGD, 1901.09847).
        return SignValues(_mean(magnitudes), negative)
    if mode in {"int8", "int4"}:
        return _grid(magnitudes.astype(np.float64), negative, limit, 8 if mode == "int8" else 4, rng)
    return _step(magnitudes, negative, limit, runs)


def _step(magnitudes: F32, negative: Bools, limit: float, runs: Sequence[int]) -> Values:
    threshold = bfloat16_down(magnitudes.min())
    steps = magnitudes.astype(np.float64) / float(threshold)  # float64: no quotient rounds up to a level
    if np.count_nonzero(steps > MAX_LEVEL + 2) > MAX_OFF_GRID * steps.size:
        return FloatValues(np.where(negative, -magnitudes, magnitudes))
    top = int(min(MAX_LEVEL, max(CENTROID_LEVELS - 1, np.floor(limit / float(threshold) - 1.5))))
    # Cut before the cast: a quotient can exceed int64, and what the cast makes of it depends on the CPU.
    levels = np.minimum(np.minimum(steps, MAX_LEVEL + 1).astype(np.int64) - 1, top).astype(np.uint8)
    whole = StepValues(threshold, _centroids(steps, levels, float(threshold)), negative, levels)
    return _with_runs(whole, steps, runs) if len(runs) > 1 else whole


def _with_runs(whole: StepValues, steps: F64, runs: Sequence[int]) -> StepValues:
    """`whole` with centroids per run, if an entry's worth of bytes sends more than an entry's worth of energy."""
    own, at, threshold = [], 0, float(whole.threshold)
    for count in filter(None, runs):
        part = slice(at, at + count)
        own.append((count, _centroids(steps[part], whole.levels[part], threshold)))
        at += count
    split = StepValues(whole.threshold, (np.float32(0),) * 3, whole.negative, whole.levels, tuple(own))
    errors = [float(((steps - np.abs(each.decoded()) / threshold) ** 2).sum()) for each in (whole, split)]
    price = _RUN_ENTRIES * len(own) / steps.size * float((steps**2).sum())
    return split if errors[0] - errors[1] > price else whole


def _centroids(steps: F64, levels: U8, threshold: float) -> Centroids:
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
        centroids.append(bfloat16_nearest(min(mean_steps * threshold, _MAX)))
    first, second, third = centroids
    return first, second, third


def _mean(magnitudes: F32) -> np.float32:
    """Mean magnitude as bfloat16, from a sum of integers in units of 2^-32 of the largest."""
    largest = float(magnitudes.max())
    # Fewer than 2^31 terms of at most 2^32 each.
    units = (magnitudes.astype(np.float64) / largest * 2.0**32).astype(np.int64)
    mean = int(units.sum()) / (magnitudes.size * 2.0**32) * largest
    return bfloat16_nearest(max(mean, float(magnitudes.min())))


def _half(magnitudes: F32, negative: Bools, rng: "np.random.Generator | None") -> HalfValues:
    bits = magnitudes.view(np.uint32).astype(np.int64)
    if rng is None:
        bits += 0x7FFF + ((bits >> 16) & 1)
    else:
        bits += rng.integers(0, 1 << 16, bits.size)
    rounded = np.minimum(bits & 0xFFFF0000, _LARGEST_BFLOAT16).astype(np.uint32).view(np.float32)
    return HalfValues(np.where(negative, -rounded, rounded))


def _grid(magnitudes: F64, negative: Bools, limit: float, bits: int, rng: "np.random.Generator | None") -> GridValues:
    lowest = bfloat16_down(np.float32(magnitudes.min()))
    top = (1 << (bits - 1)) - 1
    span = float(magnitudes.max()) - float(lowest)
    # A step that reaches the largest entry is coarse for all others when that one stands alone: shorter ones
    # cut it off, and the rest of it stays with the caller. Stochastic rounding must not cut, or it is biased.
    best: tuple[float, GridValues] | None = None
    for shorter in range(1 if rng is not None else _HALVINGS + 1):
        step = bfloat16_up(span / top / 2**shorter)
        # The last level that stays within the limit once it is rounded to float32.
        table = np.minimum(float(lowest) + np.arange(top + 1) * float(step), _MAX).astype(np.float32)
        places = (magnitudes - float(lowest)) / float(step) if span else np.zeros_like(magnitudes)
        rounded = np.rint(places) if rng is None else np.floor(places + rng.random(places.size))
        levels = np.minimum(rounded, int(np.count_nonzero(table <= limit)) - 1).astype(np.uint8)
        made = GridValues(bits, lowest, step, negative, levels)
        error = float((((magnitudes - np.abs(made.decoded())) / float(lowest)) ** 2).sum()) if rng is None else 0.0
        if best is not None and error >= best[0]:
            break
        best = error, made
    assert best is not None
    return best[1]
