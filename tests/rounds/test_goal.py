"""`goal = "auto"`: batches follow the devices that take part, however many there are and become."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.rounds import goal
from broker.rounds.goal import Turnout
from broker.rounds.trigger import Buffer


def versions(fleet: Callable[[float], int], round_s: float, until_s: float) -> list[tuple[float, int]]:
    """When versions are made, and of how many updates, while `fleet(s)` devices each learn a version once, for so long.

    Devices are spread over half a round; the trigger and what it is worked out of are the aggregator's.
    """
    made: list[tuple[float, int, list[str]]] = []
    waiting: dict[str, float] = {}
    learns: dict[str, float] = {}  # until
    has: dict[str, int] = {}
    now = 0.0
    while now < until_s:
        for number in range(fleet(now)):
            name = f"d{number}"
            if name not in learns and has.get(name, -1) < len(made):
                has[name] = len(made)
                learns[name] = now + round_s * (1 + (number % 8) / 16)
        for name in [name for name, ready_s in learns.items() if ready_s <= now]:
            waiting[name] = learns.pop(name)
        last = made[-goal.ROUNDS - 1 :]
        turnout = Turnout.of([(each[0], each[1]) for each in last], [each[2] for each in last[-goal.ROUNDS :]])
        wanted = goal.goal(turnout)
        trigger = Buffer(wanted, goal.deadline_s(turnout, wanted), 5.0)
        wait_s = trigger.wait_s(
            updates=len(waiting),
            opened_s=min(waiting.values(), default=None),
            last_s=made[-1][0] if made else -1e9,
            now=now,
        )
        if wait_s is not None and wait_s <= 0:
            made.append((now, len(waiting), sorted(waiting)))
            waiting = {}
        now += 1.0
    return [(made_s, updates) for made_s, updates, _ in made]


@pytest.mark.parametrize("round_s", [2.0, 20.0, 120.0])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_few_devices_never_wait_for_more(devices: int, round_s: float) -> None:
    made = versions(lambda _: devices, round_s, until_s=3600)
    assert len(made) >= 3600 / (2 * round_s + 6)
    assert max(later[0] - one[0] for one, later in pairwise(made)) <= 2 * round_s + 6


@pytest.mark.parametrize("devices", [16, 200])
def test_a_fleet_s_versions_are_of_about_half_of_it(devices: int) -> None:
    made = versions(lambda _: devices, 20.0, until_s=1800)
    later = [updates for made_s, updates in made if made_s > 300]
    assert min(later) >= min(64, devices // 3)
    assert len(made) < 1800 / 10  # not one for every update


@pytest.mark.parametrize("left", [1, 2])
def test_a_fleet_that_shrinks_goes_on_within_minutes(left: int) -> None:
    made = versions(lambda now: 32 if now < 600 else left, 20.0, until_s=3600)
    after = [made_s for made_s, _ in made if made_s > 640]
    assert len([made_s for made_s in after if made_s > 1800]) >= 1800 / (2 * 20 + 6)


def test_a_fleet_that_grows_is_followed() -> None:
    made = versions(lambda now: 1 if now < 300 else 60, 20.0, until_s=1200)
    assert min(updates for made_s, updates in made if made_s > 700) >= 20


@given(st.integers(0, 10**6), st.none() | st.floats(0, 1e9))
def test_within_the_bounds_whatever_the_turnout(devices: int, update_s: float | None) -> None:
    turnout = Turnout(devices, update_s)
    wanted = goal.goal(turnout)
    assert 1 <= wanted <= goal.MOST
    assert wanted <= max(1, devices)
    assert 60 <= goal.deadline_s(turnout, wanted) <= 600


def test_a_clock_that_was_set_back_tells_nothing() -> None:
    assert Turnout.of([(1000.0, 2), (10.0, 2)], [["a"], ["b"]]) == Turnout(2, None)
    assert Turnout.of([], []) == Turnout(0, None)
