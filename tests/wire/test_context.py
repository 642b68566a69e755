"""The context-modelled coder: round trip, twin = definition, total decoding, the same bytes for ever."""

import subprocess
import sys
from hashlib import sha256
from itertools import chain, groupby, islice
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import I64, U8, Bools
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import context, matrix
from edgeclient.wire.frame.context_model import ONE, STEEPEST, tables
from edgeclient.wire.frame.positions import touched
from tools.masks import COMMITTED, load

BOTH: tuple[Accel, ...] = ("numpy", "numba")
Entries = tuple[int, int, I64, Bools, U8, context.Activity]


def drawn(rows: int, columns: int, count: int, seed: int) -> Entries:
    """Random entries, some rows and columns far busier than others, as in real masks."""
    rng = np.random.default_rng(seed)
    weight = np.outer(rng.exponential(size=rows) ** 3, rng.exponential(size=columns) ** 3).ravel() + 1e-9
    indices = np.sort(rng.choice(rows * columns, count, replace=False, p=weight / weight.sum())).astype(np.int64)
    negative = rng.random(count) < rng.random()
    levels = np.minimum(rng.geometric(0.6, count) - 1, 12).astype(np.uint8)
    most = rng.choice([1, 8])  # 1: the tensors before say nothing
    activity = rng.integers(0, most, rows).astype(np.uint8), rng.integers(0, most, columns).astype(np.uint8)
    return rows, columns, indices, negative, levels, activity


@st.composite
def entries(draw: st.DrawFn) -> Entries:
    rows = draw(st.sampled_from([1, 1, 2, 3, 17, 40]))
    columns = draw(st.sampled_from([1, 1, 2, 5, 40]))
    total = rows * columns
    count = draw(st.sampled_from([0, 1, total // 100, total // 7, total - 1, total]))
    return drawn(rows, columns, count, draw(st.integers(0, 1000)))


def assert_same(data: bytes, made: Entries, activity: context.Activity | None, accel: Accel) -> None:
    rows, columns, indices, negative, levels, _ = made
    found = context.decode(data, rows, columns, indices.size, activity, accel=accel)
    assert [each.dtype for each in found] == [np.int64, np.bool_, np.uint8]
    np.testing.assert_array_equal(found[0], indices)
    np.testing.assert_array_equal(found[1], negative)
    np.testing.assert_array_equal(found[2], levels)


@given(entries(), st.booleans())
@settings(deadline=None, max_examples=150)
def test_round_trip_and_the_twin_agrees(made: Entries, active: bool) -> None:
    activity = made[5] if active else None
    data = context.encode(*made[:5], activity, accel="numpy")
    assert context.encode(*made[:5], activity, accel="numba") == data
    assert_same(data, made, activity, "numpy")
    assert_same(data, made, activity, "numba")


def tensors(path: Path) -> list[Entries]:
    """Every tensor with entries of two updates of each captured round, as frames lay them out."""
    layout, captured = load(path)
    found = []
    by_round = groupby(captured, key=lambda each: each.round)
    for each in chain.from_iterable(islice(updates, 2) for _, updates in by_round):
        before = matrix.Entries()
        for within in touched(0, sum(map(prod, layout)), layout):
            a, b = np.searchsorted(each.indices, [within.first, within.first + within.span]).tolist()
            if a < b:
                offsets, order = matrix.laid_out(each.indices[a:b], within)
                rows = within.span // within.columns
                activity = before.activity(within, rows)
                before.add(each.indices[a:b], within)
                found.append((
                    rows, within.columns, offsets, each.negative[a:b][order], each.levels[a:b][order], activity
                ))  # fmt: skip
    return found


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.npz")), ids=lambda path: path.stem)
def test_real_masks_round_trip(path: Path) -> None:
    for made in tensors(path):
        for activity in (None, made[5]):
            assert_same(context.encode(*made[:5], activity, accel="numba"), made, activity, "numba")


def test_the_twin_agrees_on_real_masks() -> None:
    for made in tensors(COMMITTED / "fashion-mnist-0.01.npz")[:6]:
        for activity in (None, made[5]):
            assert context.encode(*made[:5], activity, accel="numpy") == context.encode(
                *made[:5], activity, accel="numba"
            )


@pytest.mark.parametrize(
    ("name", "alone", "active"),
    # Bits per entry over the updates in the file, the headers of frames aside.
    [("fashion-mnist-0.01", 5.17, 5.11), ("next-word-0.01", 5.61, 5.41), ("watch-har-0.01", 8.83, 8.81)],
)
def test_bits_per_entry_on_real_masks(name: str, alone: float, active: float) -> None:
    found = tensors(COMMITTED / f"{name}.npz")
    count = sum(made[2].size for made in found)
    assert 8 * sum(len(context.encode(*made[:5])) for made in found) / count <= alone
    assert 8 * sum(len(context.encode(*made)) for made in found) / count <= active


def test_uniform_masks_cost_little_more_than_their_entropy() -> None:
    rng = np.random.default_rng(1)
    indices = np.sort(rng.choice(1_000_000, 10_000, replace=False)).astype(np.int64)
    data = context.encode(1000, 1000, indices, rng.random(10_000) < 0.5, np.zeros(10_000, np.uint8))
    assert 8 * len(data) / 10_000 <= 1.015 * 9.08  # log2 C(n, k) / k = 8.08, and a sign


@pytest.mark.parametrize("accel", ["numpy", "numba"])
@pytest.mark.parametrize("active", [False, True])
def test_every_damaged_stream_is_an_error_or_another_valid_one(accel: Accel, *, active: bool) -> None:
    made = drawn(20, 30, 40, seed=3)
    rows, columns, indices, *_ = made
    activity = made[5] if active else None
    data = context.encode(*made[:5], activity)
    rng = np.random.default_rng(4)
    damaged = [data[:n] for n in range(len(data))] + [data + b"\0", data + b"\x01", data + data]
    damaged += [bytes(a ^ (1 << bit) * (i == at) for i, a in enumerate(data)) for at in range(8) for bit in range(8)]
    damaged += [rng.bytes(n) for n in range(60)] + [b"\xff" * 40, b"\0" * 40, b"\xff\xff\xff\xfe" + b"\xff" * 40]
    reasons = set()
    for each in damaged:
        assert each != data
        try:
            found = context.decode(each, rows, columns, indices.size, activity, accel=accel)
        except WireError as error:
            reasons.add(error.reason)
        else:  # one stream per update: whatever decodes is what an encoder makes of it
            assert context.encode(rows, columns, *found, activity, accel=accel) == each
    assert reasons == {"truncated", "trailing", "range"}


def test_sizes_are_checked_before_anything_is_allocated() -> None:
    for rows, columns, count in ((1 << 20, 1 << 20, 5), (3, 4, 13), (3, 4, -1)):
        with pytest.raises(WireError, match="range"):
            context.decode(b"\1\2\3", rows, columns, count)


def test_appended_bytes_are_trailing_and_missing_ones_are_noticed() -> None:
    made = drawn(50, 60, 200, seed=5)
    data = context.encode(*made[:5])
    for more in (b"\0", b"\x07", bytes(100)):
        with pytest.raises(WireError, match="trailing"):
            context.decode(data + more, 50, 60, 200)
    for n in range(len(data) - 5):
        with pytest.raises(WireError, match="truncated"):
            context.decode(data[:n], 50, 60, 200)


@given(st.binary(max_size=40), st.integers(1, 12), st.integers(1, 12), st.integers(-1, 150))
@settings(deadline=None, max_examples=500)
def test_any_bytes_decode_to_a_value_or_a_wire_error(data: bytes, rows: int, columns: int, count: int) -> None:
    try:
        indices, negative, levels = context.decode(data, rows, columns, count, accel="numba")
    except WireError:
        return
    assert indices.size == negative.size == levels.size == count
    assert (np.diff(indices, prepend=-1) > 0).all()
    assert (indices < rows * columns).all()
    assert (levels <= 12).all()
    assert context.encode(rows, columns, indices, negative, levels, accel="numba") == data


def test_a_stream_that_the_model_did_not_expect_fits_all_the_same() -> None:
    count = 2000  # one far corner full of the highest levels, after a long calm
    indices = np.arange(500_000 - 7 * count, 500_000, 7)
    active = np.zeros(500, np.uint8), np.zeros(1000, np.uint8)
    made = (500, 1000, indices, indices % 3 == 0, np.full(count, 12, np.uint8), active)
    assert_same(context.encode(*made[:5]), made, None, "auto")


def test_nothing_costs_nothing_and_everything_costs_no_positions() -> None:
    none = np.zeros(0, np.int64)
    assert context.encode(3, 5, none, none > 0, none.astype(np.uint8)) == b""
    every = np.arange(64 * 64)
    data = context.encode(64, 64, every, every < 0, np.zeros(every.size, np.uint8))
    assert len(data) < 30


@pytest.mark.parametrize(
    ("indices", "level", "rows", "grade"),
    [
        ([3, 3], 0, 3, 0), ([4, 2], 0, 3, 0), ([-1, 2], 0, 3, 0), ([2, 15], 0, 3, 0), ([1, 2], 13, 3, 0),
        ([1, 2], 0, 3, 8), ([1, 2], 0, 4, 0),
    ],
)  # fmt: skip
def test_our_own_mistakes_are_value_errors(indices: list[int], level: int, rows: int, grade: int) -> None:
    activity = np.zeros(rows, np.uint8), np.full(5, grade, np.uint8)
    levels = np.full(2, level, np.uint8)
    with pytest.raises(ValueError, match="positions"):
        context.encode(3, 5, np.array(indices), np.zeros(2, np.bool_), levels, activity)


def test_golden_streams() -> None:
    every_third = np.arange(0, 48, 3)
    levels = (every_third // 3 % 4).astype(np.uint8)
    made = 6, 8, every_third, every_third % 2 == 0, levels
    assert context.encode(*made, accel="numpy").hex() == "28ab04ecb4023e8524885af057"
    told = np.array([0, 0, 1, 2, 3, 7], np.uint8), np.arange(8).astype(np.uint8)
    assert context.encode(*made, told, accel="numpy").hex() == "228cabc83a34ddab945a43fe9f"
    tall = 8, 6, every_third, every_third // 6 % 2 == 0, levels  # two columns that always have the same sign
    assert context.encode(*tall, accel="numpy").hex() == "27501a7ceba823b9"
    tied = context.encode(*tall, (np.zeros(8, np.uint8), np.zeros(6, np.uint8)), accel="numpy")
    assert tied.hex() == "27501a7ceba66b04"
    one = context.encode(1, 1000, np.array([617]), np.array([True]), np.array([0], np.uint8), accel="numpy")
    assert one.hex() == "95ac"


def test_the_words_of_the_embedding_tell_of_those_of_the_softmax() -> None:
    found = [made for made in tensors(COMMITTED / "next-word-0.01.npz") if made[:2] == (6000, 64)]
    nothing = np.zeros(6000, np.uint8), np.zeros(64, np.uint8)
    alone = sum(len(context.encode(*made[:5], nothing)) for made in found[1::2])
    told = sum(len(context.encode(*made)) for made in found[1::2])
    assert told < 0.985 * alone


def test_columns_that_agree_need_fewer_bits_for_their_signs() -> None:
    rng = np.random.default_rng(2)
    chosen = np.flatnonzero(rng.random(500 * 20) < 0.2)
    rows, columns = np.divmod(chosen, 20)
    # Each row turns one pattern of signs as it likes: no column and no row has a sign of its own.
    negative = (rng.random(20) < 0.5)[columns] ^ (rng.random(500) < 0.5)[rows]
    made = 500, 20, chosen, negative, np.zeros(chosen.size, np.uint8)
    alone = 8 * len(context.encode(*made))
    tied = 8 * len(context.encode(*made, (np.zeros(500, np.uint8), np.zeros(20, np.uint8))))
    assert alone - tied > 0.6 * chosen.size  # the first of each row stays a bit: 0.25 an entry
    wide = 10, 1000, *made[2:]
    nothing = np.zeros(10, np.uint8), np.zeros(1000, np.uint8)
    assert context.encode(*wide) == context.encode(*wide, nothing)  # more columns than rows have no ties


def test_tables_are_what_their_text_says() -> None:
    squash, stretch, grade = tables()
    logits = np.arange(-STEEPEST, STEEPEST + 1) / 256
    assert np.abs(squash - ONE / (1 + np.exp(-logits))).max() <= 1
    middle = ((np.arange(1 << 16) << 12) + 2048) / ONE
    assert np.abs(stretch - np.log(middle / (1 - middle)) * 256).max() <= 1
    assert grade[[0, 1, 2, 255]].tolist() == [0, 1, 2, 8]
    digest = sha256(b"".join(each.astype("<i4").tobytes() for each in (squash, stretch))).hexdigest()
    assert digest == "d297a2a459993c3b278eff413115694893e68c5f7ea2c8a8a33700f226f0b446"


def test_numba_is_loaded_only_when_used() -> None:
    script = "import sys, edgeclient.wire.frame.context; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
