"""Conditions that end while a device trains: it stops, keeps what it learnt, says why, and goes on afterwards."""

import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fleet
import pytest

from broker.processes import children
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire.announcement import Policy

# Far more than a minute's work, so that only conditions can end a round.
SETTINGS = Task(goal=1, min_interval_s=0.2, policy=Policy(local_epochs=1000, batch_size=1))
COMMANDS = {
    "termux-battery-status": '{"plugged": "PLUGGED_AC", "percentage": 80, "temperature": 30.0}',
    "vcgencmd": "throttled=0x0",
    "nmcli": "GENERAL.METERED:no",
}


def until(condition: Callable[[], bool], log: Path, timeout_s: float = 60) -> float:
    """Seconds that it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() < began_s + timeout_s, log.read_text()[-3000:]
        time.sleep(0.02)
    return time.monotonic() - began_s


def answers(folder: Path, name: str, text: str) -> None:
    new = folder / f"{name}.new"
    new.write_text(text)
    new.replace(folder / f"{name}.txt")


@pytest.mark.parametrize(
    ("name", "bad", "why"),
    [
        ("termux-battery-status", '{"plugged": "UNPLUGGED", "percentage": 12}', "battery at 12 %"),
        ("termux-battery-status", '{"plugged": "PLUGGED_AC", "percentage": 80, "temperature": 44.0}', "44 °C are over"),
        ("vcgencmd", "throttled=0x4", "throttles"),
        ("nmcli", "GENERAL.METERED:yes", "metered"),
    ],
    ids=["battery", "heat", "throttled", "metered"],
)
def test_training_stops_and_goes_on(tmp_path: Path, endpoint: Endpoint, name: str, bad: str, why: str) -> None:
    task, commands = f"i-{abs(hash((name, bad))) % 10**9}", tmp_path / "bin"
    commands.mkdir()
    for command, good in COMMANDS.items():
        script = commands / command
        script.write_text(f"#!/bin/sh\nexec /bin/cat {commands}/{command}.txt\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        answers(commands, command, good)
    (tmp_path / "broker").mkdir()
    with fleet.aggregator(tmp_path / "broker", endpoint, task, SETTINGS):
        config = fleet.write_device(tmp_path, endpoint, "pi", task)
        config.write_text(
            config.read_text().replace(
                'preset = "eager"', 'preset = "balanced"\nmax_pressure = 0\nmax_load = 0\nmax_temperature_c = 0'
            )
            + "[training]\nmax_epochs = 1000\n"
        )
        log, state = tmp_path / "d.log", tmp_path / "state/status.json"

        def told() -> dict[str, object]:
            return json.loads(state.read_text()) if state.exists() else {"note": "", "rounds": 0, "renewals": 0}

        process = children.spawn(
            [sys.executable, "-m", "edgeclient.cli", "run", str(config)],
            log=log, env={"PATH": f"{commands}:{os.environ['PATH']}"},
        )  # fmt: skip
        try:
            while "training stopped early" not in log.read_text():  # on a busy machine it stops before its first step
                answers(commands, name, COMMANDS[name])
                until(lambda: "training on version" in str(told()["note"]), log)
                answers(commands, name, bad)
                took_s = until(lambda: why in str(told()["note"]), log)
                print(f"{name}: stopped and told after {took_s:.1f} s")
            assert told()["rounds"] == 1  # what was learnt is kept
            answers(commands, name, COMMANDS[name])
            until(lambda: "training on version" in str(told()["note"]) and told()["version"] != 0, log)
            assert told()["renewals"] == 0
            assert process.poll() is None
        finally:
            children.end(process)
        assert "Traceback" not in log.read_text()
