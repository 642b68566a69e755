"""Sets of positions as Rice codes of their gaps, several sets in one pool of bits (FORMAT.md, section 3.3).

Rice 1979. A quotient counts whole steps of 2^b, or of 3·2^b: with both at hand the code stays within 0.8 % of the floor
log2 C(n,k) on uniform masks, where powers of two alone are up to 1.1 % over it. Remainders and quotients are
separate streams: the same bits, but both directions are a few sweeps. `_rice_numba.py` holds the twin, which makes
and reads the same bytes.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeclient.compress.accel import Accel, Kernel
from edgeclient.compress.arrays import I64, U8
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame.codes import Code, Set
from edgeclient.wire.reader import Reader, packed_bits, varint

KERNEL: Final = Kernel("edgeclient.wire.frame._rice_numba", numba_from=1_000_000)


def encode(sets: Sequence[tuple[I64, Code]], *, accel: Accel = "auto") -> bytes:
    """The pool of some sets, each of at least one strictly ascending position >= 0; nothing for no sets.

    Example:
        >>> wanted = np.array([0, 5, 6])
        >>> decode(Reader(encode([(wanted, Code(1))])), [Set(3, 7, Code(1))])
        [array([0, 5, 6])]
    """
    if not sets:
        return b""
    twin = KERNEL.twin(sum(positions.size for positions, _ in sets), accel)
    if twin is not None:
        streams: tuple[bytes, bytes, bytes] = twin.encode(sets)
    else:
        fixed, unary, thirds = _encode(sets)
        streams = packed_bits(fixed), packed_bits(unary), packed_bits(thirds)
    return varint(len(streams[1])) + b"".join(streams)


def _encode(sets: Sequence[tuple[I64, Code]]) -> tuple[U8, U8, U8]:
    fixed, unary, thirds = [], [], []
    for positions, code in sets:
        gaps = np.diff(positions, prepend=-1) - 1
        left = gaps >> code.bits
        quotients = left // 3 if code.thirds else left
        width = code.bits + code.thirds
        low = np.empty((gaps.size, width), np.uint8)
        for bit in range(code.bits):
            low[:, bit] = (gaps >> bit) & 1
        if code.thirds:
            third = left - 3 * quotients
            low[:, code.bits] = third > 0
            thirds.append((third[third > 0] - 1).astype(np.uint8))
        ends = np.cumsum(quotients + 1) - 1
        stops = np.ones(int(ends[-1]) + 1, np.uint8)
        stops[ends] = 0
        fixed.append(low.ravel())
        unary.append(stops)
    nothing = [np.empty(0, np.uint8)]
    return np.concatenate(fixed), np.concatenate(unary), np.concatenate(thirds or nothing)


def decode(reader: Reader, sets: Sequence[Set], *, accel: Accel = "auto") -> list[I64]:
    """The positions of each set; nothing is read for no sets.

    Raises:
        WireError: the pool is short, is not canonical, or a position leaves its span.
    """
    if not sets:
        return []
    count = sum(each.count for each in sets)
    # A terminator per entry, and span / step further bits at most: nothing larger is read.
    longest = sum(each.count + each.span // each.code.step for each in sets)
    size = reader.varint(limit=(longest + 7) // 8)
    if 8 * size < count:
        raise WireError("range", f"{size} bytes cannot hold {count} unary codes")
    fixed_bits = sum(each.count * (each.code.bits + each.code.thirds) for each in sets)
    fixed = reader.take((fixed_bits + 7) // 8)
    unary = reader.take(size)
    twin = KERNEL.twin(count, accel)
    if twin is not None:
        last, third_bits = twin.survey(unary, fixed, sets, count)
    else:
        stops = np.unpackbits(np.frombuffer(unary, np.uint8), bitorder="little")
        ends = np.flatnonzero(stops == 0)[:count]
        last = int(ends[-1]) if ends.size == count else -1
        low = np.unpackbits(np.frombuffer(fixed, np.uint8), bitorder="little")
        third_bits = _third_bits(low, sets)
    if last < 0 or last // 8 != size - 1:
        raise WireError("range", f"the quotients do not hold exactly {count} codes")
    if unary[-1] >> (last % 8 + 1) or (fixed_bits % 8 and fixed[-1] >> fixed_bits % 8):
        raise WireError("trailing", "padding bits are not zero")
    thirds = reader.take((third_bits + 7) // 8)
    if third_bits % 8 and thirds[-1] >> third_bits % 8:
        raise WireError("trailing", "padding bits are not zero")
    if twin is not None:
        made: list[I64] = twin.decode(fixed, unary, thirds, sets)
    else:
        made = _decode(low, ends, np.unpackbits(np.frombuffer(thirds, np.uint8), bitorder="little"), sets)
    for positions, each in zip(made, sets, strict=True):
        # So many gaps of at most twice the span could wrap around.
        wraps = each.count > (1 << 61) // each.span and bool((np.diff(positions) <= 0).any())
        if wraps or int(positions[-1]) >= each.span:
            raise WireError("range", f"a position is outside [0, {each.span})")
    return made


def _third_bits(low: U8, sets: Sequence[Set]) -> int:
    found, at = 0, 0
    for each in sets:
        width = each.code.bits + each.code.thirds
        if each.code.thirds:
            found += int(np.count_nonzero(low[at + each.code.bits : at + each.count * width : width]))
        at += each.count * width
    return found


def _decode(low: U8, ends: I64, thirds: U8, sets: Sequence[Set]) -> list[I64]:
    quotients = np.diff(ends, prepend=-1) - 1
    made, rank, at, used = [], 0, 0, 0
    for each in sets:
        bits, width = each.code.bits, each.code.bits + each.code.thirds
        fields = low[at : at + each.count * width].reshape(each.count, width)
        left = np.minimum(quotients[rank : rank + each.count], each.span // each.code.step + 1)
        if each.code.thirds:
            third: I64 = fields[:, bits].astype(np.int64)
            marked = np.flatnonzero(third)
            third[marked] += thirds[used : used + marked.size]
            used += marked.size
            left = 3 * left + third
        gaps = left << bits
        for bit in range(bits):
            gaps |= fields[:, bit].astype(np.int64) << bit
        made.append(np.cumsum(gaps + 1) - 1)
        rank += each.count
        at += each.count * width
    return made
