"""The aggregate equals an exact oracle over whole numbers and fractions, whatever the order."""

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.aggregate.fixed import MAX_FRAMES, weighted_sum
from broker.aggregate.optimisers import Sgd
from broker.aggregate.weight import MAX_EXAMPLES, MAX_WEIGHT, weight
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire.announcement import SCALE_BITS as SCALE
from edgeclient.wire.announcement import VALUE_LIMIT as LIMIT

SIZE = 12


def units(value: float) -> int:
    """value · 2^s to the nearest whole number, ties to even, exactly."""
    exact: int = round(Fraction(value) * 2**SCALE)
    return exact


@st.composite
def members(draw: st.DrawFn) -> list[tuple[SparseUpdate, int]]:
    made = []
    for _ in range(draw(st.integers(0, 8))):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        delta = (rng.standard_normal(SIZE) * 10.0 ** draw(st.integers(-12, 3))).astype(np.float32)
        update, _ = compress_with_feedback(delta, np.zeros(SIZE, np.float32), draw(st.integers(1, SIZE)), limit=LIMIT)
        if draw(st.booleans()):
            update = SparseUpdate(SIZE, update.indices, FloatValues(np.clip(delta[update.indices], -LIMIT, LIMIT)))
        made.append((update, draw(st.sampled_from([1, 7, 25_600, MAX_WEIGHT]) | st.integers(1, MAX_WEIGHT))))
    return made


@settings(max_examples=150, deadline=None)
@given(members(), st.data(), st.floats(1e-6, 100))
def test_sum_and_step_are_the_dense_oracle(
    batch: list[tuple[SparseUpdate, int]], data: st.DataObject, learning_rate: float
) -> None:
    exact = [0] * SIZE
    for update, each in batch:
        for i, value in zip(update.indices.tolist(), update.values.decoded().tolist(), strict=True):
            exact[i] += units(value) * each
    total = weighted_sum(data.draw(st.permutations(batch)), SIZE, SCALE)
    assert total.dtype == np.int64
    assert total.tolist() == exact
    if not batch:
        return
    total_weight = sum(each for _, each in batch)
    parameters = np.linspace(-3, 3, SIZE, dtype=np.float32)
    stepped = Sgd(learning_rate).step(parameters, total, total_weight, SCALE)
    assert stepped.dtype == np.float32
    for i in range(SIZE):
        mean = Fraction(exact[i], 2**SCALE * total_weight)
        wanted = Fraction(float(parameters[i])) + Fraction(learning_rate) * mean
        scale = abs(Fraction(float(parameters[i]))) + abs(Fraction(learning_rate) * mean)
        assert abs(Fraction(float(stepped[i])) - wanted) <= scale * Fraction(1, 2**23) + Fraction(1, 2**149)


def constant(value: float, count: int = 1) -> SparseUpdate:
    return SparseUpdate(count, np.arange(count), FloatValues(np.full(count, value, np.float32)))


def test_the_largest_batch_does_not_wrap() -> None:
    batch = [(constant(LIMIT), MAX_WEIGHT)] * MAX_FRAMES
    assert weighted_sum(batch, 1, SCALE).tolist() == [MAX_FRAMES * MAX_WEIGHT * 2**30]
    assert MAX_FRAMES * MAX_WEIGHT * 2**30 < 2**63
    down = [(constant(-LIMIT), MAX_WEIGHT)] * MAX_FRAMES
    assert weighted_sum(down, 1, SCALE).tolist() == [-MAX_FRAMES * MAX_WEIGHT * 2**30]


@pytest.mark.parametrize(
    "batch",
    [
        [(constant(LIMIT * 1.01), 1)],
        [(constant(-1e30), 1)],
        [(constant(3e38), 1)],
        [(constant(1.0), 0)],
        [(constant(1.0), -1)],
        [(constant(1.0), MAX_WEIGHT + 1)],
        [(constant(1.0), 1)] * (MAX_FRAMES + 1),
    ],
)
def test_what_might_wrap_is_refused(batch: list[tuple[SparseUpdate, int]]) -> None:
    with pytest.raises(ValueError, match="outside the bounds"):
        weighted_sum(batch, 1, SCALE)


def test_an_empty_batch_sums_to_nothing() -> None:
    assert weighted_sum([], 3, SCALE).tolist() == [0, 0, 0]


def test_sgd_averages_by_weight_and_leaves_its_inputs_alone() -> None:
    parameters = np.array([1.0, 2.0], np.float32)
    total = weighted_sum([(constant(1.0, 2), 3), (constant(-1.0, 2), 1)], 2, SCALE)
    before = total.copy()
    assert Sgd().step(parameters, total, 4, SCALE).tolist() == [1.5, 2.5]
    assert Sgd(0.5).step(parameters, total, 4, SCALE).tolist() == [1.25, 2.25]
    assert parameters.tolist() == [1.0, 2.0]
    assert np.array_equal(total, before)


def test_a_batch_without_weight_makes_no_parameters() -> None:
    """Rather none than NaN, which would be published."""
    with pytest.raises(ValueError, match="total weight 0"):
        Sgd().step(np.ones(2, np.float32), np.array([5, 0], np.int64), 0, SCALE)


def test_parameters_never_become_infinite() -> None:
    parameters = np.full(1, np.finfo(np.float32).max)
    stepped = Sgd(1e300).step(parameters, np.array([2**30], np.int64), 1, SCALE)
    assert np.isfinite(stepped).all()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_weights(examples: int, staleness: int) -> None:
    each = weight(examples, staleness)
    assert 1 <= each <= MAX_WEIGHT
    exact = min(examples, MAX_EXAMPLES) * 256 / (1 + staleness) ** 0.5
    assert abs(each - exact) <= max(1.0, min(examples, MAX_EXAMPLES))
    assert weight(examples, staleness + 1) <= each
    assert weight(examples + 1, staleness) >= each


def test_fresh_updates_weigh_their_examples() -> None:
    assert [weight(n, 0) for n in (1, 2, 4096, 4097, 2**32)] == [256, 512, 4096 * 256, 4096 * 256, 4096 * 256]
    assert weight(1, 10**9) == 1
    assert isqrt(65536 // 4) == weight(1, 3)
