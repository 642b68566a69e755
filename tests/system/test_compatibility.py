"""Devices and aggregators of two versions work together.

The other version is commit a1abdf0, packed by tools/make_older.py: the first one that has what 0.2 speaks, frames of
version 2 and bundles of format 2 (0.1.0 had bundles of format 1, which are compiled again). It knows neither WITHDRAW
nor importance layers nor half of today's policy.
"""

import json
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import fleet
import pytest

from broker.ledger.sqlite.ledger import Ledger
from broker.processes import children
from broker.publish import retained
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire import announcement, topics
from edgeclient.wire.limits import FRAME_VERSION

ARCHIVE = Path(__file__).parents[1] / "data" / "older-a1abdf0.tar.xz"
ROOT = Path(__file__).parents[2]
# The command lines are not in the archive.
DEVICE = """
import logging, pathlib, signal, sys
from edgeclient import agent, settings
logging.basicConfig(level=logging.INFO)
print(agent.__file__, flush=True)
device = agent.Agent(settings.load(pathlib.Path(sys.argv[1]), settings.Device))
signal.signal(signal.SIGTERM, lambda *_: device.stop())
device.run()
"""
AGGREGATOR = """
import logging, pathlib, signal, sys
from broker import service, settings
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Mqtt
logging.basicConfig(level=logging.INFO)
print(service.__file__, flush=True)
folder, port, task, bundle = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
made = settings.Aggregator(directory=folder, mqtt=Mqtt(port=port))
service.add_task(made, task, bundle.read_bytes(), settings.Task(goal=1, min_interval_s=0))
aggregator = service.Service(made, Endpoint("127.0.0.1", port), None)
signal.signal(signal.SIGTERM, lambda *_: aggregator.stop())
aggregator.run()
"""
VERSIONS = 3


@pytest.fixture
def older(tmp_path: Path) -> Path:
    folder = tmp_path / "older"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def start(stack: ExitStack, code: str, older: Path, log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """A process of the other version, ended with the stack, without complaint."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    process = children.spawn(command, log=log, env={"PYTHONPATH": str(older)})

    def end() -> None:
        children.end(process)
        said = log.read_text()
        assert process.returncode == 0, said
        assert said.startswith(str(older)), said
        assert "Traceback" not in said

    stack.callback(end)
    return process


def test_the_archive_is_that_commit(older: Path) -> None:
    commit = ARCHIVE.name.removeprefix("older-").partition(".")[0]
    if subprocess.run(["git", "cat-file", "-e", commit], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this clone does not go back so far")
    files = [path for path in older.rglob("*") if path.is_file()]
    assert len(files) > 80
    for path in files:
        command = ["git", "show", f"{commit}:{path.relative_to(older)}"]
        assert subprocess.check_output(command, cwd=ROOT) == path.read_bytes()


def test_an_older_device(older: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    config = fleet.write_device(tmp_path, endpoint, "old", "compatible-1")
    config.write_text(
        config.read_text().partition("[conditions]")[0] + "[conditions]\nmax_load = 0\n"
    )  # no limit, then
    with ExitStack() as stack:
        hand = stack.enter_context(fleet.hand(endpoint, topics.head("compatible-1")))
        settings = Task(goal=1, min_interval_s=0)
        made = stack.enter_context(fleet.aggregator(tmp_path, endpoint, "compatible-1", settings))
        start(stack, DEVICE, older, tmp_path / "d.log", str(config))
        head = fleet.await_message(hand, lambda each: announcement.decode(each.payload).version >= VERSIONS, 90)
        assert json.loads(head.payload)["wire"] == list(range(1, FRAME_VERSION + 1))
    with Ledger(made.ledger, read_only=True) as ledger:
        applied, refused, doubled = ledger.frame_counts("compatible-1")["old"]
    assert applied >= VERSIONS
    assert (refused, doubled) == (0, 0)


def test_an_older_aggregator(older: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    (tmp_path / "task.bundle").write_bytes(fleet.BUNDLE)
    with ExitStack() as stack:
        hand = stack.enter_context(fleet.hand(endpoint, topics.head("compatible-2")))
        where = [str(tmp_path / "data"), str(endpoint.port), "compatible-2", str(tmp_path / "task.bundle")]
        start(stack, AGGREGATOR, older, tmp_path / "a.log", *where)
        stack.enter_context(fleet.device(tmp_path, endpoint, "new", "compatible-2"))
        fleet.await_message(hand, lambda each: announcement.decode(each.payload).version >= VERSIONS, 90)
    said = json.loads((tmp_path / "state" / "status.json").read_text())
    assert said["applied"] >= VERSIONS
    assert said["refused"] == 0


def test_a_device_whose_frames_nobody_reads_says_so_in_one_line(tmp_path: Path, endpoint: Endpoint) -> None:
    announced = replace(fleet.announcement("compatible-3", 0, fleet.START), wire=(FRAME_VERSION + 1, FRAME_VERSION + 2))
    with fleet.hand(endpoint, topics.head("compatible-3")) as hand:
        hand.publish(*retained.head(announced), retain=True)
        with fleet.device(tmp_path, endpoint, "lone", "compatible-3"):
            fleet.log_says(tmp_path, f"frame versions [{FRAME_VERSION + 1}, {FRAME_VERSION + 2}]")
    told = [line for line in (tmp_path / "d.log").read_text().splitlines() if "version" in line]
    assert len(told) == 1
    assert f"this device writes 1 to {FRAME_VERSION}: update edgeclient here" in told[0]
