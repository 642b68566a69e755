"""Numbers that travel as they are, not as differences: with every update a slice of them, in bfloat16.

Late and sparse differences of a number that must stay in its domain add up to one outside it, however each device
keeps to it: a running variance becomes negative. A mean of absolute values cannot.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F32, I64

# No absolute value is larger: in units of 2^-24 it is a 60-bit integer, so that sums of them are exact.
LARGEST_ABSOLUTE: Final = 2.0**36
# 2^64 over the golden ratio: its multiples, modulo 2^64, leave no large gap, however many there are (Knuth, 6.4).
_GOLDEN: Final = 0x9E37_79B9_7F4A_7C15


@dataclass(frozen=True, slots=True, eq=False)
class Absolute:
    """A slice of the a numbers of a model that travel so.

    Attributes:
        first: the first of them, below a.
        values: float32 (c,), bfloat16 numbers, of this and the next; behind the last comes number 0.
    """

    first: int
    values: F32

    def places(self, a: int) -> I64:
        """Which of the `a` numbers they are, int64 (c,), each once.

        Example:
            >>> Absolute(3, np.zeros(4, np.float32)).places(5)
            array([3, 4, 0, 1])
        """
        return (self.first + np.arange(self.values.size)) % a


def bfloat16(values: F32) -> F32:
    """Rounded to the nearest bfloat16 number, ties to even; nothing so large that it would become infinite.

    Example:
        >>> bfloat16(np.array([1.00390625, -3.1415927, 0], np.float32))
        array([ 1.      , -3.140625,  0.      ], dtype=float32)
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def rotated(values: F32, device: str, number: int, count: int) -> Absolute:
    """The slice that update `number` of a device carries: over a few updates every number has its turn.

    Where it begins follows from the number alone, which the store has committed: nothing else needs to be remembered,
    slices may be of any length, and devices begin in different places.

    Args:
        values: all a of them, float32 (a,), at least one, none over LARGEST_ABSOLUTE.
        device: its id.
        number: of the update in its epoch.
        count: how many the slice takes; all a, if that is more.

    Example:
        >>> [rotated(np.zeros(100, np.float32), "pi-7", number, 30).first for number in range(6)]
        [58, 20, 82, 43, 5, 67]
    """
    a = values.size
    begin = ((zlib.crc32(device.encode()) << 32) + number * _GOLDEN) % (1 << 64)
    made = Absolute(begin * a >> 64 if count < a else 0, np.empty(min(count, a), np.float32))
    return Absolute(made.first, bfloat16(values[made.places(a)]))
