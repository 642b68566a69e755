"""Values of a frame: float32, bfloat16, 8 or 4 bits, signs, or levels on a step grid (FORMAT.md, section 3.4).

Levels are nested sets in the pool of positions: which entries are above level 0, which of those above level 1, and so
on. With error feedback nearly all levels are 0, and such a set costs next to nothing; where they are not, the context
coder takes signs and levels as one full row. What it has coded beside positions is not repeated here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from edgeclient.compress.arrays import F32, I64, U8, Bools
from edgeclient.compress.update import (
    CENTROID_LEVELS,
    MAX_LEVEL,
    FloatValues,
    GridValues,
    HalfValues,
    SignValues,
    StepValues,
    Values,
)
from edgeclient.wire.frame import codes
from edgeclient.wire.reader import packed_bits, varint

FLOAT32: Final = 0
STEP: Final = 1
BFLOAT16: Final = 2
INT8: Final = 3
INT4: Final = 4
SIGN: Final = 5
MODES: Final = ("float32", "step", "bfloat16", "int8", "int4", "sign")
RUNS: Final = 1
ROW: Final = 2

# Signs and levels as one row; None where the coder cannot be used, or will hardly save any of so many bits.
WriteRow: TypeAlias = Callable[[Bools, U8, int], bytes | None]


@dataclass(frozen=True, slots=True)
class Coded:
    """Values as bytes before and behind the pool, and the sets in it."""

    mode: int
    head: bytes
    sets: list[tuple[I64, codes.Code]]
    tail: bytes


def mode(values: Values) -> int:
    """The value mode of a frame header."""
    match values:
        case FloatValues():
            return FLOAT32
        case StepValues():
            return STEP
        case HalfValues():
            return BFLOAT16
        case GridValues():
            return INT8 if values.bits == 8 else INT4
        case SignValues():
            return SIGN


def number_bits(values: Values) -> int:
    """What the number of an entry takes behind the streams; 1 where there is a sign, which a stream may hold."""
    match values:
        case FloatValues():
            return 32
        case HalfValues():
            return 16
        case GridValues():
            return values.bits
        case StepValues() | SignValues():
            return 1


def symbols(values: Values) -> tuple[Bools, U8] | None:
    """Signs and levels, as far as the context coder may take them along with the positions."""
    match values:
        case StepValues():
            return values.negative, values.levels
        case SignValues():
            return values.negative, np.zeros(values.negative.size, np.uint8)
        case _:
            return None


def encode(values: Values, plain: Bools, write_row: WriteRow) -> Coded:
    """`plain` (k,) tells which entries have their signs and levels here, and not in a stream of the context coder."""
    match values:
        case FloatValues():
            return Coded(FLOAT32, b"", [], values.values.astype("<f4").tobytes())
        case HalfValues():
            return Coded(BFLOAT16, b"", [], _bfloat16_bytes(values.values))
        case SignValues():
            return Coded(SIGN, _bfloat16_bytes(np.array([values.magnitude])), [], packed_bits(values.negative[plain]))
        case GridValues():
            symbol = values.levels | values.negative.astype(np.uint8) << (values.bits - 1)
            if values.bits == 4:
                even = np.zeros(symbol.size + symbol.size % 2, np.uint8)
                even[: symbol.size] = symbol
                symbol = even[::2] | even[1::2] << 4
            return Coded(mode(values), _bfloat16_bytes(np.array([values.lowest, values.step])), [], symbol.tobytes())
        case StepValues():
            return _encode_step(values, plain, write_row)


def _encode_step(values: StepValues, plain: Bools, write_row: WriteRow) -> Coded:
    negative, levels = values.negative[plain], values.levels[plain]
    sets, described, bits = nested(levels)
    row = write_row(negative, levels, bits + negative.size)
    signs = packed_bits(negative)
    if row is not None and 8 * len(row) < bits + negative.size:
        sets, described, signs = [], varint(len(row)) + row, b""
    else:
        row = None
    form = (RUNS if values.runs else 0) | (ROW if row is not None else 0)
    head = _bfloat16_bytes(np.array([values.threshold])) + bytes([form]) + described
    parts = [signs]
    if values.runs:
        parts.append(varint(len(values.runs)) + b"".join(varint(count) for count, _ in values.runs[:-1]))
    at = 0
    for count, centroids in values.runs or ((values.levels.size, values.centroids),):
        parts.append(_bfloat16_bytes(np.array([centroids[u] for u in occupied(values.levels[at : at + count])])))
        at += count
    return Coded(STEP, head, sets, b"".join(parts))


def nested(levels: U8) -> tuple[list[tuple[I64, codes.Code]], bytes, int]:
    """The sets for u = 1, 2, … of what has level u or more, as ranks within the set before.

    Returns:
        The sets, their description, and about how many bits both take.
    """
    sets, described, above, bits = [], [], levels, 0
    for level in range(1, MAX_LEVEL + 1 if levels.size else 0):
        members = np.flatnonzero(above >= level)
        described.append(varint(members.size))
        if members.size == 0:
            break
        code, cost = codes.best(members)
        described.append(bytes([code.thirds << 5 | code.bits]))
        sets.append((members, code))
        above = above[members]
        bits += cost
    description = b"".join(described)
    return sets, description, bits + 8 * len(description)


def occupied(levels: U8) -> list[int]:
    """Those of the levels 0, 1, 2 that some entry has: the ones with a centroid."""
    return [level for level in range(CENTROID_LEVELS) if (levels == level).any()]


def _bfloat16_bytes(numbers: F32) -> bytes:
    return (numbers.astype(np.float32, copy=False).view(np.uint32) >> 16).astype("<u2").tobytes()
