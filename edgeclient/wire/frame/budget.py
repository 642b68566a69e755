"""When the context coder is used: it goes through every position, compiled or not, so its work has a budget."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.compress.accel import Accel, Backend
from edgeclient.compress.arrays import I64, U8, Bools
from edgeclient.wire.frame import context
from edgeclient.wire.limits import MAX_CONTEXT_POSITIONS

# Positions per frame that a writer spends: about a tenth of a second, compiled or not.
BUDGET: Final = MAX_CONTEXT_POSITIONS
BUDGET_UNCOMPILED: Final = 1 << 14
# A stream is not tried for fewer entries, or where it could save less of the frame than this.
_FEWEST: Final = 16
_WORTH: Final = 0.01
_SAMPLE: Final = 1 << 14
# What an entry costs in all, roughly: the measure of what is worth it.
_ENTRY_BITS: Final = 9


@dataclass(slots=True)
class Budget:
    """The positions that are left for one frame.

    Attributes:
        accel: which kernel.
        size: n, since large models load numba anyway.
        left: positions; None before the first is spent.
    """

    accel: Accel
    size: int
    left: int | None = None

    def affords(self, entries: int, positions: int) -> bool:
        """Whether so many entries are worth a stream and their positions can be spent; then they are."""
        return entries >= _FEWEST and self._spend(positions)

    def engine(self) -> Backend:
        """What codes."""
        return context.KERNEL.backend(self.size, self.accel)

    def row(self, negative: Bools, levels: U8, bits: int) -> bytes | None:
        """Signs and levels as a full row, where it is likely to be sufficiently below `bits`."""
        if levels.size < _FEWEST:
            return None
        possible = bits / levels.size - _bits_after_the_last(negative[:_SAMPLE], levels[:_SAMPLE])
        if possible < _WORTH * _ENTRY_BITS or not self._spend(levels.size):
            return None
        every = np.arange(levels.size)
        return context.encode(1, levels.size, every, negative, levels, accel=self.engine())

    def _spend(self, positions: int) -> bool:
        if self.left is None and positions <= BUDGET:
            self.left = BUDGET if self.engine() == "numba" else BUDGET_UNCOMPILED
        if self.left is None or positions > self.left:
            return False
        self.left -= positions
        return True


def level_bits(levels: U8) -> int:
    """What signs and levels take at least without any context: a bit each, and the entropy of the levels."""
    return levels.size + int(_entropy(np.bincount(levels)))


def _bits_after_the_last(negative: Bools, levels: U8) -> float:
    """What a sign and level take if the ones before are known, learning that included: an estimate per entry."""
    symbols = np.minimum(levels, 3) * 2 + negative
    pairs = np.bincount(symbols[:-1] * 8 + symbols[1:], minlength=64).reshape(8, 8)
    learnt = np.count_nonzero(pairs) / 2 * np.log2(levels.size)
    return float(_entropy(pairs.ravel()) - _entropy(pairs.sum(axis=1)) + learnt) / levels.size


def _entropy(counts: I64) -> float:
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())
