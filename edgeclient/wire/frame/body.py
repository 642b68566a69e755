"""The entries of a frame, coded tensor by tensor (FORMAT.md, sections 3.2 to 3.4)."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import I64, U8, Bools
from edgeclient.compress.update import SparseUpdate, Values
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import codes, context, positions, read_values, rice, write_values
from edgeclient.wire.frame.budget import Budget, level_bits
from edgeclient.wire.frame.header import TENSORS, Header
from edgeclient.wire.frame.matrix import Entries, coordinates, laid_out
from edgeclient.wire.frame.positions import CONTEXT, Range, Segment, Tensors
from edgeclient.wire.reader import Reader

# Where nearly all coordinates are sent, positions and signs together took .5 bits an entry (1-bit updates of a device
# with two classes). Bounds what a reader allocates.
ENTRIES_PER_BYTE: Final = 24


@dataclass(frozen=True, slots=True)
class Body:
    """An encoded body, with the flags that it asks for and the coordinates first..first + span - 1 that it covers."""

    flags: int
    first: int
    span: int
    content: bytes


def encode_body(update: SparseUpdate, first: int, span: int, tensors: Tensors | None, accel: Accel) -> Body:
    """The entries of an update, all of which lie in first..first + span - 1, in the fewest bytes that are found."""
    ranges = [Range(first, span)]
    if tensors is not None:
        ranges = positions.touched(first, span, tensors)
    made = _encode_body(update, ranges, Range(first, span), Budget(accel, update.size))
    if update.indices.size <= ENTRIES_PER_BYTE * len(made.content):
        return made
    return _encode_body(update, ranges, Range(first, span), Budget(accel, update.size, left=0))


def _encode_body(update: SparseUpdate, ranges: list[Range], everything: Range, budget: Budget) -> Body:
    segments = _choose(update, ranges, everything, budget)
    if not segments[0].range.columns:
        ranges = [everything]
    plain = np.repeat([each.mode != CONTEXT for each in segments], [each.count for each in segments])
    coded = write_values.encode(update.values, plain, budget.row)
    sets = positions.pool(segments, update.indices) + coded.sets
    streams = b"".join(each.stream for each in segments)
    flags = coded.mode << 4 | (TENSORS if ranges[0].columns else 0)
    pool = rice.encode(sets, accel=budget.accel)
    content = positions.head(segments, ranges) + coded.head + pool + streams + coded.tail
    return Body(flags, everything.first, everything.span, content)


def _choose(update: SparseUpdate, ranges: list[Range], everything: Range, budget: Budget) -> list[Segment]:
    """One set of positions over the whole range, or one for each tensor."""
    indices, symbols = update.indices, write_values.symbols(update.values)
    one, one_bits = positions.listed(indices, everything)
    if not ranges[0].columns:
        return [one]
    # A stream of positions alone, where most coordinates are sent: of 4-bit updates 7 % less in 20 times the time.
    worth = symbols is not None or 2 * indices.size <= everything.span
    ends = np.searchsorted(indices, [each.first + each.span for each in ranges])
    before = Entries()
    segments, bits, at = [], 0, 0
    for each, end in zip(ranges, ends.tolist(), strict=True):
        if end > at:
            part = slice(at, end)
            segment, cost = positions.listed(indices[part], each)
            if worth:
                segment = _streamed(segment, cost, indices[part], symbols, part, budget, before) or segment
            segments.append(segment)
            streamed = segments[-1].mode == CONTEXT
            bits += 8 * segments[-1].length - _value_bits(symbols, part) if streamed else cost
            before.add(indices[part], each)
        at = end
    overhead = len(positions.head(segments, ranges)) - len(positions.head([one], [everything]))
    return segments if bits + 8 * overhead < one_bits else [one]


def _streamed(
    segment: Segment,
    bits: int,
    indices: I64,
    symbols: tuple[Bools, U8] | None,
    part: slice,
    budget: Budget,
    before: Entries,
) -> Segment | None:
    """The segment as a stream of the context coder, if that is shorter."""
    within = segment.range
    offsets, order = laid_out(indices, within)
    rows = int(offsets[-1]) // within.columns + 1
    if not budget.affords(segment.count, rows * within.columns):
        return None
    negative, levels = (symbols[0][part][order], symbols[1][part][order]) if symbols else _nothing(segment.count)
    activity = before.activity(within, rows)
    stream = context.encode(rows, within.columns, offsets, negative, levels, activity, accel=budget.engine())
    if 8 * len(stream) >= bits + _value_bits(symbols, part):
        return None
    return Segment(within, CONTEXT, segment.count, rows=rows, length=len(stream), stream=stream)


def _value_bits(symbols: tuple[Bools, U8] | None, part: slice) -> int:
    return level_bits(symbols[1][part]) if symbols else 0


def _nothing(count: int) -> tuple[Bools, U8]:
    return np.zeros(count, np.bool_), np.zeros(count, np.uint8)


def decode_entries(reader: Reader, header: Header, most: int, tensors: Tensors | None, accel: Accel) -> SparseUpdate:
    """What lies between header and checksum: `most` entries at most.

    Raises:
        WireError: anything that FORMAT.md does not allow; "layout", if its tensors are needed and not given.
    """
    ranges = [Range(header.first, header.span)]
    if header.flags & TENSORS:
        if tensors is None or sum(rows * columns for rows, columns in tensors) != header.size:
            raise WireError("layout", f"{header.size} parameters by tensor, of another layout than is known here")
        ranges = positions.touched(header.first, header.span, tensors)
    segments = positions.read_head(reader, ranges, most)
    plain = np.repeat([each.mode != CONTEXT for each in segments], [each.count for each in segments])
    indices, decoded = _read_entries(reader, header, segments, plain, accel)
    reader.finish()
    if header.parts > 1 and (int(indices[0]) != header.first or int(indices[-1]) != header.first + header.span - 1):
        raise WireError("range", f"entries from {indices[0]} to {indices[-1]} do not fill the range of the part")
    return SparseUpdate(header.size, indices, decoded)


def _read_entries(
    reader: Reader, header: Header, segments: list[Segment], plain: Bools, accel: Accel
) -> tuple[I64, Values]:
    streamed = sum(each.rows * each.range.columns for each in segments)

    def read_row(data: bytes, columns: int) -> tuple[Bools, U8]:
        _, negative, levels = context.decode(data, 1, columns, columns, accel=accel)
        return negative, levels

    head = read_values.read_head(reader, header.flags >> 4, int(np.count_nonzero(plain)), streamed, read_row)
    sets = positions.sets(segments)
    pooled = rice.decode(reader, [*sets, *head.sets], accel=accel)
    reader.mark_shares(
        lambda: {
            "positions: pool": sum(map(codes.bits, pooled[: len(sets)], [each.code for each in sets])),
            "values: pool": sum(map(codes.bits, pooled[len(sets) :], [each.code for each in head.sets])),
        }
    )
    segments = positions.read_streams(reader, segments)
    negative, levels = _nothing(plain.size)
    before = Entries() if header.flags & TENSORS else None
    waiting, parts, at = iter(pooled), [], 0
    for each in segments:
        if each.mode == CONTEXT:
            activity = before.activity(each.range, each.rows) if before is not None else None
            offsets, signs, heights = context.decode(
                each.stream, each.rows, each.range.columns, each.count, activity, accel=accel
            )
            placed, order = coordinates(offsets, each.range)
            parts.append(placed)
            negative[at : at + each.count], levels[at : at + each.count] = signs[order], heights[order]
        else:
            parts.append(positions.indices(each, next(waiting) if each.pooled else np.empty(0, np.int64)))
        if before is not None:
            before.add(parts[-1], each.range)
        at += each.count
    indices = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return indices, read_values.read_tail(reader, head, pooled[len(sets) :], plain, negative, levels)
