"""Structured logs: one frame's life is found on both sides by its identity, and nothing else than the listed fields."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fleet
import pytest

from broker.processes import children
from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.logs.fields import FIELDS, identity
from edgeclient.logs.output import JsonLines
from edgeclient.settings import Mqtt


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("edgeclient.uplink.sender", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__.update(fields)
    return made


def test_a_line_is_one_json_object_with_the_listed_fields_alone() -> None:
    fields = identity("har", "pi-7", 2**64 - 1, 3, reason="stale")
    line = JsonLines().format(record("frame %d\nrefused \x1b[2J", 3, **fields, password="hunter2", args_="x"))
    assert "\n" not in line
    assert "\x1b" not in line
    made = json.loads(line)
    assert made.pop("time").endswith("+00:00")
    assert made == {
        "level": "info",
        "logger": "edgeclient.uplink.sender",
        "message": "frame 3\nrefused \x1b[2J",
        "task": "har",
        "device": "pi-7",
        "epoch": "f" * 16,
        "sequence": 3,
        "reason": "stale",
    }
    assert set(fields) <= set(FIELDS)


def test_an_exception_stays_on_its_line() -> None:
    try:
        int("bad")
    except ValueError:
        failed = record("broken", exc_info=sys.exc_info())
    line = JsonLines().format(failed)
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


@pytest.mark.parametrize("command", ["edgeclient.cli run", "edgeclient.cli once", "broker.cli serve"])
def test_other_formats_are_refused(command: str) -> None:
    called = [sys.executable, "-m", *command.split(), "x.toml", "--log-format", "xml"]
    done = subprocess.run(called, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "'text', 'json'" in done.stderr) == (2, True), done.stderr


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def test_a_frame_is_traced_through_both_sides(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "traced"
    fleet.add_task(
        Aggregator(directory=tmp_path / "data", mqtt=Mqtt(port=endpoint.port)),
        task,
        fleet.BUNDLE,
        Task(goal=1, min_interval_s=0.2),
    )
    (tmp_path / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n')
    (tmp_path / "device").mkdir()
    config = fleet.write_device(tmp_path / "device", endpoint, "pi-7", task)
    options = ["--log-format", "json", "--log-level", "debug"]
    ours, theirs = tmp_path / "a.log", tmp_path / "d.log"
    wanted = {"task": task, "device": "pi-7", "sequence": 0}

    def told(log: Path, message: str) -> list[dict[str, Any]]:
        found = [each for each in lines(log) if each["message"] == message]
        return [each for each in found if wanted.items() <= each.items()]

    with (
        fleet._guarded(
            children.spawn([sys.executable, "-m", "broker.cli", "serve", str(tmp_path / "a.toml"), *options], log=ours),
            ours,
        ),
        fleet._guarded(
            children.spawn([sys.executable, "-m", "edgeclient.cli", "run", str(config), *options], log=theirs), theirs
        ),
    ):
        until_s = time.monotonic() + 60
        while not told(theirs, "frame 0 applied"):
            assert time.monotonic() < until_s, theirs.read_text()
    (sent, *_), (settled,), (counted, *_) = (
        told(theirs, "frame 0 sent"),
        told(theirs, "frame 0 applied"),
        told(ours, "frame 0 applied"),
    )
    assert sent["epoch"] == settled["epoch"] == counted["epoch"]
    assert (counted["verdict"], counted["level"]) == ("applied", "debug")
    assert any(each.get("version") == 1 and each.get("task") == task for each in lines(ours))
