"""Positions, signs and levels of one tensor by a context-mixing binary range coder.

Large entries of a real update sit in few rows and columns, and in those that moved before. Five to seven predictions
of "is there an entry here?" are mixed as logits (integer logistic mixing, as in Mahoney's paq and lpaq), and an
arithmetic coder spends what the mixed prediction leaves open: 5.3 bits an entry for Fashion-MNIST updates at density
1 %, where Rice codes, signs and levels cost 9. All is integer arithmetic: streams are the same on every CPU.

With `activity` it knows how many entries the tensors before have in related rows and columns, as
words of an embedding are words of the softmax, and units of a layer are inputs of the next. And it learns which columns
tend to have the same sign in a row, since the gradient of a layer has few independent directions. Next-word updates
become 4 % smaller at density 1 %, others up to 1 %.

The rest of this text is normative; `context_model.py` follows it line by line.

Conventions. Numbers are integers that fit 64 signed bits. `a >> b` rounds down, also for negative a; `a // b` is used
for a, b >= 0 and rounds down. bitlen(0) = 0, bitlen(a) = 1 + floor(log2 a). clip(a, b, c) = min(max(a, b), c).
Probabilities are those of a 1, in 2^-28 (ONE = 2^28). Logits are ln(p / (1 - p)) in 1/256, within -3071..3071.
n = rows · columns <= 2^27; position at = row · columns + column; `count` entries; both sides know these, and count >= 1
(no entries: no bytes).

1. Tables
    power(0) = 2^62; power(i+1) = power(i) · 0x4040200AAD55DDF4 >> 62   (more than 64 bits here; 2^62 · e^(i/256))
    squash(i) = 2^28 · power(i) // (power(i) + 2^62) for i = 0..3071; squash(-i) = 2^28 - squash(i)
    stretch(p) = min(3071, the least i in -3071.. with squash(i) >= (p >> 12 << 12) + 2048), for 0 <= p < 2^28
                 where there is none, 3071
    few = min(count, n - count), or 1 if that is 0
    steady(i) = 2^24 // (16(i+1) + 8n // few)    quick(i) = 2^24 // (16(i+1) + n // few)    i capped at 4095
    brisk(i)  = 2^21 // (2(i+1) + 1)             i capped at 255

2. Adaptive probability. A pair (p, seen), seen = 0 at first. After a bit y, with one of the three rates:
    p += ((y << 28) - p) · rate(seen) >> 20, then seen += 1, up to the rate's cap
  Mask contexts use `steady` and begin at P = clip(2^28 · count // n, 2^10, 2^28 - 2^10); signs use `brisk` and begin
  at 2^27; levels use `brisk` and begin at 2^25.

3. Mixing. A mixer is a row of weights in 2^-24. From inputs x (logits), one mixer or two:
    logit = clip(sum(w · x) >> 24, -3071, 3071), or >> 25 of both sums added;  chance = squash(logit)
  After the bit, each weight of the mixer (of both):  w += (step · x + 2^13) >> 14
    step = 3 · (((y << 28) - chance) >> 8) for the mask, 12 · (…) for signs and levels

4. Order. Rows 0, 1, …, in each row columns 0, 1, …; at each position, unless all entries are coded (then the stream
  ends): the mask bit (1: entry here), coded with 5., except that it is 1 and not coded when as many entries as
  positions are left; after a 1 the sign bit (1: negative), then the level u: u bits 1, then a 0 unless u = 12.

5. Mask bit at (i, j). State: column[j] = P, last[j] = -1, above[j] = 0, tally[j] = 0; usual = P; before = 0. A row
  begins with tendency = usual, found = 0, gap = -1, left = 0.
    x0 = stretch(column[j]) - stretch(P)      c = clip((3 · x0 >> 8) + 8, 0, 19)
    x1 = stretch(tendency) - stretch(P)       r = clip((3 · x1 >> 8) + 8, 0, 19)
    x2 = stretch of context gaps:  bitlen(min(i - last[j], 255)) · 16 + bitlen(min(j - gap, 255))
    x3 = stretch of context near:  above[j] + 4 · before + 16 · left + 64 · min(found, 3)
    x4 = stretch of context shape: 20c + r
    with activity, if any grade is not 0, h = 8 · grade of row i + grade of column j:
    x5 = stretch of context known: 21h + 20          x6 = stretch of context known: 21h + c
  (the four kinds of context are apart; the two uses of `known` share no context)
  Two mixers, each of 5 weights (7 with x5 and x6): number 4 · min(found, 5) + tally[j], and number 24 (with x5 and
  x6 24 + h). All begin with the weights, in 2^-6:
    32 22 20 16 16; with x5 and x6 26 16 12 10 10 16 16
  Then, with the bit y (coded or not): both mixers learn; the contexts of x2.. are updated;
    column[j] += ((y << 28) - column[j]) · steady(i) >> 20
    tendency  += ((y << 28) - tendency) · quick(j) >> 20
    above[j] = (2 · above[j] mod 4) + y;  left = (2 · left mod 4) + y
    if y: tally[j] = min(tally[j] + 1, 3); last[j] = i; gap = j; found += 1   (after sign and level)
  After a row: usual = max(2^10, usual + ((2^28 · found // columns - usual) · 13 >> 7)); before = min(found, 3)

6. Sign and level in column j. State per column: sign 0, balance 0, level 0; the same three for the row, which begin
  at 0 in each row. Signs count as 1 positive, 2 negative; balance is negative minus positive entries, clipped to -4..4
  after each.
    sign bit: contexts 3 · sign[j] + row sign,  9 · (balance[j] + 4) + row balance + 4;  mixer 0
    t-th level bit (t = 0..): contexts 9 · min(t, 3) + 3 · min(level[j], 2) + min(row level, 2),
        8 · min(t, 3) + clip((logit of the mask bit + 2048) >> 8, 0, 7);  mixer 1 for t = 0, else mixer 2
  (the five kinds of context are apart; inputs are the stretched probabilities; weights begin at 26 · 2^18)
  Ties, with activity where columns <= min(rows, 1024): ties[a][b] = 0 for columns a < b. Of the row's entries before
  this one take the first 32, in columns a_1 < a_2 < …, with s = 1 where positive and -1 where negative:
    e = sum(s_t · ties[a_t][j]);  where e is not 0, the sign bit has a third input from context min(bitlen |e|, 15),
    whose probability is that the sign is the one that e has: the input is turned (negated) where e > 0, and the
    context learns 1 - y there; its weight begins at 40 · 2^18
    after a row, for each two of its first 32 entries, in columns a < b:  ties[a][b] += s_a · s_b

7. Range coder. low = 0, range = 2^32 - 1. To code y with chance p:
    bound = range · clip(p >> 6, 16, 2^22 - 16) >> 22
    y = 1: range = bound.  y = 0: low += bound, range -= bound; if low >= 2^32: low -= 2^32 and add 1 to the bytes
    written so far, seen as one big-endian number
    while range < 2^24: write the byte low >> 24; low = low · 2^8 mod 2^32; range = range · 2^8
  End: of the numbers in [low, low + range) take the least multiple of 2^32, else of 2^24, 2^16, 2^8, else low; add its
  part above 2^32 to the bytes written, and write its four low bytes, without the zero bytes at their end.
  The decoder holds code = the first four bytes, compares code < bound, and shifts bytes in where the encoder shifts
  them out; past the end of the data come zeros.

8. Refused. More than four bytes past the end are wanted, or the last bytes are not those that the encoder would have
  written: "truncated"; bytes are left: "trailing"; the first four are FF FF FF FF, count > n or n > 2^27: "range". So
  each update has one stream, and each stream that is not refused is the one of its update.
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
