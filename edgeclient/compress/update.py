"""What compression makes and the wire carries: selected coordinates with low-precision values."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]

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
    """

    threshold: np.float32
    centroids: tuple[np.float32, np.float32, np.float32]
    negative: Bools
    levels: U8

    def decoded(self) -> F32:
        """Values as the receiver sees them, float32 (k,), always finite."""
        steps = np.arange(MAX_LEVEL + 1, dtype=np.float64)
        table = np.minimum((steps + 1.5) * float(self.threshold), float(LARGEST)).astype(np.float32)
        table[:CENTROID_LEVELS] = self.centroids
        magnitudes = table[self.levels]
        return np.where(self.negative, -magnitudes, magnitudes)


@dataclass(frozen=True, slots=True, eq=False)
class FloatValues:
    """Values sent as float32, where a step grid would underflow."""

    values: F32

    def decoded(self) -> F32:
        """The values themselves, float32 (k,)."""
        return self.values


Values: TypeAlias = StepValues | FloatValues


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
        dense[self.indices] += self.values.decoded()

    def between(self, first: int, last: int) -> "SparseUpdate":
        """The entries first..last-1 (by rank, not by coordinate), with the same grid."""
        part = slice(first, last)
        if isinstance(self.values, FloatValues):
            values: Values = FloatValues(self.values.values[part])
        else:
            step = self.values
            values = StepValues(step.threshold, step.centroids, step.negative[part], step.levels[part])
        return SparseUpdate(self.size, self.indices[part], values)
