"""Gap-coded positions of version 1 frames: a set of coordinates as Rice codes of their gaps (FORMAT.md, section 4.2).

Rice 1979; within 0.4-1 % of the floor log2 C(n,k) on uniform masks. Remainders and quotients are two
streams, not interleaved: the same bits, but both directions are a few NumPy sweeps.
"""

import math

import numpy as np

from edgeclient.compress.update import I64
from edgeclient.wire.errors import WireError
from edgeclient.wire.reader import Reader, packed_bits, varint

MAX_PARAMETER = 40


def encode(positions: I64) -> bytes:
    """Strictly ascending positions >= 0, at least one.

    Example:
        >>> decode(Reader(encode(np.array([0, 5, 6]))), count=3, span=7)
        array([0, 5, 6])
    """
    gaps = np.diff(positions, prepend=-1) - 1
    parameter = _best_parameter(gaps)
    quotients = gaps >> parameter
    ends = np.cumsum(quotients + 1) - 1
    unary = np.ones(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 0
    remainders = (gaps[:, None] >> np.arange(parameter)) & 1
    coded = packed_bits(unary)
    return bytes([parameter]) + varint(len(coded)) + packed_bits(remainders.ravel()) + coded


def decode(reader: Reader, *, count: int, span: int) -> I64:
    """`count` >= 1 strictly ascending positions in [0, span).

    Raises:
        WireError: the stream is short, is not canonical, or leaves [0, span).
    """
    (parameter,) = reader.unpack("<B")
    if parameter > MAX_PARAMETER:
        raise WireError("range", f"Rice parameter {parameter} is over {MAX_PARAMETER}")
    # A terminator bit per entry and (span >> b) further ones at most: nothing larger is read.
    unary_bytes = reader.varint(limit=(count + (span >> parameter) + 7) // 8)
    if 8 * unary_bytes < count:
        raise WireError("range", f"{unary_bytes} bytes cannot hold {count} unary codes")
    remainders = reader.bits(count * parameter).reshape(count, parameter)
    unary = np.unpackbits(np.frombuffer(reader.take(unary_bytes), np.uint8), bitorder="little")
    ends = np.flatnonzero(unary == 0)[:count]
    if ends.size < count or int(ends[-1]) // 8 != unary_bytes - 1:
        raise WireError("range", f"the unary stream does not hold exactly {count} codes")
    if unary[int(ends[-1]) + 1 :].any():
        raise WireError("trailing", "padding bits are not zero")
    quotients = np.diff(ends, prepend=-1) - 1
    if int(quotients.max()) > span >> parameter:  # also keeps the sums below far from 2^63
        raise WireError("range", "a gap leaves the frame's range")
    weights = np.left_shift(1, np.arange(parameter), dtype=np.int64)
    gaps = (quotients << parameter) + remainders.astype(np.int64) @ weights
    positions: I64 = np.cumsum(gaps + 1) - 1
    if int(positions[-1]) >= span:
        raise WireError("range", f"position {positions[-1]} is outside [0, {span})")
    return positions


def _best_parameter(gaps: I64) -> int:
    """The parameter with the fewest bits, looked for around floor(log2(mean * ln 2))."""
    mean = float(gaps.mean())
    guess = max(0, math.floor(math.log2(mean * math.log(2)))) if mean * math.log(2) >= 1 else 0
    candidates = range(max(0, guess - 2), min(MAX_PARAMETER, guess + 2) + 1)
    return min(candidates, key=lambda b: int((gaps >> b).sum()) + b * gaps.size)
