"""Two boards with one id: the rules, and what aggregator, devices, `devices`, `why` and the page say of real ones."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
from command_lines import edgebroker
from hypothesis import given
from hypothesis import strategies as st

from broker.monitor.metrics import Metrics
from broker.monitor.namesakes import SAID, Turns, alternated_s, shared
from broker.page.read_model import ReadModel
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint

TASK = "twins"


@given(st.lists(st.integers(0, 3), max_size=40))
def test_turns_are_seen_where_a_store_comes_back_twice(epochs: list[int]) -> None:
    turns = Turns()
    said = [turns.heard("d", epoch) for epoch in epochs]
    back, seen = 0, list[int]()
    for i, epoch in enumerate(epochs):
        if i and epoch != epochs[i - 1]:
            back += epoch in seen
            assert said[i] == (back > 1)
        else:
            assert not said[i]
        seen.append(epoch)


def test_who_begins_anew_never_alternates() -> None:
    turns = Turns()
    assert not any(turns.heard("d", epoch) for epoch in (1, 1, 2, 2, 3, 4, 5, 6))
    assert alternated_s([(1.0, 5.0), (5.0, 9.0), (9.5, 9.5)]) is None
    assert alternated_s([]) is None


def test_an_alternation_of_long_ago_is_over() -> None:
    stores = [(0.0, 100.0), (50.0, 200.0)]
    assert shared(stores, 101.0)
    assert not shared(stores, 100.0 + 86_400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Path]:
    """An aggregator and two boards that take turns, until both logs have noticed."""
    folder = tmp_path_factory.mktemp("twins")
    logs = [folder / each for each in ("broker/a.log", "one/d.log", "two/d.log")]
    for each in logs:
        each.parent.mkdir()
    with (
        fleet.aggregator(folder / "broker", endpoint, TASK, Task(goal=1, min_interval_s=0.1)),
        fleet.device(folder / "one", endpoint, "raspberrypi", TASK),
        fleet.device(folder / "two", endpoint, "raspberrypi", TASK),
    ):
        until_s = time.monotonic() + 90
        while not all("this id" in log.read_text() for log in logs):
            assert time.monotonic() < until_s, [log.read_text()[-1000:] for log in logs]
            time.sleep(0.1)
        yield folder


@pytest.mark.case("fleet 15")
def test_both_logs_say_so_and_not_twice(folder: Path) -> None:
    assert SAID in (folder / "broker/a.log").read_text()
    for each in ("one", "two"):
        log = (folder / each / "d.log").read_text()
        assert log.count("another board uses this id") == 1
        assert "copy of this store" not in log


@pytest.mark.case("fleet 15")
def test_devices_why_and_page_say_so_and_tell_of_no_loss(folder: Path) -> None:
    config = str(folder / "broker/a.toml")
    told = [edgebroker("devices", config).stdout, edgebroker("why", "raspberrypi", "--config", config).stdout]
    metrics = Metrics(disk=lambda: (0, 0))
    model = ReadModel(folder / "broker/data/ledger.db", metrics)
    page = model.device(TASK, "raspberrypi")
    model.close()
    assert page is not None
    for text in (*told, "\n".join(page["story"])):
        assert "Two boards use this id" in text
        assert "dropped" not in text
    (row,) = json.loads(edgebroker("devices", config, "--json").stdout)["devices"]
    assert row["shared"] is True
