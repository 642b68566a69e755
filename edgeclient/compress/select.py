"""Exact global top-k by magnitude in one sweep of memory, fused with the error-feedback add.

float32 magnitudes order like their bit patterns without the sign bit, so selection works on integers:
no NaN surprises, no rounding, and ties are exactly the equal patterns. Ties go to the lower index, and
zeros are never selected.

One sweep, block by block: add, and append what reaches a guess to a list of candidates. With error feedback the
threshold moves slowly, so 0.95 of the last one finds 1.1 to 2 k candidates, and the top-k of those is the top-k of
all. The guess is never trusted: too low a one, or none, fills the list, which is then cut to its best k while the
guess rises to the least of them; too high a one finds fewer than k, and a second sweep begins at the bottom.
`_select_numba.py` holds the twin that agrees bit for bit.
"""

import struct
from functools import partial
from types import ModuleType
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from edgeclient.compress.accel import Accel, Kernel
from edgeclient.compress.arrays import F32, I32, I64

_Found: TypeAlias = tuple[I64, F32, np.int32]

# Of fewer parameters NumPy makes 0.2 ms, loaded or not.
KERNEL: Final = Kernel("edgeclient.compress._select_numba", numba_from=100_000, joins=False)
# Measured over 60 to 100 rounds of two tasks: 0.95 hits in 91-100 % of them, 1.0 misses 31 %, and at 0.8 error
# feedback has piled up five times as many candidates.
GUESS: Final = 0.95
LARGEST: Final = float(np.finfo(np.float32).max)
_BLOCK: Final = 1 << 15
_MAGNITUDE: Final = np.int32(0x7FFFFFFF)


class Selection(NamedTuple):
    """The k largest entries of a vector, fewer where fewer are not zero.

    Attributes:
        indices: (k,) int64, strictly ascending.
        values: (k,) the entries themselves.
        threshold: the smallest magnitude among them; 0 if there are none.
    """

    indices: I64
    values: F32
    threshold: float


def top_k(x: F32, k: int, *, accel: Accel = "auto") -> I64:
    """Indices of the k largest magnitudes of `x` (n,), ascending, int64.

    Fewer than k where fewer are non-zero.

    Raises:
        ValueError: k < 0, or x is not finite.

    Example:
        >>> top_k(np.array([0.5, -2.0, 0.0, 2.0, 1.0], np.float32), 2)
        array([1, 3])
        >>> top_k(np.array([1.0, -1.0, 1.0], np.float32), 2)  # ties: the lower index
        array([0, 1])
    """
    selection = select(np.require(x, np.float32, ["C", "A"]), k, accel=accel)
    if selection is None:
        raise ValueError("a vector with NaN or infinity has no top k")
    return selection.indices


def select(
    x: F32, k: int, *, total_of: tuple[F32, F32] | None = None, last_threshold: float = 0.0, accel: Accel = "auto"
) -> Selection | None:
    """The k largest entries of `x` (n,), which may be made in the same sweep.

    Beside x itself it needs 12 bytes for each of at most 4 k + 2^15 candidates; x and its terms may be memory-mapped.

    Args:
        x: float32 (n,), contiguous and aligned; overwritten if `total_of` is given.
        k: how many.
        total_of: two such vectors, whose sum x shall become.
        last_threshold: where the k-th magnitude may be expected: that of an earlier, similar selection. Decides
            nothing but the speed; 0 if nothing is known.
        accel: which kernel to use.

    Returns:
        The selection; None if an entry of x is NaN or infinite.

    Raises:
        ValueError: k < 0.

    Example:
        >>> x = np.empty(3, np.float32)
        >>> made = select(x, 1, total_of=(np.array([1, 2, 3], np.float32), np.array([0, -5, 0], np.float32)))
        >>> x, made.indices, made.values, made.threshold
        (array([ 1., -3.,  3.], dtype=float32), array([1]), array([-3.], dtype=float32), 3.0)
    """
    if k < 0:
        raise ValueError(f"k must not be negative, not {k}")
    # NaN and infinity have the largest patterns of all: if there are any, the largest entry is one.
    wanted = min(max(k, 1), x.size)
    twin = KERNEL.twin(x.size, accel)
    if twin is None and x.size <= _BLOCK:
        indices, values, smallest = _at_once(x, wanted, total_of)
    else:
        sweep = _sweep if twin is None else partial(_swept, twin)
        guess = max(1, int(np.float32(min(GUESS * last_threshold, LARGEST)).view(np.int32)))
        indices, values, smallest = sweep(x, wanted, guess, total_of)
        if indices.size < wanted and guess > 1:
            indices, values, smallest = sweep(x, wanted, 1, None)
    if np.count_nonzero(np.isfinite(values)) < values.size:
        return None
    if k == 0:
        return Selection(indices[:0], values[:0], 0.0)
    return Selection(indices, values, _number(smallest))


def _number(pattern: np.int32) -> float:
    # A view of a NumPy scalar takes 0.5 us, this 0.1.
    return float(struct.unpack("f", struct.pack("i", pattern))[0])


# These return indices, values and the smallest magnitude (its bit pattern) of the k largest entries, 1 <= k <= n unless
# n = 0; the sweeps of those that are not below `guess` >= 1.


def _at_once(x: F32, k: int, total_of: tuple[F32, F32] | None) -> _Found:
    """For x that fits into a cache: a partition takes as long as looking for candidates.

    Of 20 us at n = 10,000 a quarter is calls, so there are few: abs() clears the sign bit, as the mask does elsewhere.
    """
    if total_of is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(*total_of, out=x)
    indices, smallest = _best(np.abs(x).view(np.int32), k)
    return indices, x[indices], smallest


@np.errstate(over="ignore", invalid="ignore")
def _sweep(x: F32, k: int, guess: int, total_of: tuple[F32, F32] | None) -> _Found:
    indices, magnitudes, smallest = np.empty(0, np.int64), np.empty(0, np.int32), np.int32(0)
    found, count = [(indices, magnitudes)], 0
    for start in range(0, x.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        if total_of is not None:
            np.add(total_of[0][part], total_of[1][part], out=x[part])
        block = x[part].view(np.int32) & _MAGNITUDE
        places = (block >= guess).nonzero()[0]
        found.append((places + start, block[places]))
        count += places.size
        if count > 4 * k + _BLOCK or part.stop >= x.size:
            indices, magnitudes = (np.concatenate(each) for each in zip(*found, strict=True))
            best, smallest = _best(magnitudes, min(k, count))
            indices, magnitudes = indices[best], magnitudes[best]
            found, count = [(indices, magnitudes)], best.size
            if count == k:
                guess = int(smallest) + 1  # what equals the smallest from here on loses the tie
    return indices, x[indices], smallest


def _swept(twin: ModuleType, x: F32, k: int, guess: int, total_of: tuple[F32, F32] | None) -> _Found:
    room = min(x.size, 4 * k + 2 * twin.BLOCK)
    indices, bits = np.empty(room, np.int64), np.empty(room, np.int32)
    delta, residual = (x[:0], x[:0]) if total_of is None else total_of
    count, smallest = twin.sweep(delta, residual, x, x.view(np.int32), k, guess, indices, bits)
    for each in (indices, bits):
        each.resize(count, refcheck=False)  # gives the rest back without a copy
    return indices, bits.view(np.float32), np.int32(smallest)


def _best(magnitudes: I32, k: int) -> tuple[I64, np.int32]:
    """The definition: places of the k largest magnitudes, ascending, ties to the lower, without zeros; the smallest."""
    size = magnitudes.size
    if size == 0:
        return np.empty(0, np.int64), np.int32(0)
    ordered = magnitudes.copy()
    ordered.partition(size - k)
    kth: np.int32 = ordered[size - k]
    # Where less than a tenth is set, nonzero() jumps from one to the next, and every jump is a mispredicted branch: at
    # 5 % of 10,000 that takes 10 us, and 6 us with so many more set that it counts through.
    padding = size // 9 - k
    if size // 32 < k and padding > 0:
        padded = np.empty(size + padding, np.bool_)
        padded[size:] = True
        np.greater_equal(magnitudes, kth or 1, out=padded[:size])
        places = padded.nonzero()[0][:-padding]
    else:
        places = (magnitudes >= (kth or 1)).nonzero()[0]
    if places.size > k:
        ties = (magnitudes[places] == kth).nonzero()[0]
        places = np.delete(places, ties[k - places.size :])
    elif 0 < places.size < k:
        kth = magnitudes[places].min()
    return places, kth
