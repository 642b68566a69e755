"""Slices of absolute values: every number has its turn, whatever the lengths, and rounding keeps to bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclient.bundle.domain import Bounds, Domain
from edgeclient.compress.absolute import LARGEST_ABSOLUTE, Absolute, bfloat16, rotated
from edgeclient.compress.quantise import bfloat16_nearest


@pytest.mark.parametrize(("a", "count"), [(1, 16), (16, 16), (192, 16), (1000, 16), (9600, 800), (34_000, 1600)])
@pytest.mark.parametrize("start", [0, 70_000])
def test_every_number_travels_soon(a: int, count: int, start: int) -> None:
    values = np.arange(a, dtype=np.float32)
    turns = 3 * -(-a // count)
    carried = [rotated(values, "pi-7", number, count) for number in range(start, start + turns)]
    assert all(each.values.size == min(a, count) for each in carried)
    assert np.unique(np.concatenate([each.places(a) for each in carried])).size == a
    for each in carried:
        assert each.values.tobytes() == bfloat16(values[each.places(a)]).tobytes()


def test_a_slice_follows_from_the_number_alone_and_devices_begin_in_different_places() -> None:
    values = np.zeros(1000, np.float32)
    assert rotated(values, "pi-7", 5, 16).first == rotated(values, "pi-7", 5, 16).first
    assert len({rotated(values, f"pi-{i}", 0, 16).first for i in range(20)}) > 15


@given(st.floats(width=32, allow_nan=False, min_value=0, max_value=LARGEST_ABSOLUTE))
def test_rounding_is_that_of_the_grids(x: float) -> None:
    expected = bfloat16_nearest(x)
    both = np.array([x, -x], np.float32)
    assert bfloat16(both).tobytes() == np.array([expected, -expected], np.float32).tobytes()


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3),
    st.sampled_from([(None, None), (0.0, None), (None, -0.5), (0.25, 0.25), (-1.5, 2.0)]),
)
def test_what_is_clipped_and_rounded_is_admitted(
    values: list[float], bounds: tuple[float | None, float | None]
) -> None:
    domain = Domain.of([(slice(4, 7), Bounds(*bounds))])
    inside = domain.clipped(np.array(values, np.float32))
    assert domain.admits(rotated(inside, "d", 3, 2), np.array([0, 3, 7]))


def test_what_is_not_admitted() -> None:
    domain = Domain.of([(slice(2, 4), Bounds(0.0, 1.0)), (slice(4, 6), None), (slice(6, 8), Bounds())])
    none = np.empty(0, np.int64)
    assert domain.places.tolist() == [2, 3, 6, 7]

    def admits(first: int, *values: float) -> bool:
        return domain.admits(Absolute(first, np.array(values, np.float32)), none)

    assert admits(1, 1.0, -9.0, 9.0, 0.0)  # after the last comes the first
    assert not admits(0, -0.25)
    assert not admits(1, 1.5)
    assert not admits(3, 0.0, 2.0)
    assert not admits(4, 0.5)
    assert not admits(0, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert not admits(2, 2.0**37)
    assert [domain.admits(None, np.array([0, place])) for place in range(1, 9)] == [
        True, False, False, True, True, False, False, True,
    ]  # fmt: skip
    nothing = Domain.of([(slice(0, 9), None)])
    assert nothing.admits(None, np.arange(9))
    assert not nothing.admits(Absolute(0, np.zeros(1, np.float32)), none)
