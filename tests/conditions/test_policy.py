"""The policy: a table of situations with the expected decision and reason, and laws over all of them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclient.conditions.board import Observed
from edgeclient.conditions.reasons import (
    History,
    Queue,
    Send,
    Train,
    Wait,
    decide,
    hindrance,
    no_fetch,
)
from edgeclient.settings import Conditions, ConfigError, Device, structure
from edgeclient.wire import status

NOON = 720
NEW = Queue(new_version=True)
DUE = Queue(due=(900, 800, 700), waiting=3)
BOTH = replace(DUE, new_version=True)
OLD = replace(DUE, oldest_s=7 * 3600)
EAGER, BALANCED, FRUGAL = Conditions("eager"), Conditions(), Conditions("frugal")
NIGHT = Conditions(quiet="22:00-07:00")
METERED = Observed(metered=True)


def low(percent: int = 20) -> Observed:
    return Observed(on_battery=True, battery_percent=percent)


SITUATIONS = [
    # conditions, rules, queue, history → decision, reason
    (Observed(), BALANCED, NEW, History(), Train(), "training"),
    (Observed(), BALANCED, DUE, History(), Send(3), "sending"),
    (Observed(), BALANCED, BOTH, History(), Send(3), "sending"),
    (Observed(), BALANCED, Queue(), History(), Wait, "trained on this version"),
    (Observed(), BALANCED, Queue(waiting=2), History(), Wait, "2 frames await their receipt"),
    (Observed(on_battery=False, battery_percent=5), BALANCED, NEW, History(), Train(), ""),
    (Observed(battery_percent=5), BALANCED, NEW, History(), Train(), ""),
    (Observed(on_battery=True), BALANCED, NEW, History(), Train(), ""),
    (low(30), BALANCED, NEW, History(), Train(), ""),
    (low(29), BALANCED, NEW, History(), Wait, "battery at 29 %"),
    (low(29), BALANCED, DUE, History(), Wait, "needs 30 % or a charger"),
    (low(29), EAGER, BOTH, History(), Wait, "battery"),
    (low(80), FRUGAL, NEW, History(), Wait, "on battery, and training needs a charger"),
    (low(80), FRUGAL, DUE, History(), Send(3), ""),
    (low(49), FRUGAL, DUE, History(), Wait, "needs 50 %"),
    (Observed(battery_temperature_c=38.5), BALANCED, NEW, History(), Wait, "the battery's 38 °C"),
    (Observed(battery_temperature_c=38.5), BALANCED, DUE, History(), Send(3), ""),
    (Observed(temperature_c=76.0), BALANCED, NEW, History(), Wait, "76 °C is over 75 °C"),
    (Observed(temperature_c=76.0), EAGER, NEW, History(), Train(), ""),
    (Observed(temperature_c=75.0), BALANCED, NEW, History(), Train(), ""),
    (Observed(temperature_c=99.0), Conditions(max_temperature_c=0), NEW, History(), Train(), ""),
    (Observed(throttled=True), EAGER, NEW, History(), Wait, "throttles"),
    (Observed(throttled=True), BALANCED, DUE, History(), Send(3), ""),
    (Observed(throttled=False), BALANCED, NEW, History(), Train(), ""),
    (Observed(pressure=41.0), BALANCED, NEW, History(), Wait, "others wait for a core 41 %"),
    (Observed(pressure=16.0), FRUGAL, NEW, History(), Wait, "over 15 %"),
    (Observed(pressure=99.0), EAGER, NEW, History(), Train(), ""),
    (Observed(pressure=0.0, load_per_core=9.0), BALANCED, NEW, History(), Train(), ""),
    (Observed(load_per_core=1.6), BALANCED, NEW, History(), Wait, "load 1.6 per core is over 1.5"),
    (Observed(load_per_core=1.5), BALANCED, NEW, History(), Train(), ""),
    (Observed(load_per_core=9.0), BALANCED, BOTH, History(), Send(3), ""),
    (Observed(free_disk_bytes=10 << 20), BALANCED, NEW, History(), Wait, "10 MiB are free on the disk, needs 64"),
    (METERED, BALANCED, NEW, History(), Wait, "the network is metered: training waits"),
    (METERED, EAGER, NEW, History(), Train(), ""),
    (METERED, BALANCED, DUE, History(), Wait, "3 frames wait 6.0 h for another"),
    (METERED, BALANCED, OLD, History(), Send(3), ""),
    (METERED, FRUGAL, OLD, History(), Wait, "3 frames wait for another"),
    (METERED, EAGER, DUE, History(), Send(3), ""),
    (METERED, BALANCED, OLD, History(metered_day_bytes=(1 << 20) - 1800), Send(2), ""),
    (METERED, BALANCED, OLD, History(metered_day_bytes=1 << 20), Wait, "budget is used up (0 bytes left)"),
    (METERED, BALANCED, OLD, History(metered_month_bytes=(20 << 20) - 100), Wait, "budget is used up (100 bytes left)"),
    (METERED, BALANCED, OLD, History(metered_day_bytes=1 << 30), Wait, "(0 bytes left)"),
    (METERED, Conditions(metered_day_bytes=899), OLD, History(), Wait, "over its whole budget of 899 bytes"),
    (METERED, Conditions("eager", metered_month_bytes=0), OLD, History(), Wait, "over its whole budget of 0"),
    (Observed(metered=False), BALANCED, DUE, History(metered_day_bytes=1 << 30), Send(3), ""),
    (Observed(), BALANCED, DUE, History(link_up=False), Wait, "waiting for the broker with 3 frames"),
    (Observed(), BALANCED, BOTH, History(link_up=False), Train(), ""),
    (Observed(), BALANCED, NEW, History(wear_wait_s=600), Wait, "spares the card: the next round begins in 10 min"),
    (Observed(), BALANCED, NEW, History(wear_wait_s=1e-200), Wait, "spares the card"),
    (Observed(), BALANCED, BOTH, History(wear_wait_s=600), Send(3), ""),
    (Observed(), EAGER, BOTH, History(paused="paused by its owner"), Wait, "paused by its owner"),
    (Observed(temperature_c=76.0), BALANCED, BOTH, History(link_up=False), Wait, "76 °C"),
]  # fmt: skip


@pytest.mark.parametrize(("observed", "granted", "queue", "history", "wanted", "because"), SITUATIONS)
def test_situations(
    observed: Observed, granted: Conditions, queue: Queue, history: History, wanted: object, because: str
) -> None:
    made = decide(NOON, observed, granted, queue, history)
    assert because in made.because
    if wanted is Wait:
        assert isinstance(made, Wait)
    else:
        assert made == wanted


@pytest.mark.parametrize(
    ("minute", "quiet"),
    [(22 * 60, True), (23 * 60 + 59, True), (0, True), (6 * 60 + 59, True), (7 * 60, False), (720, False)],
)
def test_quiet_hours_go_over_midnight(minute: int, quiet: bool) -> None:
    made = decide(minute, Observed(), NIGHT, BOTH, History())
    assert made == (Wait("quiet hours until 07:00", "quiet-hours", forbidden=True) if quiet else Send(3))


def test_situations_come_under_the_words_that_metrics_count() -> None:
    words = {
        decide(NOON, observed, granted, queue, history).doing for observed, granted, queue, history, *_ in SITUATIONS
    }
    words.add(decide(0, Observed(), NIGHT, BOTH, History()).doing)
    # The others are no decisions of the policy: the agent's and the connection's.
    assert set(status.DOINGS) - words == {"starting", "model", "failed", "stopped"}
    assert decide(NOON, Observed(metered=True), FRUGAL, DUE, History()).doing == "metered"
    assert decide(NOON, low(80), FRUGAL, NEW, History()).doing == "charger"
    assert decide(NOON, Observed(battery_temperature_c=39.0), BALANCED, NEW, History()).doing == "heat"


def test_there_are_at_least_forty_situations() -> None:
    assert len(SITUATIONS) >= 40


def some(**fields: st.SearchStrategy[object]) -> dict[str, st.SearchStrategy[object]]:
    return {name: st.none() | values for name, values in fields.items()}


OBSERVED = st.builds(
    Observed,
    **some(
        on_battery=st.booleans(), battery_percent=st.integers(0, 100), load_per_core=st.floats(0, 1e3),
        free_bytes=st.integers(0, 1 << 40), pressure=st.floats(0, 100), temperature_c=st.floats(-50, 150),
        battery_temperature_c=st.floats(-50, 100), throttled=st.booleans(),
        network=st.sampled_from(["none", "ethernet", "wifi", "cellular"]), metered=st.booleans(),
        free_disk_bytes=st.integers(0, 1 << 50),
    ),
)  # fmt: skip
RULES = st.sampled_from([EAGER, BALANCED, FRUGAL, NIGHT])
QUEUES = st.builds(
    Queue, st.booleans(), st.lists(st.integers(1, 65_536), max_size=8), st.integers(0, 99), st.floats(0, 1e9)
)
HISTORIES = st.builds(
    History,
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 50),
    st.floats(0, 1e6),
    st.sampled_from(["", "why"]),
    st.booleans(),
)
MINUTES = st.integers(0, 1439)


@given(MINUTES, OBSERVED, RULES, QUEUES, HISTORIES)
def test_every_situation_has_a_decision_and_keeps_to_the_rules(
    minute: int, observed: Observed, granted: Conditions, queue: Queue, history: History
) -> None:
    made = decide(minute, observed, granted, queue, history)
    assert made.because
    assert made.doing in status.DOINGS
    if isinstance(made, Send):
        assert 0 < made.frames <= len(queue.due)
        assert history.link_up
        if observed.metered:
            assert granted.metered != "no"
            assert sum(queue.due[: made.frames]) <= granted.metered_day_bytes - history.metered_day_bytes
    elif isinstance(made, Train):
        assert queue.new_version
        assert hindrance(observed, granted) is None
    if not isinstance(made, Wait):
        assert not history.paused
        assert not (observed.on_battery and (observed.battery_percent or 100) < granted.min_battery_percent)


def test_models_are_fetched_within_the_budget() -> None:
    assert not no_fetch(NOON, Observed(), FRUGAL, History(), 1 << 40)
    assert no_fetch(NOON, METERED, FRUGAL, History(), 1)
    assert not no_fetch(NOON, METERED, BALANCED, History(), 1 << 20)
    assert no_fetch(NOON, METERED, BALANCED, History(metered_day_bytes=1), 1 << 20)


def test_nothing_is_fetched_when_nothing_may_happen() -> None:
    assert no_fetch(23 * 60, Observed(), NIGHT, History(), 1)
    assert not no_fetch(NOON, Observed(), NIGHT, History(), 1)
    assert no_fetch(NOON, Observed(on_battery=True, battery_percent=29), BALANCED, History(), 1)
    assert no_fetch(NOON, Observed(), BALANCED, History(paused="by its owner"), 1)


def configured(text: dict[str, object]) -> Conditions:
    values = {"device": "d", "task": "t", "directory": ".", "data": {"source": "x.npz"}, "conditions": text}
    return structure(values, Device, where="test").conditions


def test_presets_and_what_changes_them() -> None:
    assert configured({}) == BALANCED
    assert configured({"preset": "frugal"}) == FRUGAL
    changed = configured({"preset": "eager", "max_temperature_c": 0, "min_battery_percent": 0})
    assert changed == Conditions("eager", max_temperature_c=0.0, min_battery_percent=0)
    assert (changed.max_battery_c, changed.metered) == (38.0, "yes")
    assert configured({"max_load": 0, "quiet": "23:30-06:00"}) == Conditions(max_load=0.0, quiet="23:30-06:00")
    for lower in ("train_on_battery", "max_battery_c", "max_temperature_c", "max_pressure", "max_load"):
        assert getattr(FRUGAL, lower) < getattr(BALANCED, lower)
    with pytest.raises(ConfigError, match="quiet"):
        configured({"quiet": "ten to six"})
    with pytest.raises(ConfigError, match="preset"):
        configured({"preset": "lazy"})
