"""The aggregate equals an exact oracle over whole numbers and fractions, whatever the order."""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.aggregate.version import MAX_FRAMES, Member, Partial, Sgd, State, Strategy, add, finish
from broker.aggregate.weight import MAX_EXAMPLES, MAX_WEIGHT, weight
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire.announcement import SCALE_BITS as SCALE
from edgeclient.wire.announcement import VALUE_LIMIT as LIMIT

SIZE = 12


def added(batch: Sequence[tuple[SparseUpdate, int]], size: int = 1) -> Partial:
    """Each of them an update of its own."""
    partial = Partial.empty(size)
    for number, (entries, each) in enumerate(batch):
        add(partial, Member(entries, number, each), Strategy(Sgd()))
    return partial


def stepped(learning_rate: float, parameters: np.ndarray, partial: Partial) -> np.ndarray:
    return finish(Strategy(Sgd(learning_rate)), parameters, State(), partial).parameters


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
    partial = added(data.draw(st.permutations(batch)), SIZE)
    assert partial.total.dtype == np.int64
    assert partial.total.tolist() == exact
    if not batch:
        return
    total_weight = sum(each for _, each in batch)
    parameters = np.linspace(-3, 3, SIZE, dtype=np.float32)
    made = finish(Strategy(Sgd(learning_rate)), parameters, State(), partial)
    assert made.parameters.dtype == np.float32
    assert made.total_weight == total_weight
    assert Strategy.recorded(made.terms) == Strategy(Sgd(learning_rate))
    for i in range(SIZE):
        mean = Fraction(exact[i], 2**SCALE * total_weight)
        wanted = Fraction(float(parameters[i])) + Fraction(learning_rate) * mean
        scale = abs(Fraction(float(parameters[i]))) + abs(Fraction(learning_rate) * mean)
        assert abs(Fraction(float(made.parameters[i])) - wanted) <= scale * Fraction(1, 2**23) + Fraction(1, 2**149)


def constant(value: float, count: int = 1) -> SparseUpdate:
    return SparseUpdate(count, np.arange(count), FloatValues(np.full(count, value, np.float32)))


def test_the_largest_batch_does_not_wrap() -> None:
    batch = [(constant(LIMIT), MAX_WEIGHT)] * MAX_FRAMES
    assert added(batch).total.tolist() == [MAX_FRAMES * MAX_WEIGHT * 2**30]
    assert MAX_FRAMES * MAX_WEIGHT * 2**30 < 2**63
    down = [(constant(-LIMIT), MAX_WEIGHT)] * MAX_FRAMES
    assert added(down).total.tolist() == [-MAX_FRAMES * MAX_WEIGHT * 2**30]


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
        added(batch)


def test_what_is_refused_leaves_nothing() -> None:
    partial = added([(constant(1.0), 3)])
    before = (partial.total.tolist(), dict(partial.weights), partial.frames)
    with pytest.raises(ValueError, match="outside the bounds"):
        add(partial, Member(constant(3e38), "another", 1), Strategy(Sgd()))
    assert (partial.total.tolist(), partial.weights, partial.frames) == before


def test_sgd_averages_by_weight_and_leaves_its_inputs_alone() -> None:
    parameters = np.array([1.0, 2.0], np.float32)
    partial = added([(constant(1.0, 2), 3), (constant(-1.0, 2), 1)], 2)
    before = partial.total.copy()
    assert stepped(1.0, parameters, partial).tolist() == [1.5, 2.5]
    assert stepped(0.5, parameters, partial).tolist() == [1.25, 2.25]
    assert parameters.tolist() == [1.0, 2.0]
    assert np.array_equal(partial.total, before)


def test_an_update_weighs_once_however_many_frames_it_has() -> None:
    partial = Partial.empty(1)
    for update in ("light", "heavy", "heavy", "heavy"):
        add(partial, Member(constant(1.0), update, 1 if update == "light" else 5), Strategy(Sgd()))
    made = finish(Strategy(Sgd()), np.zeros(1, np.float32), State(), partial)
    assert made.total_weight == 6
    assert made.parameters.tolist() == [np.float32(16 / 6)]


def test_a_batch_without_members_makes_no_parameters() -> None:
    """Rather none than NaN, which would be published."""
    with pytest.raises(ValueError, match="without members"):
        stepped(1.0, np.ones(2, np.float32), Partial.empty(2))


def test_parameters_never_become_infinite() -> None:
    parameters = np.full(1, np.finfo(np.float32).max)
    assert np.isfinite(stepped(1e300, parameters, added([(constant(16.0), 1)]))).all()


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
