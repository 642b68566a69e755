"""Values of a version 1 frame: float32, or signs and levels on a step grid (FORMAT.md, sections 4.3 and 4.4).

Levels are nested sets: which entries are above level 0, which of those above level 1, and so on, each
set gap-coded. With error feedback nearly all levels are 0, and such a set costs next to nothing.
"""

import numpy as np

from edgeclient.compress.quantise import SMALLEST_STEP
from edgeclient.compress.update import CENTROID_LEVELS, F32, MAX_LEVEL, U8, FloatValues, StepValues
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import positions1 as positions
from edgeclient.wire.reader import Reader, packed_bits, varint

FLOAT_MODE = 0
STEP_MODE = 1


def mode(values: FloatValues | StepValues) -> int:
    """The value mode byte of the frame header."""
    return FLOAT_MODE if isinstance(values, FloatValues) else STEP_MODE


def encode(values: FloatValues | StepValues) -> bytes:
    """At least one value."""
    if isinstance(values, FloatValues):
        return values.values.astype("<f4").tobytes()
    occupied = [level for level in range(CENTROID_LEVELS) if (values.levels == level).any()]
    centroids = np.array([values.centroids[level] for level in occupied], np.float32)
    # The sets come before the centroids, since they tell which centroids there are.
    step = _bfloat16_bytes(np.array([values.threshold]))
    return step + _nested_sets(values.levels) + _bfloat16_bytes(centroids) + packed_bits(values.negative)


def _nested_sets(levels: U8) -> bytes:
    parts = []
    above = np.arange(levels.size)
    for level in range(1, MAX_LEVEL + 1):
        members = np.flatnonzero(levels[above] >= level)
        parts.append(varint(members.size))
        if members.size == 0:
            break
        parts.append(positions.encode(members))
        above = above[members]
    return b"".join(parts)


def decode(reader: Reader, value_mode: int, count: int) -> FloatValues | StepValues:
    """`count` >= 1 values.

    Raises:
        WireError: unknown mode, a grid that cannot be, or a stream that is short.
    """
    if value_mode == FLOAT_MODE:
        floats = np.frombuffer(reader.take(4 * count), "<f4").astype(np.float32)
        if not np.isfinite(floats).all() or not floats.all():
            raise WireError("value", "a value is NaN, infinite or zero")
        return FloatValues(floats)
    if value_mode != STEP_MODE:
        raise WireError("kind", f"value mode {value_mode} is unknown")
    threshold = _bfloat16(reader)
    if threshold < SMALLEST_STEP:
        raise WireError("value", f"step {threshold} is below 2^-110")
    levels = _levels(reader, count)
    centroids = []
    for level in range(CENTROID_LEVELS):
        occupied = bool((levels == level).any())
        centroid = _bfloat16(reader) if occupied else np.float32(0)
        if occupied and centroid < threshold:
            raise WireError("value", f"centroid {centroid} is below the step {threshold}")
        centroids.append(centroid)
    first, second, third = centroids
    negative = reader.bits(count).astype(np.bool_)
    return StepValues(threshold, (first, second, third), negative, levels)


def _levels(reader: Reader, count: int) -> U8:
    levels = np.zeros(count, np.uint8)
    above = np.arange(count)
    for _ in range(MAX_LEVEL):
        members = reader.varint(limit=above.size)
        if members == 0:
            break
        above = above[positions.decode(reader, count=members, span=above.size)]
        levels[above] += 1
    return levels


def _bfloat16_bytes(numbers: F32) -> bytes:
    return (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()


def _bfloat16(reader: Reader) -> np.float32:
    (bits,) = reader.unpack("<H")
    number = np.uint32(bits << 16).view(np.float32)
    if not np.isfinite(number) or number <= 0:
        raise WireError("value", f"{number} is not a positive finite step or centroid")
    return number
