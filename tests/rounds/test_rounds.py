"""When a round closes: at its goal, at its deadline, and never too close to the last."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.rounds.trigger import Ages, Buffer

BUFFER = Buffer(goal=8, deadline_s=60.0, min_interval_s=5.0)


@pytest.mark.parametrize(
    ("updates", "opened_s", "last_s", "now", "wait_s"),
    [
        (0, None, 0.0, 1000.0, None),  # nothing waits
        (0, 1.0, 0.0, 1000.0, None),
        (1, 1000.0, 0.0, 1000.0, 60.0),
        (7, 1000.0, 0.0, 1059.0, 1.0),
        (7, 1000.0, 0.0, 1060.0, 0.0),
        (8, 1000.0, 0.0, 1001.0, 0.0),
        (500, 1000.0, 0.0, 1001.0, 0.0),
        (8, 1000.0, 999.0, 1001.0, 3.0),  # the last version is 2 s old
        (8, 1000.0, 996.0, 1001.0, 0.0),
        (1, 1000.0, 1058.0, 1060.0, 3.0),  # due, but too close to the last
    ],
)
def test_waits(updates: int, opened_s: float | None, last_s: float, now: float, wait_s: float | None) -> None:
    assert BUFFER.wait_s(updates=updates, opened_s=opened_s, last_s=last_s, now=now) == wait_s


def test_a_passed_deadline_is_due() -> None:
    wait_s = BUFFER.wait_s(updates=1, opened_s=1000.0, last_s=0.0, now=2000.0)
    assert wait_s is not None
    assert wait_s <= 0


@pytest.mark.parametrize("updates", [1, 8])
def test_a_clock_that_was_set_back_a_year_stops_nothing(updates: int) -> None:
    year = 3.2e7
    now, waited = 1000.0, 0.0
    for _ in range(100):  # the loop of the service: ask, wait, ask again
        wait_s = BUFFER.wait_s(updates=updates, opened_s=now - waited + year, last_s=year, now=now)
        assert wait_s is not None
        if wait_s <= 0:
            return
        now, waited = now + wait_s, waited + wait_s
    pytest.fail(f"still waiting after {waited} s")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 20), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.1, 1e4), st.floats(0, 1e4)
)
def test_no_wait_is_longer_than_the_settings_say(
    updates: int, opened_s: float, last_s: float, now: float, deadline_s: float, interval_s: float
) -> None:
    buffer = Buffer(8, deadline_s, interval_s)
    wait_s = buffer.wait_s(updates=updates, opened_s=opened_s, last_s=last_s, now=now)
    assert wait_s is not None
    assert wait_s <= max(deadline_s, interval_s) + 1e-6
    if opened_s <= now and last_s <= now:  # waiting as long as told is enough
        later = buffer.wait_s(updates=updates, opened_s=opened_s, last_s=last_s, now=now + max(0.0, wait_s) + 1e-6)
        assert later is not None
        assert later <= 0
        assert wait_s >= last_s + interval_s - now - 1e-6


def test_a_clock_that_jumps_changes_no_age() -> None:
    ages = Ages()
    assert ages.of("opened", 1000.0, wall_s=1005.0, steady_s=70.0) == 5
    assert ages.of("opened", 1000.0, wall_s=1005.0 + 3e7, steady_s=71.0) == 6
    assert ages.of("opened", 1000.0, wall_s=1005.0 - 3e7, steady_s=72.0) == 7
    assert ages.of("other", 1000.0, wall_s=999.0, steady_s=72.0) == 0  # a correction, not a jump
    assert ages.of("opened", 2000.0, wall_s=1006.0, steady_s=73.0) == math.inf  # written before the clock was set back
