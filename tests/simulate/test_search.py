"""The search, over a scripted measure: it finds what is best, spares what is hopeless and admits what is as good."""

import math
from collections.abc import Callable

import pytest

from broker.simulate.rehearsal import enough
from broker.simulate.search import (
    DENSITIES,
    FAILED,
    HALF_A_POINT,
    Choice,
    Worth,
    batch,
    hopeless,
    preferred,
    recommended,
)  # fmt: skip

START = Choice(0.02, 1, 0.01)


def searched(worth: Callable[[Choice], Worth], start: Choice = START) -> dict[Choice, Worth]:
    tried: dict[Choice, Worth] = {}
    while wanted := batch(start, DENSITIES, tried, HALF_A_POINT):
        assert not tried.keys() & set(wanted)
        tried |= {each: worth(each) for each in wanted}
    return tried


def scripted(best: Choice, each: Choice) -> Worth:
    far = abs(math.log(each.learning_rate / best.learning_rate)) + abs(math.log2(each.local_epochs / best.local_epochs))
    score = 0.9 - 0.05 * far - 0.01 * abs(math.log(each.density / best.density))
    return FAILED if each.learning_rate > 30 * best.learning_rate else Worth(score, score, 1e5 * each.density)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.5])
@pytest.mark.parametrize("epochs", [1, 4])
def test_it_ends_near_the_best(rate: float, epochs: int) -> None:
    best = Choice(rate, epochs, 0.05)
    tried = searched(lambda each: scripted(best, each))
    found = preferred(tried, HALF_A_POINT)
    assert 1 / 2 < found.learning_rate / rate < 2
    assert found[1:] == best[1:]
    assert len(tried) <= 12


def test_where_everything_diverges_it_ends() -> None:
    assert len(searched(lambda _: FAILED)) <= 10


def test_a_rate_beyond_the_first_ones_is_found_from_either_side() -> None:
    for start in (1e-4, 10.0):
        tried = searched(lambda each: scripted(Choice(0.02, 1, 0.01), each), START._replace(learning_rate=start))
        assert 1 / 5 < preferred(tried, HALF_A_POINT).learning_rate / 0.02 < 5


def test_of_equals_the_cheap_one() -> None:
    tried = searched(lambda each: Worth(0.9 + each.density / 100, 0.9, 1e5 * each.density))
    assert preferred(tried, HALF_A_POINT).density == 0.0025
    assert preferred(tried, 0.0).density == 0.05


def test_only_what_is_better_on_both_is_recommended() -> None:
    given = Worth(0.8, 0.85, 100)
    assert recommended(Worth(0.81, 0.86, 200), given, HALF_A_POINT) == "worth"
    assert recommended(Worth(0.9, 0.85, 100), given, HALF_A_POINT) == ""
    assert recommended(Worth(0.796, 0.846, 89), given, HALF_A_POINT) == "bytes"
    assert recommended(Worth(0.79, 0.86, 20), given, HALF_A_POINT) == ""
    assert recommended(Worth(0.9, 0.9, 100, whole=False), given, HALF_A_POINT) == ""
    assert recommended(FAILED, FAILED, HALF_A_POINT) == ""


def test_who_catches_up_is_not_given_up() -> None:
    best = [1 - math.exp(-version / 10) for version in range(51)]
    slow = [0.8 * each for each in best]
    assert not any(hopeless(slow[: at + 1], best, 50) for at in range(30))
    assert hopeless(slow[:39], best, 50)
    assert hopeless([math.nan] * 14, best, 50)


def test_what_more_data_would_bring() -> None:
    said = [enough(Worth(0.8, 0.8, 1), Worth(0.8 + by, 0.8 + by, 1), HALF_A_POINT) for by in (-0.01, 0.01, 0.05)]
    assert [each.partition(" ")[0] for each in said] == ["Enough:", "More", "More"]
    assert said[1] != said[2]
