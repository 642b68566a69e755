"""Absolute values at the aggregator: exact sums in any order, and a step that cannot leave the domain."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.aggregate.absolute import Sums
from broker.aggregate.version import MAX_FRAMES, Member, Partial, Sgd, State, Strategy, add, finish
from broker.aggregate.weight import MAX_WEIGHT
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.absolute import LARGEST_ABSOLUTE, Absolute, bfloat16
from edgeclient.compress.update import FloatValues, SparseUpdate

LAYOUT = Layout((Parameter("w", (3,)), Parameter("mean", (4,), Bounds()), Parameter("var", (4,), Bounds(low=0.0))))
A = LAYOUT.domain.size
ENTRIES = SparseUpdate(LAYOUT.size, np.array([1]), FloatValues(np.array([0.5], np.float32)))
NUMBERS = st.floats(width=32, allow_nan=False, min_value=-LARGEST_ABSOLUTE, max_value=LARGEST_ABSOLUTE)


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    made = []
    for number in range(draw(st.integers(1, 8))):
        first, count = draw(st.integers(0, A - 1)), draw(st.integers(0, A))
        values = np.array(draw(st.lists(NUMBERS, min_size=count, max_size=count)), np.float32)
        carried = None
        if count:
            places = Absolute(first, values).places(A)
            carried = Absolute(first, bfloat16(np.clip(values, LAYOUT.domain.low[places], LAYOUT.domain.high[places])))
        weight = draw(st.sampled_from([1, 25_600, MAX_WEIGHT]) | st.integers(1, MAX_WEIGHT))
        made.append(Member(ENTRIES, number, weight, {}, carried))
    return made


def partial(batch: list[Member]) -> Partial:
    made = Partial.empty(LAYOUT.size, LAYOUT.domain)
    for member in batch:
        add(made, member, Strategy(Sgd()))
    return made


def sums(made: Partial) -> bytes:
    return b"".join(each.tobytes() for each in (made.absolute.high, made.absolute.low, made.absolute.weights))


@settings(max_examples=150, deadline=None)
@given(members(), st.data(), st.sampled_from([1e-6, 1.0, 100.0]))
def test_the_step_is_the_exact_convex_one_whatever_the_order(
    batch: list[Member], data: st.DataObject, learning_rate: float
) -> None:
    old = LAYOUT.flatten({
        "w": np.ones(3, np.float32),
        "mean": np.array(data.draw(st.lists(NUMBERS, min_size=4, max_size=4)), np.float32),
        "var": np.abs(np.array(data.draw(st.lists(NUMBERS, min_size=4, max_size=4)), np.float32)),
    })  # fmt: skip
    made = partial(batch)
    assert sums(made) == sums(partial(data.draw(st.permutations(batch))))
    result = finish(Strategy(Sgd(learning_rate)), old, State(), made)
    assert LAYOUT.fault(result.parameters) == ""
    for i, place in enumerate(LAYOUT.domain.places.tolist()):
        sent = [(Fraction(float(m.absolute.values[at])), m.weight) for m in batch if m.absolute is not None
                for at in np.flatnonzero(m.absolute.places(A) == i)]  # fmt: skip
        x = Fraction(float(old[place]))
        if sent:
            mean = sum((round(v * 2**24) * w for v, w in sent), start=0) / Fraction(sum(w for _, w in sent) * 2**24)
            x += (mean - x) / 2
            low, high = min(*(v for v, _ in sent), Fraction(float(old[place]))), max(v for v, _ in sent)
            assert low - Fraction(1, 2**24) <= x <= max(high, Fraction(float(old[place]))) + Fraction(1, 2**24)
        assert float(result.parameters[place]) == pytest.approx(float(x), rel=2**-23, abs=1e-30)


def test_the_largest_sums_do_not_wrap() -> None:
    made = Sums.empty(LAYOUT.domain)
    largest = np.full(A, LARGEST_ABSOLUTE, np.float32)
    lowest = np.concatenate([-largest[:4], largest[4:]])
    for _ in range(MAX_FRAMES):
        made.add(Absolute(0, lowest), MAX_WEIGHT)
    stepped, old = np.zeros(LAYOUT.size, np.float32), np.zeros(LAYOUT.size, np.float32)
    made.blend(stepped, old, 1.0)
    assert stepped[LAYOUT.domain.places].tolist() == lowest.tolist()


@pytest.mark.parametrize("wrong", [(0, [np.nan]), (4, [-1.0]), (A, [1.0]), (0, [2.0**37]), (0, [0.0] * (A + 1))])
def test_what_would_leave_the_domain_changes_nothing(wrong: tuple[int, Any]) -> None:
    made = partial([Member(ENTRIES, 0, 5, {}, Absolute(0, np.ones(A, np.float32)))])
    before, total = sums(made), made.total.tobytes()
    carried = Absolute(wrong[0], np.array(wrong[1], np.float32))
    with pytest.raises(ValueError, match="outside"):
        add(made, Member(ENTRIES, 1, 5, {}, carried), Strategy(Sgd()))
    assert (sums(made), made.total.tobytes(), list(made.weights)) == (before, total, [0])


def test_learning_rate_and_entries_have_no_part_in_it() -> None:
    batch = [Member(ENTRIES, 0, 5, {}, Absolute(0, np.full(A, 3.0, np.float32)))]
    old = np.ones(LAYOUT.size, np.float32)
    for rate in (1.0, 0.01, 50.0):
        made = finish(Strategy(Sgd(rate)), old, State(), partial(batch)).parameters
        assert made[LAYOUT.domain.places].tolist() == [2.0] * A
        assert made[:3].tolist() == [1, np.float32(1 + rate * 0.5), 1]
    assert finish(Strategy(Sgd(), blend=0.25), old, State(), partial(batch)).parameters[-1] == 1.5
