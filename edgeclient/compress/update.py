"""What compression makes and the wire carries: selected coordinates with low-precision values."""

from dataclasses import dataclass, fields, replace
from typing import Final, Self, TypeAlias

import numpy as np

from edgeclient.compress.accel import Kernel
from edgeclient.compress.arrays import F32, I64, U8, Array, Bools

Centroids: TypeAlias = tuple[np.float32, np.float32, np.float32]

MAX_LEVEL = 12
CENTROID_LEVELS = 3
LARGEST = np.float32(np.finfo(np.float32).max)
_ADD: Final = Kernel("edgeclient.compress._add_numba", numba_from=1_000_000)


@dataclass(frozen=True, slots=True, eq=False)
class _Entrywise:
    """Arrays with a number for each of k entries, and what all of them share."""

    def subset(self, which: slice | Bools) -> Self:
        """The entries of a slice (with both ends), or where a mask (k,) is true, on the same grid."""
        shared_or_not = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{n: each[which] for n, each in shared_or_not.items() if isinstance(each, np.ndarray)})


@dataclass(frozen=True, slots=True, eq=False)
class StepValues(_Entrywise):
    """Values on a deadzone step grid: sign, level u and one step size (entropy-coded, deadzone 1).

    A level u stands for magnitudes in [(u+1)·t, (u+2)·t). Levels 0..2 decode to their centroid, higher
    ones to the midpoint (u + 1.5)·t, which is exact in float32 because t has 8 significant bits.

    Attributes:
        threshold: t > 0, a bfloat16 number held in float32.
        centroids: magnitudes of levels 0, 1, 2 (bfloat16 numbers); 0 where no entry has the level.
        negative: (k,) sign of each entry.
        levels: (k,) uint8 in 0..12.
        runs: consecutive entries with centroids of their own, as (how many, centroids); they add up to k.
            Where there are runs, `centroids` is not used.
    """

    threshold: np.float32
    centroids: Centroids
    negative: Bools
    levels: U8
    runs: tuple[tuple[int, Centroids], ...] = ()

    def decoded(self) -> F32:
        """Values as the receiver sees them, float32 (k,), always finite."""
        steps = np.arange(MAX_LEVEL + 1, dtype=np.float64)
        table = np.minimum((steps + 1.5) * float(self.threshold), float(LARGEST)).astype(np.float32)
        if self.runs:
            tables = np.repeat(table[None], len(self.runs), axis=0)
            tables[:, :CENTROID_LEVELS] = [centroids for _, centroids in self.runs]
            run = np.repeat(np.arange(len(self.runs)), [count for count, _ in self.runs])
            return _signed(tables[run, self.levels], self.negative)
        table[:CENTROID_LEVELS] = self.centroids
        return _signed(table[self.levels], self.negative)

    def subset(self, which: slice | Bools) -> "StepValues":
        """As for the others; runs that lose all entries are gone."""
        runs = self.runs
        if runs:
            ends = np.cumsum([0, *(count for count, _ in runs)])
            if isinstance(which, slice):
                kept = np.clip(ends, which.start, which.stop)
            else:
                kept = np.concatenate([[0], np.cumsum(which)])[ends]
            counts = np.diff(kept).tolist()
            runs = tuple((count, each) for count, (_, each) in zip(counts, runs, strict=True) if count)
        return replace(self, negative=self.negative[which], levels=self.levels[which], runs=runs)


@dataclass(frozen=True, slots=True, eq=False)
class FloatValues(_Entrywise):
    """Values sent as float32, where a step grid would underflow."""

    values: F32

    def decoded(self) -> F32:
        """The values themselves, float32 (k,)."""
        return self.values


@dataclass(frozen=True, slots=True, eq=False)
class HalfValues(_Entrywise):
    """Values sent as bfloat16; `values` holds them in float32, the lower 16 bits being zero."""

    values: F32

    def decoded(self) -> F32:
        """The values themselves, float32 (k,)."""
        return self.values


@dataclass(frozen=True, slots=True, eq=False)
class GridValues(_Entrywise):
    """Values in 8 or 4 bits: a sign, and a magnitude on an even grid that begins at the smallest one.

    Attributes:
        bits: 8 or 4.
        lowest: magnitude of level 0, a positive bfloat16 number held in float32.
        step: from one level to the next, a bfloat16 number, not negative.
        negative: (k,) sign of each entry.
        levels: (k,) uint8 below 2^(bits-1).
    """

    bits: int
    lowest: np.float32
    step: np.float32
    negative: Bools
    levels: U8

    def decoded(self) -> F32:
        """Values as the receiver sees them, float32 (k,), always finite."""
        # A product of 15 significant bits is exact in float64, so that fusing it with the sum changes nothing.
        table = float(self.lowest) + np.arange(1 << (self.bits - 1), dtype=np.float64) * float(self.step)
        return _signed(np.minimum(table, float(LARGEST)).astype(np.float32)[self.levels], self.negative)


@dataclass(frozen=True, slots=True, eq=False)
class SignValues(_Entrywise):
    """One magnitude, a positive bfloat16 number held in float32, and (k,) signs."""

    magnitude: np.float32
    negative: Bools

    def decoded(self) -> F32:
        """Values as the receiver sees them, float32 (k,)."""
        return np.where(self.negative, -self.magnitude, self.magnitude)


Values: TypeAlias = StepValues | FloatValues | HalfValues | GridValues | SignValues


def _signed(magnitudes: F32, negative: Bools) -> F32:
    return np.where(negative, -magnitudes, magnitudes)


@dataclass(frozen=True, slots=True, eq=False)
class SparseUpdate:
    """Some coordinates of a flat vector of `size` numbers.

    Attributes:
        size: n, length of the dense vector.
        indices: (k,) int64, strictly ascending, in [0, n).
        values: (k,) quantised values.
    """

    size: int
    indices: I64
    values: Values

    def add_to(self, dense: Array) -> None:
        """Add the decoded entries to `dense` (n,) in place."""
        add(dense, self.indices, self.values.decoded())

    def among(self, mask: Bools) -> "SparseUpdate":
        """The entries where `mask` (k,) is true, with the same grid."""
        return SparseUpdate(self.size, self.indices[mask], self.values.subset(mask))

    def between(self, first: int, last: int) -> "SparseUpdate":
        """The entries first..last-1 (by rank, not by coordinate), with the same grid."""
        return SparseUpdate(self.size, self.indices[first:last], self.values.subset(slice(first, last)))


def add(dense: Array, indices: I64, values: F32) -> None:
    """Add each of `values` (k,) to `dense` (n,) at its index, in place; no index stands twice.

    Example:
        >>> dense = np.zeros(3)
        >>> add(dense, np.array([0, 2]), np.array([1.0, 0.5], np.float32))
        >>> dense
        array([1. , 0. , 0.5])
    """
    twin = _ADD.twin(indices.size)
    if twin is None:
        dense[indices] += values
    else:
        twin.add(dense, indices, values)


def add_units(total: I64, indices: I64, values: F32, scale_bits: int, weight: int) -> None:
    """Add weight · round(value · 2^scale_bits) to `total` (n,) at each index, in place; no index stands twice.

    Example:
        >>> total = np.zeros(3, np.int64)
        >>> add_units(total, np.array([0, 2]), np.array([1.0, 0.5], np.float32), 4, 3)
        >>> total
        array([48,  0, 24])
    """
    twin = _ADD.twin(indices.size)
    if twin is None:
        total[indices] += np.rint(np.ldexp(values.astype(np.float64), scale_bits)).astype(np.int64) * weight
    else:
        twin.add_units(total, indices, values, 2.0**scale_bits, weight)
