"""What an update weighs: its examples, capped, discounted by staleness, in integers.

num_examples is whatever a device claims, so it is capped; the discount 1/sqrt(1 + staleness) is FedBuff's
(2106.06639, section 5). Integers, so that sums do not depend on order or machine.
"""

from math import isqrt
from typing import Final

UNIT: Final = 256
MAX_EXAMPLES: Final = 4096
MAX_WEIGHT: Final = MAX_EXAMPLES * UNIT


def weight(num_examples: int, staleness: int) -> int:
    """An integer in 1..2^20, for 1 example or more, as claimed; staleness is current version - base version.

    Example:
        >>> weight(100, 0), weight(100, 3), weight(10**9, 0)
        (25600, 12800, 1048576)
    """
    discount = isqrt(UNIT * UNIT // (1 + staleness))
    return max(1, min(num_examples, MAX_EXAMPLES) * discount)
