"""Cards that fail: turned read-only while a device runs, read-only at its start, files emptied by a power cut."""

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import fleet
import pytest
from command_lines import edgeclient
from links import Script

from broker.processes import children
from broker.settings import Task
from edgeclient.agent import Agent
from edgeclient.conditions.board import Board, Observed
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.pauses import Pauses
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.settings import Conditions, Device, load
from edgeclient.wire import status, topics


def until(condition: Callable[[], Any], log: Path, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, log.read_text()[-3000:]
        time.sleep(0.05)


@contextmanager
def card(folder: Path) -> Iterator[Path]:
    """A file system of its own, as a card has it."""
    image, mounted = folder / "card.img", folder / "card"
    image.touch()
    os.truncate(image, 32 << 20)
    mounted.mkdir()
    made = subprocess.run(["mkfs.ext4", "-q", str(image)], check=False).returncode == 0 and (
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(image), str(mounted)], check=False).returncode == 0
    )
    if not made:
        pytest.skip("no loop devices here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.mark.case("fleet 09")
@pytest.mark.case("fleet 10")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="a card of one's own needs root")
def test_a_card_that_turns_read_only_is_called_so_everywhere(tmp_path: Path, endpoint: Endpoint) -> None:
    task, log = "k-card", tmp_path / "d.log"
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    with card(tmp_path) as mounted:
        config.write_text(config.read_text().replace('directory = "state"', f'directory = "{mounted / "state"}"'))
        settings = Task(goal=1, min_interval_s=0.2)
        with fleet.aggregator(tmp_path / "broker", endpoint, task, settings), fleet.hand(endpoint) as link:
            process = fleet.start_device(config)
            try:
                until(lambda: log.exists() and "trained version" in log.read_text(), log)
                link.subscribe(topics.status(task, "pi"))
                subprocess.run(["mount", "-o", "remount,abort", str(mounted)], check=True)
                said = fleet.await_message(link, lambda message: b"read-only" in message.payload)
                assert status.decode(said.payload).doing == "disk"
                assert process.poll() is None
                asked = edgeclient("status", str(config)).stdout
                assert asked.startswith("pi: the disk is read-only")
                assert json.loads(edgeclient("status", str(config), "--json").stdout)["running"] is True
            finally:
                children.end(process)
        assert "make room" not in log.read_text()
        assert "Traceback" not in log.read_text()
        again = edgeclient("run", str(config))  # case 10
        assert (again.returncode, again.stderr.count("\n")) == (1, 1)
        assert "Read-only file system" in again.stderr


class Card(Board):
    """A board whose disk is as it is told."""

    read_only = True

    def observe(self) -> Observed:
        return Observed(read_only=self.read_only)


@pytest.mark.case("fleet 09")
def test_a_process_that_can_keep_nothing_ends_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    board = Card(tmp_path)
    guard = Guard(Conditions(), tmp_path, board)
    pauses = Pauses(guard, tmp_path, "x.npz")
    pauses.full(OSError(errno.EIO, "Input/output error", "store.db"))
    assert "the disk is read-only" in pauses.decision.because
    assert "make room" not in pauses.decision.because
    board.read_only = False
    now[0] += 590
    guard.look()
    board.read_only = True
    now[0] += 590
    guard.look()
    now[0] += 20
    with pytest.raises(OSError, match="Read-only file system"):
        guard.look()


@pytest.mark.case("fleet 21")
def test_a_device_recovers_from_every_file_that_a_power_cut_has_emptied(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "k-empty"
    (tmp_path / "broker").mkdir()
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    config.write_text(config.read_text().replace("audit = true\n", ""))
    with fleet.aggregator(tmp_path / "broker", endpoint, task, Task(goal=8)):
        assert edgeclient("once", str(config), "--timeout", "60").returncode == 0
    whole = tmp_path / "whole"
    (tmp_path / "state").rename(whole)
    files = sorted(str(each.relative_to(whole)) for each in whole.rglob("*") if each.is_file())
    assert {"status.json", "spells.json", f"models/{task}/active", f"store/{task}/store.db"} <= set(files)
    settings = load(config, Device)
    for name in files:
        shutil.copytree(whole, settings.directory)
        os.truncate(settings.directory / name, 0)
        link: Any = Script()
        link.stop = lambda: None
        agent = Agent(settings, link=cast("Link", link))
        try:
            for _ in range(3):
                agent.turn(0.0)
            assert agent.standing.doing in {"model", "next-version", "training", "sending", "receipts"}, name
        finally:
            agent.close()
        assert json.loads((settings.directory / "status.json").read_text())["note"] == "stopped"
        shutil.rmtree(settings.directory)
