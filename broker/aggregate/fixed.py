"""The weighted sum of a batch in fixed point (int64): exact, so the order cannot matter."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from broker.aggregate.weight import MAX_WEIGHT
from edgeclient.compress.arrays import I64
from edgeclient.compress.update import SparseUpdate, add_units

# value · 2^s ≤ 2^30 (announcement) · weight ≤ 2^20 · frames ≤ 2^12 stays below 2^63.
MAX_FRAMES: Final = 1 << 12


def weighted_sum(members: Iterable[tuple[SparseUpdate, int]], size: int, scale_bits: int) -> I64:
    """Sum of weight · round(value · 2^s), int64 (n,).

    Args:
        members: updates with their integer weights; every value·2^s is within ±2^30.
        size: n.
        scale_bits: s.

    Raises:
        ValueError: a bound is broken, so that the sum might wrap.
    """
    total = np.zeros(size, np.int64)
    for count, (update, weight) in enumerate(members, 1):
        values = update.values.decoded()
        largest = max(float(values.max()), -float(values.min())) * 2.0**scale_bits
        if count > MAX_FRAMES or not 1 <= weight <= MAX_WEIGHT or largest > 2.0**30:
            raise ValueError(f"member {count} with weight {weight} is outside the bounds of the fixed-point sum")
        add_units(total, update.indices, values, scale_bits, weight)
    return total
