"""Positions, signs and levels of one tensor by a context-mixing binary range coder: CONTEXT.md is normative.

Large entries of a real update sit in few rows and columns, and in those that moved before: 5.3 bits an entry for
Fashion-MNIST updates at density 1 %, where Rice codes, signs and levels cost 9. What `activity` knows of the tensors
before makes next-word updates 4 % smaller at density 1 %, others up to 1 %.
"""

from typing import Final, TypeAlias

import numpy as np

from edgeclient.compress.accel import Accel, Kernel
from edgeclient.compress.arrays import I64, U8, Bools
from edgeclient.compress.update import MAX_LEVEL
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame.context_model import GRADES, State, code, start

KERNEL: Final = Kernel("edgeclient.wire.frame._context_numba", numba_from=100_000)
# Some 8 s of work; up to here no sum of weights can leave 63 bits.
MAX_POSITIONS: Final = 1 << 27
# Grades 0 to 7 of each row and of each column: see `grades`.
Activity: TypeAlias = tuple[U8, U8]


def encode(
    rows: int,
    columns: int,
    indices: I64,
    negative: Bools,
    levels: U8,
    activity: Activity | None = None,
    *,
    accel: Accel = "auto",
) -> bytes:
    """The entries of one tensor as bytes.

    Args:
        rows: the tensor seen as a matrix; a vector has one row.
        columns: its last dimension.
        indices: (count,) strictly ascending flat positions, row by row.
        negative: (count,) signs.
        levels: (count,) 0 to 12.
        activity: (rows,) and (columns,) 0 to 7, which the decoder has too; with it, even all zero, the signs of
            columns are tied; without it nothing is known beside the tensor, as in a row of values.
        accel: "numpy" is the definition in plain Python, "numba" its compiled twin; "auto" takes the
            twin where it is worth it.

    Example:
        >>> data = encode(2, 3, np.array([1, 4]), np.array([True, False]), np.array([0, 2], np.uint8), accel="numpy")
        >>> decode(data, 2, 3, 2, accel="numpy")
        (array([1, 4]), array([ True, False]), array([0, 2], dtype=uint8))
    """
    total, count = rows * columns, indices.size
    if not (negative.size == levels.size == count <= total <= MAX_POSITIONS) or (
        count and int(levels.max()) > MAX_LEVEL
    ):
        raise ValueError(f"{count} entries, {negative.size} signs and {levels.size} levels for {total} positions")
    if count and (int(indices[0]) < 0 or int(indices[-1]) >= total or bool((np.diff(indices) <= 0).any())):
        raise ValueError("positions must ascend and lie inside the tensor")
    active = _checked(activity, rows, columns)
    entries = indices.astype(np.int64)
    values = negative.astype(np.int64) * 16 + levels
    size = 64 + 4 * count
    while count:
        data, shape = np.zeros(size, np.uint8), (rows, columns, count)
        state = start(data, size, shape, decoding=False, known=active.size > 0, ties=activity is not None)
        _run(state, rows, columns, entries, values, active, accel)
        _, low, span, _, at, _ = state.coder.tolist()
        if at <= size:
            last = _end(low, span)
            body = int.from_bytes(state.data[:at].tobytes(), "big") + (last >> 32)
            return body.to_bytes(at, "big") + _stripped(last)
        size = at + 64  # a stream that the model did not expect at all
    return b""


def decode(
    data: bytes, rows: int, columns: int, count: int, activity: Activity | None = None, *, accel: Accel = "auto"
) -> tuple[I64, Bools, U8]:
    """Positions, signs and levels of `count` entries, as `encode` took them.

    Work and memory are bounded by rows · columns and `count`, which the caller has checked against its limits.
    Whatever comes out, `encode` makes the same bytes of it again.

    Raises:
        WireError: "truncated", "trailing", or "range" where no encoder writes such bytes.
    """
    total = rows * columns
    if not 0 <= count <= total <= MAX_POSITIONS:
        raise WireError("range", f"{count} entries among {total} positions")
    if data[:4] == b"\xff\xff\xff\xff":
        raise WireError("range", "the stream begins as none can")
    active = _checked(activity, rows, columns)
    entries = np.full(count, -1, np.int64)
    values = np.zeros(count, np.int64)
    at = 4
    last = 0
    if count:
        source = np.frombuffer(data + bytes(4), np.uint8).copy()
        shape = rows, columns, count
        state = start(source, len(data), shape, decoding=True, known=active.size > 0, ties=activity is not None)
        if _run(state, rows, columns, entries, values, active, accel) != count:
            raise WireError("truncated", f"{len(data)} bytes end before {count} entries do")
        _, _, span, code_, at, _ = state.coder.tolist()
        window = int.from_bytes((data + bytes(8))[at - 4 : at], "big")
        last = _end((window - code_) & 0xFFFFFFFF, span)
    expected = _stripped(last)
    if len(data) > at - 4 + len(expected):
        raise WireError("trailing", f"{len(data)} bytes where {at - 4 + len(expected)} say it all")
    if data[at - 4 :] != expected:
        raise WireError("truncated", "the stream does not end as an encoder ends it")
    return entries, values >= 16, (values & 15).astype(np.uint8)


def grades(counts: I64) -> U8:
    """Bit lengths of counts >= 0, at most 7: how active rows or columns were in tensors before.

    Example:
        >>> grades(np.array([0, 1, 5, 300]))
        array([0, 1, 3, 7], dtype=uint8)
    """
    return np.searchsorted(1 << np.arange(GRADES - 1), counts, side="right").astype(np.uint8)


def _checked(activity: Activity | None, rows: int, columns: int) -> U8:
    """Both sets of grades, or nothing where they say nothing."""
    if activity is None:
        return np.empty(0, np.uint8)
    if (activity[0].size, activity[1].size) != (rows, columns):
        raise ValueError(f"{activity[0].size} and {activity[1].size} grades for positions of {rows} x {columns}")
    both = np.concatenate(activity).astype(np.uint8)
    if int(both.max(initial=0)) >= GRADES:
        raise ValueError(f"grades of positions up to {both.max()}, they are below {GRADES}")
    return both if both.any() else both[:0]


def _end(low: int, span: int) -> int:
    """The number in [low, low + span) that ends in the most zero bytes."""
    for zeros in (32, 24, 16, 8):
        value = (low + (1 << zeros) - 1) >> zeros << zeros
        if value < low + span:
            return value
    return low


def _stripped(last: int) -> bytes:
    return (last & 0xFFFFFFFF).to_bytes(4, "big").rstrip(b"\0")


def _run(state: State, rows: int, columns: int, entries: I64, values: I64, active: U8, accel: Accel) -> int:
    twin = KERNEL.twin(rows * columns, accel)
    if twin is not None:
        return int(twin.code(state, rows, columns, entries, values, active))
    lists = State(*(each.tolist() for each in state))
    positions, bits = entries.tolist(), values.tolist()
    done = code(lists, rows, columns, positions, bits, active.tolist())
    state.coder[:], state.data[:], entries[:], values[:] = lists.coder, lists.data, positions, bits
    return done
