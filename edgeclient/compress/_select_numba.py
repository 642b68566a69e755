"""The numba twin of the NumPy sweep in `select.py`: the same entries, in one sweep of memory.

One kernel, compiled (or loaded from the cache on disk) when this module is imported. Every loop over a block is either
free of branches, so that any instruction set vectorises it, or touches candidates alone. Measured on x86-64 with
AVX-512 at n = 1e7, with the in-place float32 add as unit: a branch-free append of every coordinate 3.7, a branch
per 64 coordinates 2.3-4.6, flags and words as below 1.5-2.7, of which the add into a third vector is 1.4.
"""

import numba
import numpy as np

from edgeclient.compress._jit_numba import njit
from edgeclient.compress.arrays import F32, I32, I64

# 64 KiB of numbers, which the second look at a block finds in a near cache; a quarter as many take 5 % longer.
BLOCK = 1 << 14
_MAGNITUDE = np.int32(0x7FFFFFFF)
_BIN_BITS = 12
_BINS = 1 << _BIN_BITS


@njit()
def _kth(bits: I32, k: int) -> tuple[int, int]:
    """The k-th largest magnitude among `bits` (c,), 1 <= k <= c, and how many entries equal to it are in the top k."""
    low, high = _MAGNITUDE, np.int32(0)
    for i in range(bits.size):
        magnitude = np.int32(bits[i] & _MAGNITUDE)
        low, high = min(low, magnitude), max(high, magnitude)
    # Candidates lie just above the guess, so a histogram over [low, high] spreads them where one over the leading
    # bits would count nearly all of them in the same few bins, each increment waiting for the last.
    first, last, wanted = int(np.int64(low)), int(np.int64(high)), k
    counts = np.empty(_BINS + 1, np.int64)
    while first < last:
        shift = 0
        while (last - first) >> shift >= _BINS:
            shift += 1
        counts[:] = 0
        for i in range(bits.size):
            # An unsigned difference puts what lies below `first` into the spare bin, beside what lies far above.
            offset = np.uint32(np.int64(bits[i] & _MAGNITUDE) - first)
            counts[min(int(np.int64(offset)) >> shift, _BINS)] += 1
        at = (last - first) >> shift
        while counts[at] < wanted:
            wanted -= counts[at]
            at -= 1
        first += at << shift
        last = min(last, first + (1 << shift) - 1)
    return first, wanted


@njit()
def _keep(indices: I64, bits: I32, count: int, k: int) -> int:
    """Move the k largest of the first `count` candidates to the front, in order; their smallest magnitude."""
    kth, ties = _kth(bits[:count], k)
    kept = 0
    for i in range(count):
        index, number = indices[i], bits[i]
        magnitude = np.int64(number & _MAGNITUDE)
        tie = (magnitude == kth) & (ties > 0)
        indices[kept], bits[kept] = index, number
        kept += (magnitude > kth) | tie
        ties -= tie
    return int(kth)


@njit(
    numba.types.UniTuple(numba.int64, 2)(
        numba.types.Array(numba.float32, 1, "C", readonly=True),
        numba.types.Array(numba.float32, 1, "C", readonly=True),
        numba.float32[::1],
        numba.int32[::1],
        numba.int64,
        numba.int64,
        numba.int64[::1],
        numba.int32[::1],
    )
)
def sweep(
    delta: F32, residual: F32, x: F32, bits: I32, k: int, guess: int, indices: I64, found: I32
) -> tuple[int, int]:
    """The k largest entries of x = delta + residual among those of at least the magnitude `guess`.

    Args:
        delta: (n,), or (0,) if x is made already.
        residual: likewise.
        x: (n,).
        bits: x again, as bit patterns.
        k: entries wanted, at least 1.
        guess: bit pattern of a magnitude, at least 1 so that zeros are never found.
        indices: (c,), c >= min(n, k + BLOCK): receives the coordinates, ascending.
        found: (c,), receives the bit patterns of the entries.

    Returns:
        How many entries were found, at most k; the bit pattern of the smallest magnitude among them.
    """
    flags = np.zeros(BLOCK, np.uint8)
    words = flags.view(np.uint64)
    hits = np.empty(words.size + 1, np.int32)
    places = np.empty(BLOCK + 1, np.int32)
    count = 0
    for start in range(0, x.size, BLOCK):
        stop = min(start + BLOCK, x.size)
        if delta.size:
            part, one, other = x[start:stop], delta[start:stop], residual[start:stop]
            for i in range(part.size):
                part[i] = one[i] + other[i]
        block = bits[start:stop]
        least = np.int32(min(guess, 0x7FFFFFFF))
        for i in range(block.size):
            flags[i] = np.int32(block[i] & _MAGNITUDE) >= least
        flags[block.size :] = 0
        # Eight flags are a word. Advancing by 0 or 1 instead of branching: at densities of some percent a branch is
        # mispredicted every few words, which costs more than all of this.
        hit = 0
        for word in range(words.size):
            hits[hit] = word
            hit += words[word] != 0
        found_here = 0
        for i in range(hit):
            at = np.int64(hits[i]) * 8
            for j in range(at, at + 8):
                places[found_here] = j
                found_here += flags[j]
        if count + found_here > indices.size:
            # More than k, so the smallest of the best k is the least that matters from here on; what equals it later
            # loses the tie. The room is 4 k and more: whatever the guess, 3 k candidates share one such pass.
            guess = _keep(indices, found, count, k) + 1
            count = k
        for i in range(found_here):
            place = np.int64(places[i])
            indices[count + i] = start + place
            found[count + i] = block[place]
        count += found_here
    if count > k:
        return k, _keep(indices, found, count, k)
    return count, _kth(found[:count], count)[0] if count else 0
