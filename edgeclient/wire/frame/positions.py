"""Where the entries of a frame are: tensor by tensor, each in its cheapest way (FORMAT.md, section 3.2).

A tensor is seen as rows × columns. Rice codes of the gaps suit any mask, the context coder one whose rows or columns
differ (it holds signs and levels as well), and where most entries are sent the absent ones are listed. A writer that
does not know the tensors takes the whole range for one.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final, TypeAlias

import numpy as np

from edgeclient.compress.arrays import I64
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import codes
from edgeclient.wire.limits import MAX_CONTEXT_POSITIONS
from edgeclient.wire.reader import Reader, packed_bits, varint

# (rows, columns) of every tensor of the flat vector, in its order.
Tensors: TypeAlias = Sequence[tuple[int, int]]

RICE: Final = 0
CONTEXT: Final = 1
DENSE: Final = 2
_NO_CODE: Final = codes.Code(0)


@dataclass(frozen=True, slots=True)
class Range:
    """The coordinates first..first + span - 1 of a tensor, or of the whole vector where `shape` has no numbers.

    Attributes:
        first: the first coordinate.
        span: how many there are.
        begins: coordinate of the tensor's first number.
        shape: rows and columns of the tensor.
        turned: a stream codes the transposed matrix; then the range is the whole tensor.
    """

    first: int
    span: int
    begins: int = 0
    shape: tuple[int, int] = (0, 0)
    turned: bool = False

    @property
    def columns(self) -> int:
        """Columns of the matrix that a stream codes."""
        return self.shape[0 if self.turned else 1]

    @property
    def row(self) -> int:
        """Coordinate where the row of the first coordinate begins."""
        return self.first - (self.first - self.begins) % self.columns


@dataclass(frozen=True, slots=True)
class Segment:
    """The entries of one range.

    Attributes:
        range: where they lie.
        mode: RICE, CONTEXT or DENSE.
        count: how many entries.
        listed: how many positions are in the pool: the entries, or the absent coordinates.
        code: of the positions in the pool.
        rows: of the context coder, from the row where the range begins.
        length: bytes of its stream.
        stream: these bytes; a reader finds them later than the rest.
    """

    range: Range
    mode: int
    count: int
    listed: int = 0
    code: codes.Code = _NO_CODE
    rows: int = 0
    length: int = 0
    stream: bytes = b""

    @property
    def pooled(self) -> bool:
        """Whether positions of it are in the pool."""
        return self.mode != CONTEXT and self.listed > 0


def touched(first: int, span: int, tensors: Tensors) -> list[Range]:
    """What of each tensor lies in first..first + span - 1, for those of which something does.

    Whole tensors of more columns than rows are coded the other way around, since short rows fit the model: ties between
    columns are few and well known.
    """
    bounds = [0, *accumulate(rows * columns for rows, columns in tensors)]
    found = []
    for t in range(bisect_right(bounds, first) - 1, len(tensors)):
        begin, end = max(first, bounds[t]), min(first + span, bounds[t + 1])
        if begin >= first + span:
            break
        if begin < end:
            rows, columns = tensors[t]
            turned = 1 < rows < columns and end - begin == rows * columns
            found.append(Range(begin, end - begin, bounds[t], (rows, columns), turned))
    return found


def listed(entries: I64, within: Range) -> tuple[Segment, int]:
    """The cheaper of entries and absent coordinates, and its bits; all entries are in the range."""
    offsets = entries - within.first
    k = offsets.size
    code, bits = codes.best(offsets)
    if 2 * k <= within.span:
        return Segment(within, RICE, k, k, code), bits
    absent = complement(offsets, within.span)
    if absent.size == 0:
        return Segment(within, DENSE, k), 0
    other, fewer = codes.best(absent)
    if fewer < bits:
        return Segment(within, DENSE, k, absent.size, other), fewer
    return Segment(within, RICE, k, k, code), bits


def complement(offsets: I64, span: int) -> I64:
    """The numbers below `span` that are not among `offsets`."""
    absent = np.ones(span, np.bool_)
    absent[offsets] = False
    return np.flatnonzero(absent)


def pool(segments: Sequence[Segment], entries: I64) -> list[tuple[I64, codes.Code]]:
    """What the segments put into the pool, given the entries of all of them."""
    sets, at = [], 0
    for each in segments:
        if each.pooled:
            offsets = entries[at : at + each.count] - each.range.first
            sets.append((complement(offsets, each.range.span) if each.mode == DENSE else offsets, each.code))
        at += each.count
    return sets


def head(segments: Sequence[Segment], ranges: Sequence[Range]) -> bytes:
    """The directory: which of the ranges are present, and how each of those is coded."""
    parts = []
    if ranges[0].columns:
        present = {each.range for each in segments}
        parts.append(packed_bits(np.array([each in present for each in ranges])))
    for each in segments:
        parts.append(bytes([each.mode << 6 | each.code.thirds << 5 | each.code.bits]))
        parts.append(varint(each.count if each.mode == CONTEXT else each.listed))
        if each.mode == CONTEXT:
            parts.append(varint(each.rows) + varint(each.length))
    return b"".join(parts)


def read_head(reader: Reader, ranges: Sequence[Range], most: int) -> list[Segment]:
    """The directory; `most` bounds the entries.

    Raises:
        WireError: more entries than that, an unknown mode, or counts that do not fit their ranges.
    """
    if ranges[0].columns:
        ranges = [ranges[i] for i in np.flatnonzero(reader.bits(len(ranges))).tolist()]
        reader.mark("positions: presence")
    segments = []
    for each in ranges:
        segments.append(_read_segment(reader, each, most))
        most -= segments[-1].count
    if not segments:
        raise WireError("range", "a frame without entries")
    if sum(each.rows * each.range.columns for each in segments) > MAX_CONTEXT_POSITIONS:
        raise WireError("too-large", f"over {MAX_CONTEXT_POSITIONS} positions for the context coder")
    return segments


def _read_segment(reader: Reader, within: Range, most: int) -> Segment:
    mode, code = read_code(reader, 3)
    reader.mark("positions: mode")
    if mode == CONTEXT and within.columns:
        if code != _NO_CODE:
            raise WireError("flags", "reserved bits are set behind a mode")
        end = within.first + within.span
        rows = -(-(end - within.row) // within.columns)
        made = Segment(
            within, mode,
            count=reader.varint(limit=min(most, within.span)),
            rows=reader.varint(limit=rows),
            length=reader.varint(limit=reader.left),
        )  # fmt: skip
        # Entries cost less than a bit where nearly all are sent, but never nothing.
        if made.count > min(made.rows * within.columns, most):
            raise WireError("range", f"{made.count} entries in {made.rows} rows of {within.columns}")
    elif mode in {RICE, DENSE}:
        number = reader.varint(limit=within.span)
        made = Segment(within, mode, number if mode == RICE else within.span - number, number, code)
        if mode == DENSE and number == 0 and code != _NO_CODE:
            raise WireError("flags", "a code for no positions")
    else:
        raise WireError("kind", f"position mode {mode} does not belong here")
    reader.mark("positions: count")
    if not 1 <= made.count <= most:
        raise WireError("range", f"{made.count} entries where 1 to {most} can be")
    return made


def read_code(reader: Reader, modes: int = 1) -> tuple[int, codes.Code]:
    """A byte of mode (2 bits), thirds (1) and bits (5); WireError("kind") from mode `modes` on."""
    (byte,) = reader.unpack("<B")
    if byte >> 6 >= modes:
        raise WireError("kind", f"position mode {byte >> 6} is unknown")
    return byte >> 6, codes.Code(byte & 31, bool(byte & 32))


def sets(segments: Sequence[Segment]) -> list[codes.Set]:
    """What a reader finds in the pool, for the segments that have something there."""
    return [codes.Set(each.listed, each.range.span, each.code) for each in segments if each.pooled]


def read_streams(reader: Reader, segments: Sequence[Segment]) -> list[Segment]:
    """The segments with their streams."""
    made = [replace(each, stream=reader.take(each.length)) for each in segments]
    reader.mark("positions, signs and levels: context")
    return made


def indices(segment: Segment, pooled: I64) -> I64:
    """The coordinates of a segment's entries, from its set in the pool."""
    offsets = complement(pooled, segment.range.span) if segment.mode == DENSE else pooled
    return offsets + segment.range.first
