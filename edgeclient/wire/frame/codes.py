"""How a set of positions is coded, and which code is the shortest for it (FORMAT.md, section 3.3)."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.compress.arrays import I64

MAX_BITS: Final = 31
# The best parameter of larger sets is looked for in every so many entries of them.
_SAMPLE: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class Code:
    """How the gaps of a set are coded: `bits` low bits as they are, then what is left over, in thirds or whole."""

    bits: int
    thirds: bool = False

    @property
    def step(self) -> int:
        """What one bit of a quotient stands for."""
        return 3 << self.bits if self.thirds else 1 << self.bits


@dataclass(frozen=True, slots=True)
class Set:
    """`count` >= 1 strictly ascending positions in [0, span), to be read with `code`."""

    count: int
    span: int
    code: Code


def best(positions: I64) -> tuple[Code, int]:
    """The code with the fewest bits for a set of at least one position, and about how many that is."""
    k = positions.size
    every = -(-k // _SAMPLE)
    if every == 1:
        gaps = np.diff(positions, prepend=-1) - 1
    else:
        picked = np.arange(1, k, every)
        gaps = positions[picked] - positions[picked - 1] - 1
    mean = (int(positions[-1]) + 1 - k) / k
    guess = min(MAX_BITS, int(mean * math.log(2)).bit_length() - 1) if mean * math.log(2) >= 1 else 0
    around = range(max(0, guess - 2), min(MAX_BITS, guess + 2) + 1)
    codes = [Code(bits, thirds) for thirds in (False, True) for bits in around]
    costs = [cost(gaps, code) for code in codes]
    least = min(range(len(codes)), key=costs.__getitem__)
    return codes[least], -(-costs[least] * k // gaps.size)


def bits(positions: I64, code: Code) -> int:
    """Bits of a set in a pool."""
    return cost(np.diff(positions, prepend=-1) - 1, code)


def cost(gaps: I64, code: Code) -> int:
    """Bits of some gaps in a code."""
    left = gaps >> code.bits
    if not code.thirds:
        return int(left.sum()) + gaps.size * (code.bits + 1)
    quotients = left // 3
    return int(quotients.sum()) + int(np.count_nonzero(left - 3 * quotients)) + gaps.size * (code.bits + 2)
