"""`once`, `pause`, `resume`, `join`, `leave`, and several tasks on one device; with real processes."""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgeclient

from broker.processes import children
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint, Message
from edgeclient.settings import Device, load
from edgeclient.wire import topics

SETTINGS = Task(goal=1, min_interval_s=0.2)


def until(condition: Callable[[], bool], log: Path, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"{told(log.parent)}\n{log.read_text()[-3000:]}"
        time.sleep(0.05)


def told(folder: Path) -> dict[str, Any]:
    path = folder / "state/status.json"
    return json.loads(path.read_text()) if path.exists() else {"note": "", "rounds": 0, "applied": 0}


def paused(folder: Path) -> bool:
    return "paused by its owner" in told(folder)["note"]


def test_once_trains_one_version_and_ends(tmp_path: Path, endpoint: Endpoint) -> None:
    task, slow = "c-once", Task(goal=1, min_interval_s=3600)
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    with fleet.aggregator(tmp_path / "broker", endpoint, task, slow):
        for version in (0, 1):
            done = edgeclient("once", str(config), "--timeout", "60", "--json")
            assert done.returncode == 0, done.stderr
            report = json.loads(done.stdout.splitlines()[-1])
            assert report["done"] is True
            assert report["applied"] == version + 1
        again = edgeclient(
            "once", str(config), "--timeout", "60", "--json"
        )  # nothing new: the versions are an hour apart
        assert json.loads(again.stdout.splitlines()[-1])["applied"] == 2
        forbidden = config.with_name("quiet.toml")
        forbidden.write_text(config.read_text().replace('preset = "eager"', 'quiet = "00:00-23:59"'))
        quiet = edgeclient("once", str(forbidden), "--timeout", "60", "--json")
        if time.strftime("%H:%M") != "23:59":
            assert quiet.returncode == 3
            assert "quiet hours" in json.loads(quiet.stdout.splitlines()[-1])["because"]


def test_once_without_a_broker_gives_up(tmp_path: Path) -> None:
    config = fleet.write_device(tmp_path, Endpoint("127.0.0.1", 1), "pi", "c-alone")
    done = edgeclient("once", str(config), "--timeout", "1")
    assert done.returncode == 3
    assert "not done after 1 s" in done.stdout


def test_pause_and_resume(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "c-pause"
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    with fleet.aggregator(tmp_path / "broker", endpoint, task, SETTINGS):
        process = fleet.start_device(config)
        log = tmp_path / "d.log"
        try:
            until(lambda: told(tmp_path)["rounds"] > 1, log)
            assert edgeclient("pause", str(config)).returncode == 0
            until(lambda: "paused by its owner" in str(told(tmp_path)["note"]), log)
            rounds = log.read_text().count("trained version")
            assert "paused by its owner" in edgeclient("status", str(config)).stdout
            assert log.read_text().count("trained version") == rounds
            assert edgeclient("resume", str(config)).returncode == 0
            until(lambda: log.read_text().count("trained version") > rounds + 1, log)
        finally:
            children.end(process)


def test_several_tasks_on_one_device(tmp_path: Path, endpoint: Endpoint) -> None:
    configs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        configs.append(fleet.write_device(tmp_path / name, endpoint, "pi", f"c-{name}"))
        (tmp_path / f"broker-{name}").mkdir()
    with (
        fleet.aggregator(tmp_path / "broker-first", endpoint, "c-first", SETTINGS),
        fleet.aggregator(tmp_path / "broker-second", endpoint, "c-second", SETTINGS),
    ):
        log = tmp_path / "both.log"
        command = [sys.executable, "-m", "edgeclient.cli", "run", *map(str, configs)]
        process = children.spawn(command, log=log)
        try:
            until(lambda: all(told(tmp_path / name)["applied"] > 1 for name in ("first", "second")), log)
            assert edgeclient("pause", str(configs[1])).returncode == 0
            for name in ("first", "second"):
                until(partial(paused, tmp_path / name), log)
        finally:
            children.end(process)
        assert "Traceback" not in log.read_text()
    same = edgeclient("run", str(configs[0]), str(configs[0]))
    assert (same.returncode, "a directory of its own" in same.stderr) == (1, True)


def test_join_writes_a_configuration(tmp_path: Path) -> None:
    out = tmp_path / "device.toml"
    done = edgeclient("join", "mqtt://pi.local:1884/har", "--data", "w.npz", "--device", "pi-7", "--out", str(out))
    assert done.returncode == 0, done.stderr
    made = load(out, Device)
    assert (made.device, made.task, made.mqtt.host, made.mqtt.port) == ("pi-7", "har", "pi.local", 1884)
    again = edgeclient("join", "mqtt://pi.local/har", "--out", str(out))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert load(out, Device) == made


@pytest.mark.case("fleet 18")
@pytest.mark.case("fleet 20")
@pytest.mark.case("fleet 44")
def test_join_takes_addresses_and_a_prefix_as_urls_have_them(tmp_path: Path) -> None:
    out = tmp_path / "device.toml"
    url = "mqtts://[fe80::1%25eth0]/site/edge/har"
    assert edgeclient("join", url, "--device", "pi-7", "--out", str(out)).returncode == 0
    made = load(out, Device)
    assert (made.task, made.mqtt.host, made.mqtt.prefix) == ("har", "fe80::1%eth0", "site/edge")
    assert Endpoint.of(made.mqtt).url == "mqtts://[fe80::1%eth0]:8883"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("pi.local/har", "a URL such as"), ("http://pi/har", "a URL such as"), ("mqtt://pi", "a URL such as"),
        ("mqtt://me:secret@pi/har", "no passwords"), ("mqtt://pi:99999/har", "mqtt://pi:99999/har"),
        ("mqtt://pi/a b/c", "prefix is"),
    ],
)  # fmt: skip
def test_join_refuses(tmp_path: Path, url: str, why: str) -> None:
    done = edgeclient("join", url, "--device", "d", "--out", str(tmp_path / "d.toml"))
    assert done.returncode == 1
    assert why in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "d.toml").exists()


def test_leave_erases_and_is_forgotten(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "c-leave"
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    with fleet.aggregator(tmp_path / "broker", endpoint, task, SETTINGS):
        process = fleet.start_device(config)
        try:
            until(lambda: told(tmp_path)["applied"] > 0, tmp_path / "d.log")
            running = edgeclient("leave", str(config), "--yes")
            assert (running.returncode, "stop it first" in running.stderr) == (1, True)
        finally:
            children.end(process)
        with fleet.hand(endpoint, topics.status(task, "pi")) as link:
            assert fleet.await_message(link, lambda message: bool(message.payload)).retained
        assert edgeclient("leave", str(config), "--yes").returncode == 0
        assert not (tmp_path / "state").exists()
        assert config.exists()
        with fleet.hand(endpoint, topics.status(task, "pi"), topics.head(task)) as link:
            heads = fleet.await_message(link, lambda message: message.topic == topics.head(task))
            assert heads.retained
            rest = [event for event in link.poll(0.5) if isinstance(event, Message)]
            assert [event for event in rest if event.topic == topics.status(task, "pi")] == []


@pytest.mark.parametrize("directory", [".", "state"])
def test_leave_never_touches_what_is_not_the_devices(tmp_path: Path, directory: str) -> None:
    """Examples beside the store, as with directory = ".": refused before anything is erased or the broker is told."""
    config = fleet.write_device(tmp_path, Endpoint("127.0.0.1", 1), "pi", "c-mine")
    config.write_text(config.read_text().replace('directory = "state"', f'directory = "{directory}"'))
    (tmp_path / directory / "store").mkdir(parents=True)
    (tmp_path / directory / "store/store.db").write_bytes(b"x")
    (tmp_path / directory / "windows-of-mine.npz").write_bytes(b"mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    done = edgeclient("leave", str(config), "--yes")
    assert (done.returncode, "nothing was erased" in done.stderr) == (1, True)
    assert "windows" in done.stderr
    assert sorted(path for path in tmp_path.rglob("*")) == before
