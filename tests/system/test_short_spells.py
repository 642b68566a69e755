"""Lives that are too short: windows of `once` over a slow link, power cuts within rounds; and status that is so."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgebroker, edgeclient

from broker.ledger.opening import open_ledger
from broker.processes import children
from broker.settings import Task
from broker.upkeep import accounts
from edgeclient.link.mqtt import Endpoint, Link, Message
from edgeclient.wire import announcement, status, topics
from edgeclient.wire.announcement import Policy
from edgeclient.wire.status import Status
from tools.chaos.proxy import Proxy
from tools.chaos.schedule import CALM

# Far more than a minute's work.
LONG = Task(goal=1, min_interval_s=0.2, keep_frames_of_versions=-1, policy=Policy(local_epochs=1000, batch_size=1))


def until(condition: Callable[[], Any], log: Path, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, log.read_text()[-3000:] if log.exists() else log
        time.sleep(0.05)


def counted(folder: Path, task: str) -> int:
    (row,) = json.loads(edgebroker("status", str(folder / "broker/a.toml"), "--json").stdout)["tasks"]
    assert row["task"] == task
    return int(row["devices"].get("pi", {"applied": 0})["applied"])


def applied(folder: Path) -> int:
    path = folder / "state/status.json"
    return int(json.loads(path.read_text())["applied"]) if path.exists() else 0


def exact(folder: Path, task: str) -> None:
    """By the auditor's account nothing is lost and nothing counted twice; neither side runs."""
    with open_ledger(folder / "broker/data/ledger.db", read_only=True) as ledger:
        account = accounts.examine(ledger, task, "pi", folder / "d.toml")
        _, _, doubled = ledger.frame_counts(task)["pi"]
    assert (account.law_holds, account.lost, doubled, account.renewals) == (True, 0, 0, 0), account


def why(folder: Path) -> str:
    return edgebroker("why", "pi", "--config", str(folder / "broker/a.toml")).stdout


@contextmanager
def killed(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.case("fleet 61")
@pytest.mark.case("fleet 55")
def test_once_in_short_windows_over_a_slow_link_gets_its_update_out(tmp_path: Path, endpoint: Endpoint) -> None:
    """A model of 171 kB, of which a window carries a few chunks: every chunk comes once, and each end says how far."""
    task, said = "s-windows", list[str]()
    (tmp_path / "broker").mkdir()
    faults = replace(CALM, down_bytes_s=30_000.0, up_bytes_s=30_000.0)
    with (
        fleet.aggregator(tmp_path / "broker", endpoint, task, Task(goal=8)),
        Proxy(endpoint.port, 7, faults) as proxy,
    ):
        config = fleet.write_device(tmp_path, Endpoint("127.0.0.1", proxy.open("pi")), "pi", task)
        config.write_text(config.read_text() + '[training]\naccel = "numpy"\n')  # no window for compiling kernels
        for _ in range(25):
            ended = edgeclient("once", str(config), "--timeout", "2.5")
            said.append(ended.stdout.splitlines()[-1])
            if ended.returncode == 0:
                break
            assert ended.returncode == 3, ended.stderr
        print(*said, sep="\n")
        assert "is trained on, and every frame is counted" in said[-1]
        assert counted(tmp_path, task) == applied(tmp_path) == 1
        assert proxy.counters.down_bytes < 2.2 * len(fleet.BUNDLE)
    far = [line for line in said if "of 11 chunks" in line]
    assert far
    assert far == sorted(far, key=lambda line: int(line.split(" of 11")[0].rsplit(" ", 1)[1]))
    assert "goes on from there" in far[0]
    exact(tmp_path, task)


@pytest.mark.case("fleet 63")
def test_a_device_that_is_killed_within_every_round_makes_it_shorter(tmp_path: Path, endpoint: Endpoint) -> None:
    """kill -9 within rounds of a minute: after one that was lost, the next ends in time and is counted."""
    task, log = "s-killed", tmp_path / "d.log"
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    config.write_text(config.read_text() + '[training]\nmax_epochs = 1000\nmax_seconds = 60\naccel = "numpy"\n')
    with fleet.aggregator(tmp_path / "broker", endpoint, task, LONG):
        first = fleet.start_device(config)
        with killed(first):
            until(lambda: "began_s" in _spells(tmp_path) and _spells(tmp_path)["lived_s"] > 0, log)
            lived_s = _spells(tmp_path)["lived_s"]
            until(lambda: _spells(tmp_path)["lived_s"] > lived_s, log)
        assert counted(tmp_path, task) == 0
        second = fleet.start_device(config)
        with killed(second):
            until(lambda: "at most: the last start ended within a round" in _note(tmp_path), log)
            assert "made shorter" in edgeclient("status", str(config)).stdout or applied(tmp_path)
            until(lambda: applied(tmp_path) > 0, log)
        assert counted(tmp_path, task) >= 1
        # What the second life has left behind at the MQTT broker.
        until(lambda: "Its last start ended within a round" in why(tmp_path), log)
    assert "the last start ended within a round, after about" in log.read_text()
    exact(tmp_path, task)


def _spells(folder: Path) -> dict[str, Any]:
    path = folder / "state/spells.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _note(folder: Path) -> str:
    path = folder / "state/status.json"
    return str(json.loads(path.read_text())["note"]) if path.exists() else ""


def _status(link: Link, timeout_s: float = 30, **wanted: object) -> Status:
    def fits(message: Message) -> bool:
        said = status.decode(message.payload)
        return all(getattr(said, key) == value for key, value in wanted.items())

    return status.decode(fleet.await_message(link, fits, timeout_s).payload)


@pytest.mark.case("fleet 64")
def test_the_late_will_of_an_earlier_life_is_contradicted(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "s-will"
    own = topics.status(task, "pi")
    with fleet.hand(endpoint, own) as link, fleet.device(tmp_path, endpoint, "pi", task):
        now = _status(link, state="online", note="waiting for the model")
        late = Status("offline", "an-earlier-life", note="connection lost")
        link.publish(own, status.encode(late), retain=True)
        _status(link, state="offline", session="an-earlier-life")
        _status(link, state="online", session=now.session)
        with fleet.hand(endpoint, own) as other:
            assert _status(other, state="online").session == now.session


@pytest.mark.case("fleet 65")
def test_status_is_said_again_at_a_reconnect_within_a_round(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "s-within"
    own = topics.status(task, "pi")
    with fleet.hand(endpoint, own) as link, Proxy(endpoint.port, 7, replace(CALM, forgets=1.0)) as proxy:
        config = fleet.write_device(tmp_path, Endpoint("127.0.0.1", proxy.open("pi")), "pi", task)
        config.write_text(config.read_text() + "[training]\nmax_epochs = 1000\n")
        fleet.publish(link, task, fleet.BUNDLE)
        announced = replace(fleet.announcement(task, 0, fleet.START), policy=LONG.policy)
        link.publish(topics.head(task), announcement.encode(announced), retain=True)
        process = fleet.start_device(config)
        try:
            now = _status(link, 60, state="online", doing="training")
            proxy.cut()
            proxy.mend()  # and the connection is forgotten
            _status(link, state="offline", note="connection lost")
            assert _status(link, state="online", doing="training").session == now.session
        finally:
            children.end(process)


@pytest.mark.case("fleet 07")
def test_who_runs_is_said_to_run_before_the_first_model_and_by_another_account(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    task, log = "s-runs", tmp_path / "d.log"
    never = edgeclient("status", str(fleet.write_device(tmp_path, endpoint, "pi", task)))
    assert (never.returncode, "has not run yet" in never.stderr) == (1, True)
    with fleet.device(tmp_path, endpoint, "pi", task):
        until(lambda: "waiting for the model" in _note(tmp_path), log)
        first, second, *_ = edgeclient("status", str(tmp_path / "d.toml")).stdout.splitlines()
        assert first.startswith("pi: ")
        assert "not running" not in first
        assert "no model yet" in second
        assert json.loads(edgeclient("status", str(tmp_path / "d.toml"), "--json").stdout)["running"] is True
        if not os.geteuid():
            _of_another_account(tmp_path)
        again = fleet.start_device(tmp_path / "d.toml")
        assert again.wait(60) == 1
        fleet.log_says(tmp_path, "in use by another edgeclient process")
    gone = edgeclient("status", str(tmp_path / "d.toml")).stdout
    assert "pi: not running; at last: stopped" in gone


def _of_another_account(folder: Path) -> None:
    for each in (folder / "state", *(folder / "state").rglob("*")):
        os.chown(each, 12345, 12345)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "edgeclient.cli", "status"]
    asked = subprocess.run([*command, str(folder / "d.toml")], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert "not running" not in asked.stdout


@pytest.mark.case("fleet 21")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"note": 1}'])
def test_a_status_that_a_power_cut_has_emptied_is_one_line(tmp_path: Path, endpoint: Endpoint, text: str) -> None:
    config = fleet.write_device(tmp_path, endpoint, "pi", "s-empty")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/status.json").write_text(text)
    asked = edgeclient("status", str(config))
    assert asked.returncode == 1
    assert asked.stderr.count("\n") == 1
    assert "is empty or damaged" in asked.stderr
