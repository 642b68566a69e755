"""The model and the coder of `context` on plain integers: the definition, of which numba compiles the same lines.

Every number fits a signed 64-bit one; `>>` of a negative number rounds down; `//` meets positive numbers alone.
Tables may be lists or arrays. CONTEXT.md says what each part is for, in the same order.
"""

from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from edgeclient.compress.arrays import I64, U8

Ints: TypeAlias = Any  # a list for the definition, an array for its compiled twin

ONE: Final = 1 << 28  # probability 1
STEEPEST: Final = 3071  # largest logit, in 1/256
ROOT: Final = 0x4040200AAD55DDF4  # e^(1/256) in units of 2^-62, rounded down
MOST_SEEN: Final = 4095
GRADES: Final = 8  # of activity
BUCKETS: Final = GRADES * GRADES
GAPS, NEAR, SHAPE, KNOWN, SLOTS = 0, 256, 512, 1024, 2368  # where each kind of context begins in `p` and `seen`
SETS, WIDTH = 24, 8  # mixers chosen by row and column, and room in each
# Initial weights in 1/64, without and with activity: column, row, gaps, near, shape, known, known and column.
WEIGHTS: Final = ((32, 22, 20, 16, 16, 0, 0, 0), (26, 16, 12, 10, 10, 16, 16, 0))
SIGN, BALANCE, TIE, LEVEL, BAND, VALUE_SLOTS = 0, 16, 98, 128, 192, 256
TIE_WEIGHT: Final = 40
MOST_TIED: Final = 32  # entries of a row that tell about the signs of later ones
TIED_COLUMNS: Final = 1024  # a matrix of this many columns or fewer has ties, if it has as many rows


class State(NamedTuple):
    """Everything that changes while a tensor is coded, and the tables."""

    coder: Ints  # decoding?, low, range, code, next byte, bytes there are
    data: Ints
    squash: Ints
    stretch: Ints
    grade: Ints
    steady: Ints  # rates of contexts and columns, by how often seen
    quick: Ints  # rates of the row
    brisk: Ints  # rates of signs and levels
    p: Ints
    seen: Ints
    weights: Ints
    x: Ints  # mixer inputs
    slots: Ints  # the contexts that they come from
    column: Ints  # probability of a 1 in each column
    last: Ints  # row of the last 1 in each column, -1 for none
    above: Ints  # bit 0: the row before has a 1 in this column; bit 1: the one before that
    tally: Ints  # ones in each column, at most 3
    sign: Ints  # last sign in each column: 0 none, 1 positive, 2 negative
    balance: Ints  # negative minus positive entries in each column, kept in -4..4
    level: Ints  # last level in each column
    ties: Ints  # columns × columns: how often two columns had the same sign in a row, less how often not; or empty
    tied: Ints  # of the row's first entries: column, and behind MOST_TIED of these 1 positive, -1 negative
    value_p: Ints
    value_seen: Ints
    value_weights: Ints


@cache
def tables() -> tuple[I64, I64, I64]:
    """squash (logit + 3071 → probability), stretch (probability >> 12 → logit), grade (bit lengths)."""
    power = 1 << 62
    upper = []
    for _ in range(STEEPEST + 1):
        upper.append((power << 28) // (power + (1 << 62)))
        power = power * ROOT >> 62
    squash = np.array([ONE - each for each in upper[:0:-1]] + upper, np.int64)
    middles = (np.arange(1 << 16, dtype=np.int64) << 12) + 2048
    stretch = np.minimum(np.searchsorted(squash, middles), 2 * STEEPEST) - STEEPEST
    return squash, stretch, np.array([i.bit_length() for i in range(256)], np.int64)


def start(data: U8, size: int, shape: tuple[int, int, int], *, decoding: bool, known: bool, ties: bool) -> State:
    """The state before the first position of rows × columns with `count` ones."""
    rows, columns, count = shape
    total = rows * columns
    few = min(count, total - count) or 1
    p = min(max((count << 28) // total, 1 << 10), ONE - (1 << 10))
    n = np.arange(1, MOST_SEEN + 2, dtype=np.int64)
    code = int.from_bytes(data[:4].tobytes(), "big") if decoding else 0
    squash, stretch, grade = tables()
    tied = columns if ties and columns <= min(rows, TIED_COLUMNS) else 0
    return State(
        coder=np.array([decoding, 0, 0xFFFFFFFF, code, 4 * decoding, size], np.int64),
        data=data,
        squash=squash,
        stretch=stretch,
        grade=grade,
        steady=(1 << 24) // (16 * n + 8 * total // few),
        quick=(1 << 24) // (16 * n + total // few),
        brisk=(1 << 21) // (2 * n[:256] + 1),
        p=np.full(SLOTS, p, np.int64),
        seen=np.zeros(SLOTS, np.int64),
        weights=np.tile(np.array(WEIGHTS[known], np.int64) << 18, SETS + BUCKETS),
        x=np.zeros(WIDTH, np.int64),
        slots=np.zeros(WIDTH, np.int64),
        column=np.full(columns, p, np.int32),
        last=np.full(columns, -1, np.int32),
        above=np.zeros(columns, np.int8),
        tally=np.zeros(columns, np.int8),
        sign=np.zeros(columns, np.int8),
        balance=np.zeros(columns, np.int8),
        level=np.zeros(columns, np.int8),
        ties=np.zeros(tied * tied, np.int32),
        tied=np.zeros(2 * MOST_TIED, np.int64),
        value_p=np.array([ONE >> 1] * LEVEL + [ONE >> 3] * (VALUE_SLOTS - LEVEL), np.int64),
        value_seen=np.zeros(VALUE_SLOTS, np.int64),
        value_weights=np.array([26, 26, TIE_WEIGHT, 0] + [26] * 8, np.int64) << 18,
    )


def bit(coder: Ints, data: Ints, y: int, p: int) -> int:
    """Code the bit y, or find it in the data, where p of 2^28 is the probability of a 1."""
    bound = coder[2] * min(max(p >> 6, 16), (1 << 22) - 16) >> 22
    if coder[0]:
        y = 1 if coder[3] < bound else 0
        if not y:
            coder[3] -= bound
    elif not y:
        coder[1] += bound
        if coder[1] >> 32:  # carry into what is written; past the end of the buffer it does not matter
            coder[1] &= 0xFFFFFFFF
            at = coder[4] - 1
            if at < coder[5]:
                while data[at] == 255:
                    data[at] = 0
                    at -= 1
                data[at] += 1
    coder[2] = bound if y else coder[2] - bound
    while coder[2] < 1 << 24:
        coder[2] <<= 8
        there = coder[4] < coder[5]
        if coder[0]:
            coder[3] = coder[3] << 8 | (data[coder[4]] if there else 0)
        else:
            if there:
                data[coder[4]] = coder[1] >> 24
            coder[1] = (coder[1] & 0xFFFFFF) << 8
        coder[4] += 1
    return y


def mixed(weights: Ints, at: int, x: Ints, inputs: int) -> int:
    """The weighted sum of the inputs."""
    dot = 0
    for t in range(inputs):
        dot += weights[at + t] * x[t]
    return dot


def learn(weights: Ints, at: int, x: Ints, inputs: int, step: int) -> None:
    """Move the weights of a mixer along its inputs."""
    for t in range(inputs):
        weights[at + t] += (step * x[t] + (1 << 13)) >> 14


def value_bit(state: State, y: int, mixer: int, inputs: int, turned: int) -> int:
    """Code one bit of a sign or level from the contexts in `slots`; a turned third one predicts the other bit."""
    x, slots, p, seen, weights = state.x, state.slots, state.value_p, state.value_seen, state.value_weights
    for t in range(inputs):
        x[t] = state.stretch[p[slots[t]] >> 12]
    if turned:
        x[2] = -x[2]
    logit = min(max(mixed(weights, mixer, x, inputs) >> 24, -STEEPEST), STEEPEST)
    chance = state.squash[logit + STEEPEST]
    y = bit(state.coder, state.data, y, chance)
    target = y << 28
    learn(weights, mixer, x, inputs, ((target - chance) >> 8) * 12)
    for t in range(inputs):
        s = slots[t]
        goal = ONE - target if turned and t == 2 else target
        p[s] += (goal - p[s]) * state.brisk[seen[s]] >> 20
        seen[s] = min(seen[s] + 1, 255)
    return y


def value(state: State, j: int, row: Ints, negative: int, level: int, logit: int) -> int:
    """Code sign and level of an entry in column j: 16 · negative + level.

    `row`: last sign, balance, last level, how many entries tell of the signs of later ones.
    """
    slots, sign, balance, ties, tied = state.slots, state.sign, state.balance, state.ties, state.tied
    slots[0] = SIGN + sign[j] * 3 + row[0]
    slots[1] = BALANCE + (balance[j] + 4) * 9 + row[1] + 4
    evidence = 0
    if len(ties):
        for t in range(row[3]):
            evidence += tied[MOST_TIED + t] * ties[tied[t] * len(sign) + j]
    distance = abs(evidence)
    grade = 0
    while distance and grade < 15:
        distance >>= 1
        grade += 1
    slots[2] = TIE + grade
    negative = value_bit(state, negative, 0, 3 if evidence else 2, 1 if evidence > 0 else 0)
    if len(ties) and row[3] < MOST_TIED:
        tied[row[3]] = j
        tied[MOST_TIED + row[3]] = 1 - 2 * negative
        row[3] += 1
    sign[j] = row[0] = 1 + negative
    balance[j] = min(max(balance[j] + 2 * negative - 1, -4), 4)
    row[1] = min(max(row[1] + 2 * negative - 1, -4), 4)
    before = min(state.level[j], 2) * 3 + min(row[2], 2)
    band = min(max((logit + 2048) >> 8, 0), 7)
    u = 0
    while u < 12:
        slots[0] = LEVEL + min(u, 3) * 9 + before
        slots[1] = BAND + min(u, 3) * 8 + band
        if not value_bit(state, 1 if level > u else 0, 8 if u else 4, 2, 0):
            break
        u += 1
    state.level[j] = row[2] = u
    return 16 * negative + u


def tie(ties: Ints, tied: Ints, columns: int, count: int) -> None:
    """Learn from the first `count` entries of a row which columns have the same sign."""
    for a in range(count):
        for b in range(a + 1, count):
            ties[tied[a] * columns + tied[b]] += tied[MOST_TIED + a] * tied[MOST_TIED + b]


def code(  # noqa: PLR0915 (one loop with its state at hand is what a compiler makes fast)
    state: State, rows: int, columns: int, entries: Ints, values: Ints, active: Ints
) -> int:
    """Code `entries` (flat positions) and `values` (16 · negative + level) of a matrix, or fill them in.

    `active`: a grade of activity for each row, then for each column; or nothing.
    Returns how many entries there are: all of them, or fewer where the data ends too early.
    """
    coder, squash, stretch, grade = state.coder, state.squash, state.stretch, state.grade
    steady, quick, p, seen, weights = state.steady, state.quick, state.p, state.seen, state.weights
    x, slots, column, last, above, tally = state.x, state.slots, state.column, state.last, state.above, state.tally
    count = len(entries)
    inputs = 7 if len(active) else 5
    origin = stretch[p[0] >> 12]
    usual = p[0]  # probability of a 1 in a row, from the rows before
    before = 0  # ones in the row before, at most 3
    row = [0, 0, 0, 0]
    k = 0
    end = rows * columns
    for i in range(rows):
        tendency = usual
        found = 0
        gap = -1
        left = 0
        row[0] = row[1] = row[2] = row[3] = 0
        rate = steady[min(i, MOST_SEEN)]
        for j in range(columns):
            if k == count:
                return k
            at = i * columns + j
            x[0] = stretch[column[j] >> 12] - origin
            x[1] = stretch[tendency >> 12] - origin
            c = min(max((x[0] * 3 >> 8) + 8, 0), 19)
            r = min(max((x[1] * 3 >> 8) + 8, 0), 19)
            slots[2] = GAPS + grade[min(i - last[j], 255)] * 16 + grade[min(j - gap, 255)]
            slots[3] = NEAR + above[j] + before * 4 + left * 16 + min(found, 3) * 64
            slots[4] = SHAPE + c * 20 + r
            mixer = (min(found, 5) * 4 + tally[j]) * WIDTH
            other = SETS * WIDTH
            if inputs > 5:
                bucket = active[i] * GRADES + active[rows + j]
                slots[5] = KNOWN + bucket * 21 + 20
                slots[6] = KNOWN + bucket * 21 + c
                other += bucket * WIDTH
            for t in range(2, inputs):
                x[t] = stretch[p[slots[t]] >> 12]
            dot = mixed(weights, mixer, x, inputs) + mixed(weights, other, x, inputs)
            logit = min(max(dot >> 25, -STEEPEST), STEEPEST)
            chance = squash[logit + STEEPEST]
            y = 1
            if count - k < end - at:
                y = bit(coder, state.data, 1 if entries[k] == at else 0, chance)
            target = y << 28
            step = ((target - chance) >> 8) * 3
            learn(weights, mixer, x, inputs, step)
            learn(weights, other, x, inputs, step)
            for t in range(2, inputs):
                s = slots[t]
                p[s] += (target - p[s]) * steady[seen[s]] >> 20
                seen[s] = min(seen[s] + 1, MOST_SEEN)
            column[j] += (target - column[j]) * rate >> 20
            tendency += (target - tendency) * quick[min(j, MOST_SEEN)] >> 20
            above[j] = (above[j] << 1 & 2) | y
            left = (left << 1 & 2) | y
            if y:
                entries[k] = at
                values[k] = value(state, j, row, values[k] >> 4, values[k] & 15, logit)
                tally[j] = min(tally[j] + 1, 3)
                last[j] = i
                gap = j
                found += 1
                k += 1
                if coder[0] and coder[4] > coder[5] + 4:
                    return -1
        if coder[0] and coder[4] > coder[5] + 4:
            return -1
        tie(state.ties, state.tied, columns, row[3])
        usual = max(usual + (((found << 28) // columns - usual) * 13 >> 7), 1 << 10)
        before = min(found, 3)
    return k
