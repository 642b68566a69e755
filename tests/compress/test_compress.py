"""Compression: exact top-k whose twins agree, a quantiser within its bounds, and nothing lost."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgeclient.compress import quantise as quantise_module
from edgeclient.compress.accel import Accel, Kernel
from edgeclient.compress.arrays import F32, F64
from edgeclient.compress.feedback import NotFinite, compress_with_feedback
from edgeclient.compress.quantise import MAX_OFF_GRID, SMALLEST_STEP, bfloat16_down, bfloat16_nearest, quantise
from edgeclient.compress.select import KERNEL, top_k
from edgeclient.compress.update import CENTROID_LEVELS, LARGEST, MAX_LEVEL, FloatValues, SparseUpdate, StepValues

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Few different magnitudes, so that ties, denormals and zeros meet.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 1e-45, -1e-45, 5e-41, 3.4e38, -3.4e38])
VECTORS = arrays(np.float32, array_shapes(max_dims=1, max_side=60), elements=FINITE | TIED)
BOTH = pytest.mark.parametrize("accel", ["numpy", "numba"])


def by_sorting(x: F32, k: int) -> list[int]:
    """The definition: largest magnitude first, ties to the lower index, zeros never."""
    order = sorted((i for i in range(x.size) if x[i] != 0), key=lambda i: (-abs(float(x[i])), i))
    return sorted(order[:k])


@settings(max_examples=200, deadline=None)
@given(VECTORS, st.integers(0, 70))
@example(np.zeros(5, np.float32), 3)
@example(np.array([0.0, 1e-45, -1e-45, 1e-45], np.float32), 2)
def test_both_kernels_are_the_definition(x: F32, k: int) -> None:
    wanted = by_sorting(x, k)
    assert top_k(x, k, accel="numpy").tolist() == wanted
    assert top_k(x, k, accel="numba").tolist() == wanted


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 7, 1000, 60_000, 150_000])
def test_the_twins_agree_on_large_vectors(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(120_000).astype(np.float32)
    x[rng.random(x.size) < 0.3] = 0
    x[::5] = np.round(x[::5], 1)  # many ties
    x[::977] *= np.float32(1e-42)
    one, two = top_k(x, k, accel="numpy"), top_k(x, k, accel="numba")
    assert one.dtype == two.dtype == np.int64
    assert np.array_equal(one, two)
    assert one.size == min(k, np.count_nonzero(x))


@BOTH
def test_selection_takes_views_that_are_not_contiguous(accel: Accel) -> None:
    x = np.arange(-10, 10, dtype=np.float32)
    assert top_k(x[::-2], 3, accel=accel).tolist() == by_sorting(x[::-2].copy(), 3)


def test_selection_of_nothing() -> None:
    assert top_k(np.empty(0, np.float32), 5).size == 0
    assert top_k(np.ones(5, np.float32), 0).size == 0
    with pytest.raises(ValueError, match="negative"):
        top_k(np.ones(5, np.float32), -1)


def test_the_backend_is_visible() -> None:
    assert KERNEL.backend(KERNEL.numba_from - 1) == "numpy"
    assert KERNEL.backend(KERNEL.numba_from) == "numba"
    assert KERNEL.backend(10**9, "numpy") == "numpy"
    assert KERNEL.backend(1, "numba") == "numba"


def test_a_twin_is_loaded_when_it_is_worth_it_or_asked_for() -> None:
    there = Kernel("edgeclient.compress._select_numba", numba_from=10, joins=False)
    assert [there.twin(9) is None, there.twin(10) is None, there.twin(1, "numba") is None] == [True, False, False]
    assert there.why_not() is None
    assert Kernel(there.module, numba_from=10).twin(1) is there.twin(10)  # loaded already
    missing = Kernel("edgeclient.compress._not_there", numba_from=10)
    assert missing.twin(100) is None
    assert str(missing.why_not()).startswith("ModuleNotFoundError")
    with pytest.raises(RuntimeError, match=r"cannot be used .*'\.\[accel\]'"):
        missing.twin(1, "numba")


# Error feedback


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 50), st.sampled_from([float("inf"), 16.0, 1.0, 2.0**-20]))
def test_nothing_is_lost(data: st.DataObject, size: int, limit: float) -> None:
    """delta + residual + returned = decoded + residual', to float32 rounding."""
    # Below a third of the largest, so that the sum of three stays finite.
    numbers = st.floats(-float(np.float32(1e38)), float(np.float32(1e38)), width=32) | TIED.filter(
        lambda x: abs(x) < 1e38
    )
    vector = arrays(np.float32, size, elements=numbers)
    delta, residual, other = (data.draw(vector) for _ in range(3))
    back = data.draw(st.integers(0, size))
    returned = [compress_with_feedback(other, np.zeros(size, np.float32), back, limit=limit)[0]]
    if not np.isfinite(delta.astype(np.float64) + residual + dense(returned[0])).all():
        return
    k = data.draw(st.integers(0, size + 3))
    before = [each.copy() for each in (delta, residual)]
    update, after = compress_with_feedback(delta, residual, k, returned=returned, limit=limit)
    assert np.array_equal(delta, before[0])
    assert np.array_equal(residual, before[1])
    left = delta.astype(np.float64) + residual + dense(returned[0])
    right = dense(update) + after
    largest = np.abs(delta.astype(np.float64)) + np.abs(residual) + np.abs(dense(returned[0])) + np.abs(dense(update))
    assert (np.abs(left - right) <= 2.0**-22 * largest + 1e-44).all()
    decoded = update.values.decoded()
    assert update.indices.size <= k
    assert np.isfinite(decoded).all()
    assert (np.abs(decoded) <= limit).all()


def dense(update: SparseUpdate) -> F64:
    made = np.zeros(update.size, np.float64)
    update.add_to(made)
    return made


def test_what_exceeds_the_limit_stays_in_the_residual() -> None:
    delta = np.array([100.0, -40.0, 1.0, 0.0], np.float32)
    update, residual = compress_with_feedback(delta, np.zeros(4, np.float32), k=2, limit=16.0)
    assert update.values.decoded().tolist() == [16.0, -16.0]
    assert residual.tolist() == [84.0, -24.0, 1.0, 0.0]


def test_all_of_a_large_entry_leaves_in_the_end() -> None:
    residual = np.array([100.0, 0.0], np.float32)
    sent = np.zeros(2)
    for _ in range(7):
        update, residual = compress_with_feedback(np.zeros(2, np.float32), residual, k=1, limit=16.0)
        update.add_to(sent)
    assert sent.tolist() == [100.0, 0.0]
    assert residual.tolist() == [0.0, 0.0]


def test_a_round_that_sends_nothing_keeps_everything() -> None:
    delta, residual = np.array([1, 2], np.float32), np.array([0.5, 0], np.float32)
    update, after = compress_with_feedback(delta, residual, k=0)
    assert update.indices.size == 0
    assert after.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["delta", "residual"])
def test_what_is_not_finite_changes_nothing(bad: float, where: str) -> None:
    vectors = {"delta": np.array([1, 2, 3], np.float32), "residual": np.array([4, 5, 6], np.float32)}
    vectors[where][1] = bad
    before = {name: each.copy() for name, each in vectors.items()}
    with pytest.raises(NotFinite, match="coordinate 1"):
        compress_with_feedback(vectors["delta"], vectors["residual"], k=2)
    for name, each in vectors.items():
        assert np.array_equal(each, before[name], equal_nan=True)


def test_a_sum_that_overflows_changes_nothing() -> None:
    delta, residual = np.full(2, 3e38, np.float32), np.full(2, 3e38, np.float32)
    with pytest.raises(NotFinite, match="coordinate 0"):
        compress_with_feedback(delta, residual, k=1)
    assert delta.tolist() == residual.tolist()


# The quantiser

SELECTED = arrays(np.float32, st.integers(1, 40), elements=FINITE.filter(bool))
NARROW = st.floats(-120, 120).flatmap(
    lambda exponent: arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.floats(1.0, 20.0, width=32).map(lambda x: float(np.float32(x * 2.0**exponent))),
    )
)


@settings(max_examples=300, deadline=None)
@given(SELECTED | NARROW, st.sampled_from([float("inf"), 16.0, 1.0, 2.0**-60, 2.0**-120]), st.integers(0, 2**32 - 1))
def test_quantiser_bounds(selected: F32, limit: float, seed: int) -> None:
    selected = np.where(np.random.default_rng(seed).random(selected.size) < 0.5, selected, -selected)
    values = quantise(selected, limit)
    decoded = values.decoded()
    clipped = np.minimum(np.abs(selected).astype(np.float64), limit)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert np.array_equal(np.signbit(decoded), np.signbit(selected))
    assert decoded.all()
    assert (np.abs(decoded) <= limit).all()
    # A decoded entry is never off by more than the entry itself.
    assert (np.abs(selected.astype(np.float64) - decoded) <= np.abs(selected.astype(np.float64))).all()
    if isinstance(values, FloatValues):
        off_grid = clipped > (MAX_LEVEL + 2) * clipped.min() * (1 - 2**-7)  # the step has 8 bits
        assert clipped.min() < SMALLEST_STEP or off_grid.mean() > MAX_OFF_GRID * 0.99
        assert np.array_equal(np.abs(decoded), clipped.astype(np.float32))
        return
    assert isinstance(values, StepValues)
    t = float(values.threshold)
    assert t >= SMALLEST_STEP
    assert t <= clipped.min() < t * (1 + 2.0**-7)
    assert values.levels.max() <= MAX_LEVEL
    for level in range(CENTROID_LEVELS):
        members, centroid = clipped[values.levels == level], float(values.centroids[level])
        if members.size == 0:
            assert centroid == 0
            continue
        assert t <= centroid <= float(LARGEST)
        assert members.min() * (1 - 2.0**-8) <= centroid <= members.max() * (1 + 2.0**-8)
        assert (members >= (level + 1) * t).all()
        if level < CENTROID_LEVELS - 1:
            assert (members < (level + 2) * t).all()
    higher = values.levels >= CENTROID_LEVELS
    middle = (values.levels[higher] + 1.5) * t
    assert np.array_equal(np.abs(decoded[higher]), np.minimum(middle, float(LARGEST)).astype(np.float32))
    inside = higher & (values.levels < MAX_LEVEL) & (clipped < (values.levels + 2.0) * t)
    assert (np.abs(np.abs(decoded[inside].astype(np.float64)) - clipped[inside]) <= t / 2 * (1 + 1e-9)).all()


def test_values_at_the_edges() -> None:
    largest = np.array([LARGEST, -LARGEST], np.float32)
    assert np.isfinite(quantise(largest, float("inf")).decoded()).all()
    wide = np.array([3.4e38, 2.6e37], np.float32)
    values = quantise(wide, float("inf"))
    assert isinstance(values, StepValues)
    assert values.levels.tolist() == [MAX_LEVEL, 0]
    assert float(values.decoded().max()) <= float(LARGEST)
    tiny = np.array([1e-45, -5e-41], np.float32)
    assert quantise(tiny, 16.0).decoded().tolist() == tiny.tolist()
    assert isinstance(quantise(np.array([SMALLEST_STEP]), 16.0), StepValues)
    below = np.nextafter(SMALLEST_STEP, np.float32(0))
    assert isinstance(quantise(np.array([below]), 16.0), FloatValues)
    assert quantise(np.empty(0, np.float32), 16.0).decoded().size == 0


def test_values_on_a_boundary_belong_to_the_upper_level() -> None:
    values = quantise(np.array([1] * 10 + [2, 3, 4, 13, 14, 100], np.float32), float("inf"))
    assert isinstance(values, StepValues)
    assert values.levels.tolist() == [0] * 10 + [1, 2, 3, 12, 12, 12]
    below = np.nextafter(np.array([2, 3, 4, 13], np.float32), np.float32(0))
    values = quantise(np.concatenate([np.ones(1, np.float32), below]), float("inf"))
    assert isinstance(values, StepValues)
    assert values.levels.tolist() == [0, 0, 1, 2, 11]


def test_a_wide_range_is_sent_as_floats() -> None:
    """At density 1 the smallest entry would set a step that cuts everything else off."""
    delta = np.random.default_rng(0).normal(0, 0.01, 10_000).astype(np.float32)
    update, residual = compress_with_feedback(delta, np.zeros_like(delta), k=delta.size, limit=16.0)
    assert isinstance(update.values, FloatValues)
    assert not residual.any()
    update, residual = compress_with_feedback(delta, np.zeros_like(delta), k=100, limit=16.0)
    assert isinstance(update.values, StepValues)


def test_centroids_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(5)
    x = (rng.random(5000) * 3 + 1).astype(np.float32)
    wanted = quantise(x, 16.0)
    assert isinstance(wanted, StepValues)
    for _ in range(5):
        shuffled = quantise(rng.permutation(x), 16.0)
        assert isinstance(shuffled, StepValues)
        assert shuffled.centroids == wanted.centroids


@settings(max_examples=200, deadline=None)
@given(st.floats(0, float(LARGEST), width=32))
def test_bfloat16(x: float) -> None:
    number = np.float32(x)
    down, nearest = bfloat16_down(number), bfloat16_nearest(x)
    for rounded in (down, nearest):
        assert int(rounded.view(np.uint32)) & 0xFFFF == 0
        assert np.isfinite(rounded)
    assert down <= number
    up = np.uint32(min(int(down.view(np.uint32)) + 0x10000, 0x7F7F0000)).view(np.float32)
    error = min(abs(float(number) - float(down)), abs(float(up) - float(number)))
    assert abs(float(nearest) - float(number)) == error


def test_the_cut_into_parts_keeps_the_grid() -> None:
    update, _ = compress_with_feedback(np.arange(1, 9, dtype=np.float32), np.zeros(8, np.float32), k=6)
    whole = update.values.decoded()
    first, last = update.between(0, 2), update.between(2, 6)
    assert first.indices.tolist() + last.indices.tolist() == update.indices.tolist()
    assert np.array_equal(np.concatenate([first.values.decoded(), last.values.decoded()]), whole)


def test_the_unit_of_centroids_is_exact_in_float64() -> None:
    assert quantise_module._UNIT == 2.0**20
    assert int(quantise_module._UNIT * quantise_module._UNIT) * 2**20 < 2**63
