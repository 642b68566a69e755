"""The numba twin of the NumPy definition in `rice.py`: the same bytes, a few nanoseconds an entry.

Bit streams are written and read through 64-bit words, least significant bit first, so the host must be
little-endian. Quotients are found by the lowest clear bit of a word, which costs the same whatever their length.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeclient.compress._jit_numba import njit
from edgeclient.compress.arrays import I64, U64
from edgeclient.wire.frame.codes import Code, Set

if sys.byteorder != "little":
    raise ImportError("words of bits are read as they lie in memory: little-endian")
_WORD = np.uint64(64)
_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
# The place of the only set bit of a word, by multiplication with a de Bruijn sequence.
_SEQUENCE = np.uint64(0x03F79D71B4CB0A89)
_PLACE = np.zeros(64, np.int64)
for _i in range(64):
    _PLACE[(int(_SEQUENCE) << _i & (1 << 64) - 1) >> 58] = _i


@njit(inline="always")
def _field(words: U64, at: int, width: int) -> Any:
    """`width` <= 32 bits from bit `at`; the words reach one beyond the last bit."""
    word, shift = at >> 6, np.uint64(at & 63)
    low = words[word] >> shift
    high = (words[word + 1] << _ONE) << (np.uint64(63) - shift)
    return np.int64((low | high) & ((_ONE << np.uint64(width)) - _ONE))


@njit()
def _write(
    positions: I64, bits: int, thirds: bool, fixed: U64, unary: U64, third: U64, at: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Append a set behind the bit offsets `at`; the streams hold zeros behind them, and one bits end quotients."""
    at_fixed, at_unary, at_third = at
    width = bits + (1 if thirds else 0)
    mask = (1 << bits) - 1
    word_f, word_u = at_fixed >> 6, at_unary >> 6
    fill = at_fixed & 63
    packed, ends = fixed[word_f], unary[word_u]
    last = -1
    for i in range(positions.size):
        position = positions[i]
        gap = position - last - 1
        last = position
        left = gap >> bits
        low = gap & mask
        if thirds:
            quotient = left // 3
            part = left - 3 * quotient
            left = quotient
            if part:
                low |= 1 << bits
                third[at_third >> 6] |= np.uint64(part - 1) << np.uint64(at_third & 63)
                at_third += 1
        packed |= np.uint64(low) << np.uint64(fill)
        fill += width
        if fill >= 64:
            fixed[word_f] = packed
            word_f += 1
            fill -= 64
            packed = np.uint64(low) >> np.uint64(width - fill)
        at_unary += left
        word = at_unary >> 6
        if word != word_u:
            unary[word_u] = ends
            word_u = word
            ends = np.uint64(0)
        ends |= _ONE << np.uint64(at_unary & 63)
        at_unary += 1
    fixed[word_f] = packed
    unary[word_u] |= ends
    return (word_f << 6) + fill, at_unary, at_third


@njit()
def _unary_bits(positions: I64, bits: int, thirds: bool) -> int:
    """Bits of the quotients of a set."""
    total, last = positions.size, -1
    for i in range(positions.size):
        left = (positions[i] - last - 1) >> bits
        total += left // 3 if thirds else left
        last = positions[i]
    return total


@njit()
def _last_end(unary: U64, count: Any) -> Any:
    """Bit offset of the `count`-th zero; -1 if there are fewer."""
    for word in range(unary.size):
        free = ~unary[word]
        # Zeros of the word, the usual way.
        x = free - ((free >> _ONE) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        here = np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
        if here < count:
            count -= here
            continue
        for _ in range(count - 1):
            free &= free - _ONE
        return word * 64 + _PLACE[((free & (~free + _ONE)) * _SEQUENCE) >> np.uint64(58)]
    return -1


@njit()
def _marked(fixed: U64, at: int, count: int, bits: int) -> Any:
    """How many entries of a set have a bit in the stream of thirds."""
    found = np.int64(0)
    for i in range(count):
        place = at + i * (bits + 1) + bits
        found += np.int64((fixed[place >> 6] >> np.uint64(place & 63)) & _ONE)
    return found


@njit()
def _read(
    positions: I64, bits: int, thirds: bool, span: int, fixed: U64, unary: U64, third: U64, at: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Fill `positions` from the bit offsets `at`; those beyond the span are put at the span."""
    at_fixed, at_unary, at_third = at
    width = bits + (1 if thirds else 0)
    word = at_unary >> 6
    free = ~unary[word] & (_ALL << np.uint64(at_unary & 63))
    position = -1
    for i in range(positions.size):
        while free == 0:
            word += 1
            free = ~unary[word]
        end = (word << 6) + _PLACE[((free & (~free + _ONE)) * _SEQUENCE) >> np.uint64(58)]
        free &= free - _ONE
        left = end - at_unary
        at_unary = end + 1
        low = _field(fixed, at_fixed, width)
        at_fixed += width
        if thirds:
            left *= 3
            if low >> bits:
                low -= 1 << bits
                left += 1 + np.int64((third[at_third >> 6] >> np.uint64(at_third & 63)) & _ONE)
                at_third += 1
        position = min(position + (left << bits) + low + 1, span)
        positions[i] = position
    return at_fixed, at_unary, at_third


def _words(data: bytes) -> U64:
    """The bytes as 64-bit words, ones behind their end (no quotient ends there), and at least two more words."""
    padded = data + b"\xff" * (-len(data) % 8 + 16)
    return np.frombuffer(padded, np.uint64)


def encode(sets: Sequence[tuple[I64, "Code"]]) -> tuple[bytes, bytes, bytes]:
    """Fixed bits, quotients and thirds of a pool."""
    sets = [(np.ascontiguousarray(positions, np.int64), code) for positions, code in sets]
    fixed_bits = sum(positions.size * (code.bits + code.thirds) for positions, code in sets)
    unary_bits = sum(_unary_bits(positions, code.bits, code.thirds) for positions, code in sets)
    most_thirds = sum(positions.size for positions, code in sets if code.thirds)
    fixed, unary, third = (np.zeros(bits // 64 + 2, np.uint64) for bits in (fixed_bits, unary_bits, most_thirds))
    at = 0, 0, 0
    for positions, code in sets:
        at = _write(positions, code.bits, code.thirds, fixed, unary, third, at)
    np.invert(unary, out=unary)
    quotients = bytearray(_cut(unary, at[1]))
    quotients[-1] &= 0xFF >> (-at[1] % 8)
    return _cut(fixed, at[0]), bytes(quotients), _cut(third, at[2])


def _cut(words: U64, bits: int) -> bytes:
    return words.view(np.uint8)[: (bits + 7) // 8].tobytes()


def survey(unary: bytes, fixed: bytes, sets: Sequence["Set"], count: int) -> tuple[int, int]:
    """Where the last quotient ends, -1 if it does not; how many thirds follow."""
    words: Any = _words(fixed)
    marked, at = 0, 0
    for each in sets:
        if each.code.thirds:
            marked += _marked(words, at, each.count, each.code.bits)
        at += each.count * (each.code.bits + each.code.thirds)
    return _last_end(_words(unary), count), marked


def decode(fixed: bytes, unary: bytes, thirds: bytes, sets: Sequence["Set"]) -> list[I64]:
    """Positions of each set of a pool that `survey` has found whole."""
    words = _words(fixed), _words(unary), _words(thirds)
    made = []
    at = 0, 0, 0
    for each in sets:
        positions = np.empty(each.count, np.int64)
        at = _read(positions, each.code.bits, each.code.thirds, each.span, *words, at)
        made.append(positions)
    return made
