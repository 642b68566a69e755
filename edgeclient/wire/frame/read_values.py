"""Reading the values of a frame: what stands before the pool, and what stands behind it (FORMAT.md, section 3.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from edgeclient.compress.arrays import F32, I64, U8, Bools
from edgeclient.compress.quantise import SMALLEST_STEP
from edgeclient.compress.update import (
    CENTROID_LEVELS,
    MAX_LEVEL,
    Centroids,
    FloatValues,
    GridValues,
    HalfValues,
    SignValues,
    StepValues,
    Values,
)
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import codes
from edgeclient.wire.frame.positions import read_code
from edgeclient.wire.frame.write_values import BFLOAT16, FLOAT32, INT4, INT8, ROW, RUNS, SIGN, STEP, occupied
from edgeclient.wire.limits import MAX_CONTEXT_POSITIONS
from edgeclient.wire.reader import Reader

ReadRow: TypeAlias = Callable[[bytes, int], tuple[Bools, U8]]


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the pool.

    Attributes:
        mode: of the values.
        grid: step, or lowest and step, or magnitude.
        form: of a step grid.
        sets: what to read in the pool.
        row: signs and levels, where one row of the context coder holds them.
    """

    mode: int
    grid: tuple[np.float32, ...] = ()
    form: int = 0
    sets: tuple[codes.Set, ...] = ()
    row: tuple[Bools, U8] | None = None


def read_head(reader: Reader, value_mode: int, plain: int, positions: int, read_row: ReadRow) -> Head:
    """What stands before the pool, for `plain` entries that have signs and levels here.

    Args:
        reader: at the head.
        value_mode: of the frame header.
        plain: entries whose signs and levels are not in a stream.
        positions: what the context coder has to go through already.
        read_row: decodes one row.

    Raises:
        WireError: unknown mode, a grid that cannot be, or a row that is too long.
    """
    if value_mode in {FLOAT32, BFLOAT16}:
        return Head(value_mode)
    if value_mode in {INT8, INT4}:
        lowest, step = _bfloat16(reader, SMALLEST_STEP), _bfloat16(reader, np.float32(0))
        reader.mark("values: grid")
        return Head(value_mode, (lowest, step))
    if value_mode == SIGN:
        magnitude = _bfloat16(reader, SMALLEST_STEP)
        reader.mark("values: grid")
        return Head(value_mode, (magnitude,))
    if value_mode != STEP:
        raise WireError("kind", f"value mode {value_mode} is unknown")
    grid = (_bfloat16(reader, SMALLEST_STEP),)
    (form,) = reader.unpack("<B")
    if form > RUNS | ROW or (form & ROW and not plain):
        raise WireError("flags", f"reserved bits are set in the form of a grid: {form:#04x}")
    reader.mark("values: grid")
    if form & ROW:
        if positions + plain > MAX_CONTEXT_POSITIONS:
            raise WireError("too-large", f"over {MAX_CONTEXT_POSITIONS} positions for the context coder")
        row = read_row(reader.take(reader.varint(limit=reader.left)), plain)
        reader.mark("values: row")
        return Head(value_mode, grid, form, row=row)
    sets, span = [], plain
    for _ in range(MAX_LEVEL if plain else 0):
        members = reader.varint(limit=span)
        if members == 0:
            break
        sets.append(codes.Set(members, span, read_code(reader)[1]))
        span = members
    reader.mark("values: levels")
    return Head(value_mode, grid, form, tuple(sets))


def read_tail(reader: Reader, head: Head, pooled: list[I64], plain: Bools, negative: Bools, levels: U8) -> Values:
    """The values, in coordinate order.

    Args:
        reader: behind the pool and the streams.
        head: what stood before them.
        pooled: the sets of the head.
        plain: (k,) entries whose signs and levels are here.
        negative: (k,) signs from streams; completed in place.
        levels: (k,) levels from streams; completed in place.

    Raises:
        WireError: a number that is not finite or zero, or a stream that is short.
    """
    if head.mode in {FLOAT32, BFLOAT16, INT8, INT4}:
        if negative.any() or levels.any():
            raise WireError("range", "a stream holds signs or levels that belong to the values")
        made = _read_numbers(reader, head, plain.size)
        reader.mark("values: numbers")
        return made
    if head.mode == SIGN:
        if levels.any():
            raise WireError("range", "a stream holds levels where there are none")
        negative[plain] = reader.bits(int(np.count_nonzero(plain)))
        reader.mark("values: signs")
        return SignValues(head.grid[0], negative)
    if head.row is not None:
        negative[plain], levels[plain] = head.row
    else:
        count = int(np.count_nonzero(plain))
        own = np.zeros(count, np.uint8)
        above = np.arange(count)
        for members in pooled:
            above = above[members]
            own[above] += 1
        levels[plain] = own
        negative[plain] = reader.bits(count)
        reader.mark("values: signs")
    made = _read_centroids(reader, head, negative, levels)
    reader.mark("values: centroids")
    return made


def _read_numbers(reader: Reader, head: Head, count: int) -> Values:
    if head.mode == FLOAT32:
        floats = np.frombuffer(reader.take(4 * count), "<f4").astype(np.float32)
        return FloatValues(_checked(floats))
    if head.mode == BFLOAT16:
        halves = np.frombuffer(reader.take(2 * count), "<u2").astype(np.uint32) << 16
        return HalfValues(_checked(halves.view(np.float32)))
    bits = 8 if head.mode == INT8 else 4
    symbols_ = np.frombuffer(reader.take((bits * count + 7) // 8), np.uint8)
    if bits == 4:
        symbols_ = np.stack([symbols_ & 15, symbols_ >> 4], axis=1).ravel()
        if symbols_[count:].any():
            raise WireError("trailing", "padding bits are not zero")
        symbols_ = symbols_[:count]
    sign = 1 << (bits - 1)
    return GridValues(bits, head.grid[0], head.grid[1], (symbols_ & sign) != 0, symbols_ & np.uint8(sign - 1))


def _read_centroids(reader: Reader, head: Head, negative: Bools, levels: U8) -> StepValues:
    threshold = head.grid[0]
    if not head.form & RUNS:
        return StepValues(threshold, _three(reader, threshold, levels), negative, levels)
    number = reader.varint(limit=levels.size)
    counts, left = [], levels.size
    for _ in range(number - 1):
        counts.append(reader.varint(limit=left))
        left -= counts[-1]
    counts.append(left)
    if number < 1 or min(counts) < 1:
        raise WireError("range", "a run without entries")
    runs, at = [], 0
    for count in counts:
        runs.append((count, _three(reader, threshold, levels[at : at + count])))
        at += count
    return StepValues(threshold, (np.float32(0),) * 3, negative, levels, tuple(runs))


def _three(reader: Reader, threshold: np.float32, levels: U8) -> Centroids:
    centroids = [np.float32(0)] * CENTROID_LEVELS
    for level in occupied(levels):
        centroids[level] = _bfloat16(reader, threshold)
    first, second, third = centroids
    return first, second, third


def _checked(floats: F32) -> F32:
    if not np.isfinite(floats).all() or not floats.all():
        raise WireError("value", "a value is NaN, infinite or zero")
    return floats


def _bfloat16(reader: Reader, least: np.float32) -> np.float32:
    (bits,) = reader.unpack("<H")
    number = np.uint32(bits << 16).view(np.float32)
    if not np.isfinite(number) or number < least or bits >> 15:
        raise WireError("value", f"a step or magnitude of {number}, at least {least} is allowed")
    return number
