"""A device learns from a CSV file that a logger still writes, in blocks of 512 bytes, and says what waits."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fleet
import pytest

from broker.processes import children
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint

CASES = Path(__file__).parents[1] / "cases" / "data"
AXES = "ax,ay,az,gx,gy,gz"


def status(config: Path) -> str:
    command = [sys.executable, "-m", "edgeclient.cli", "status", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.case("onnx D03")
def test_an_unfinished_line_waits_and_status_tells(tmp_path: Path, endpoint: Endpoint) -> None:
    """The model sees 100 rows of six columns at once."""
    (tmp_path / "broker").mkdir()
    (tmp_path / "pi").mkdir()
    log = tmp_path / "pi" / "log.csv"
    log.write_text(f"{AXES},labels\n")
    logger = children.spawn(
        [sys.executable, str(CASES / "block_logger.py"), str(log), "60"], log=tmp_path / "logger.log"
    )
    with fleet.aggregator(tmp_path / "broker", endpoint, "log", Task(goal=1, deadline_s=1, min_interval_s=0)):
        try:
            config = fleet.write_device(tmp_path / "pi", endpoint, "pi-1", "log")
            text = config.read_text().replace("windows.npz", "log.csv")
            config.write_text(f"{text}[data.options]\nwindow = 100\nstride = 20\n")
            running = fleet.start_device(config)
            try:
                told = tmp_path / "pi" / "state" / "status.json"
                until(lambda: told.exists() and json.loads(told.read_text())["rounds"] >= 2)
                children.end(logger)
                with log.open("a") as file:
                    file.write("0.5,0.2")  # whatever stands there, this finishes no line
                until(lambda: "  data: the last line of log.csv is not finished: it waits" in status(config))
            finally:
                children.end(running)
        finally:
            children.end(logger)
    assert "log.csv: the last line of log.csv is not finished: it waits" in (tmp_path / "pi" / "d.log").read_text()
