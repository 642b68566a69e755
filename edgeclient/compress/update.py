"""What compression makes and the wire carries: selected coordinates with low-precision values."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgeclient.compress.add import add

F32: TypeAlias = npt.NDArray[np.float32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]
Centroids: TypeAlias = tuple[np.float32, np.float32, np.float32]

MAX_LEVEL = 12
CENTROID_LEVELS = 3
LARGEST = np.float32(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class StepValues:
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

    def part(self, first: int, last: int) -> "StepValues":
        """The entries first..last-1, with the same grid."""
        runs, at = [], 0
        for count, centroids in self.runs:
            kept = min(at + count, last) - max(at, first)
            if kept > 0:
                runs.append((kept, centroids))
            at += count
        return StepValues(
            self.threshold, self.centroids, self.negative[first:last], self.levels[first:last], tuple(runs)
        )

    def among(self, mask: Bools) -> "StepValues":
        """The entries where `mask` (k,) is true, with the same grid."""
        ends = np.cumsum([count for count, _ in self.runs])
        counts = [int(part.sum()) for part in np.split(mask, ends[:-1])] if self.runs else []
        runs = [(count, each) for count, (_, each) in zip(counts, self.runs, strict=True) if count]
        return StepValues(self.threshold, self.centroids, self.negative[mask], self.levels[mask], tuple(runs))


@dataclass(frozen=True, slots=True, eq=False)
class FloatValues:
    """Values sent as float32, where a step grid would underflow."""

    values: F32

    def decoded(self) -> F32:
        """The values themselves, float32 (k,)."""
        return self.values

    def part(self, first: int, last: int) -> "FloatValues":
        """The entries first..last-1."""
        return FloatValues(self.values[first:last])

    def among(self, mask: Bools) -> "FloatValues":
        """The entries where `mask` (k,) is true."""
        return FloatValues(self.values[mask])


@dataclass(frozen=True, slots=True, eq=False)
class HalfValues:
    """Values sent as bfloat16; `values` holds them in float32, the lower 16 bits being zero."""

    values: F32

    def decoded(self) -> F32:
        """The values themselves, float32 (k,)."""
        return self.values

    def part(self, first: int, last: int) -> "HalfValues":
        """The entries first..last-1."""
        return HalfValues(self.values[first:last])

    def among(self, mask: Bools) -> "HalfValues":
        """The entries where `mask` (k,) is true."""
        return HalfValues(self.values[mask])


@dataclass(frozen=True, slots=True, eq=False)
class GridValues:
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

    def part(self, first: int, last: int) -> "GridValues":
        """The entries first..last-1, with the same grid."""
        return GridValues(self.bits, self.lowest, self.step, self.negative[first:last], self.levels[first:last])

    def among(self, mask: Bools) -> "GridValues":
        """The entries where `mask` (k,) is true, with the same grid."""
        return GridValues(self.bits, self.lowest, self.step, self.negative[mask], self.levels[mask])


@dataclass(frozen=True, slots=True, eq=False)
class SignValues:
    """One magnitude, a positive bfloat16 number held in float32, and (k,) signs."""

    magnitude: np.float32
    negative: Bools

    def decoded(self) -> F32:
        """Values as the receiver sees them, float32 (k,)."""
        return np.where(self.negative, -self.magnitude, self.magnitude)

    def part(self, first: int, last: int) -> "SignValues":
        """The entries first..last-1, with the same magnitude."""
        return SignValues(self.magnitude, self.negative[first:last])

    def among(self, mask: Bools) -> "SignValues":
        """The entries where `mask` (k,) is true, with the same magnitude."""
        return SignValues(self.magnitude, self.negative[mask])


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

    def add_to(self, dense: npt.NDArray[np.floating]) -> None:
        """Add the decoded entries to `dense` (n,) in place."""
        add(dense, self.indices, self.values.decoded())

    def among(self, mask: Bools) -> "SparseUpdate":
        """The entries where `mask` (k,) is true, with the same grid."""
        return SparseUpdate(self.size, self.indices[mask], self.values.among(mask))

    def between(self, first: int, last: int) -> "SparseUpdate":
        """The entries first..last-1 (by rank, not by coordinate), with the same grid."""
        return SparseUpdate(self.size, self.indices[first:last], self.values.part(first, last))
