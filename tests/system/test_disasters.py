"""Copied, restored, torn, full, out of time: each ends in the state that PROTOCOL.md names, and the others go on."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import fleet
import forked
import numpy as np
import pytest
from forked import Forked

from broker.demo import data
from broker.processes import children
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire.announcement import Policy

SETTINGS = Task(goal=2, deadline_s=1.0, min_interval_s=0.2, policy=Policy(max_staleness=1000))


def until(condition: Callable[[], bool], logs: Path, timeout_s: float = 60) -> None:
    """Wait; the logs are shown when it takes too long."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "\n".join(path.read_text()[-3000:] for path in logs.rglob("*.log"))
        time.sleep(0.05)


def told(folder: Path) -> dict[str, int]:
    """The device's own status; zeros before the first."""
    path = folder / "state/status.json"
    return json.loads(path.read_text()) if path.exists() else {"applied": 0, "renewals": 0, "rounds": 0}


def store_of(folder: Path) -> Path:
    """The device's database."""
    (path,) = folder.glob("state/store/*/store.db")
    return path


def log(folder: Path) -> str:
    return (folder / "d.log").read_text()


@contextmanager
def running(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The device of a folder, until the end of the block; it must not die by itself."""
    process = fleet.start_device(folder / "d.toml")
    try:
        yield process
        assert process.poll() is None, log(folder)
    finally:
        children.end(process)
    assert "Traceback" not in log(folder)


def prepared(folder: Path, endpoint: Endpoint, task: str, name: str, person: int) -> Path:
    """A device's folder with the windows of some person."""
    folder.mkdir()
    fleet.write_device(folder, endpoint, name, task)
    x, labels = data.device_windows(person, 1)
    np.savez(folder / "windows.npz", x=x, labels=labels)
    return folder


@contextmanager
def world(tmp_path: Path, endpoint: Endpoint, task: str) -> Iterator[tuple[Path, Path]]:
    """An aggregator, a device that nothing happens to, and the folder of one that has applied twice and stopped."""
    (tmp_path / "broker").mkdir()
    with ExitStack() as stack:
        stack.enter_context(fleet.aggregator(tmp_path / "broker", endpoint, task, SETTINGS))
        other = prepared(tmp_path / "other", endpoint, task, "other", 3)
        stack.enter_context(running(other))
        one = prepared(tmp_path / "one", endpoint, task, "one", 2)
        with running(one):
            until(lambda: told(one)["applied"] >= 2, tmp_path)
        yield one, other
        applied = told(other)["applied"]
        until(lambda: told(other)["applied"] > applied + 2, tmp_path)
        assert told(other)["renewals"] == 0


def test_two_devices_on_a_copied_store(tmp_path: Path, endpoint: Endpoint) -> None:
    """One of them begins a new epoch and says so; the other keeps its residual."""
    with world(tmp_path, endpoint, "d-copied") as (one, _):
        copy = tmp_path / "copy"
        shutil.copytree(one, copy)
        x, labels = data.device_windows(5, 0)  # another life from here on
        np.savez(copy / "windows.npz", x=x, labels=labels)
        with running(one), running(copy):
            until(lambda: "A new epoch begins" in log(one) + log(copy), tmp_path)
            before = {folder: told(folder)["rounds"] for folder in (one, copy)}
            until(lambda: all(told(folder)["rounds"] > before[folder] + 2 for folder in (one, copy)), tmp_path)
        assert sorted([told(one)["renewals"], told(copy)["renewals"]]) == [0, 1]


def test_a_store_that_was_put_back(tmp_path: Path, endpoint: Endpoint) -> None:
    with world(tmp_path, endpoint, "d-restored") as (one, _):
        shutil.copytree(one / "state", tmp_path / "backup")
        with running(one):
            applied = told(one)["applied"]
            until(lambda: told(one)["applied"] > applied + 1, tmp_path)
        shutil.rmtree(one / "state")
        shutil.copytree(tmp_path / "backup", one / "state")
        with running(one):
            until(lambda: "A new epoch begins" in log(one), tmp_path)
            until(lambda: told(one)["renewals"] == 1 and told(one)["rounds"] > 1, tmp_path)


@pytest.mark.parametrize("damage", ["torn", "lost"])
def test_a_torn_residual(tmp_path: Path, endpoint: Endpoint, damage: str) -> None:
    """As after a power cut on a disk that lies about fsync."""
    with world(tmp_path, endpoint, f"d-{damage}") as (one, _):
        for slot in (0, 1):
            (path,) = one.glob(f"state/store/*/residual.{slot}")
            if damage == "torn":
                with path.open("r+b") as file:
                    file.seek(4096)
                    file.write(os.urandom(4096))
            else:
                path.unlink()
        with running(one):
            until(lambda: "is damaged: it is dropped and a new epoch begins" in log(one), tmp_path)
            until(lambda: told(one)["renewals"] == 1 and told(one)["rounds"] > 1, tmp_path)


def test_a_corrupted_database_is_one_line(tmp_path: Path, endpoint: Endpoint) -> None:
    with world(tmp_path, endpoint, "d-corrupt") as (one, _):
        store_of(one).write_bytes(b"\0garbage" * 2000)
        command = ["edgeclient.cli", "run", str(one / "d.toml")]
        ended = forked.run(command)
        assert ended.returncode == 1
        last = ended.stderr.strip().splitlines()[-1]
        assert "store.db cannot be used" in last
        assert "move the folder away" in last
        assert "Traceback" not in ended.stderr
        check = ["edgeclient.cli", "store", "check", str(one / "d.toml")]
        checked = forked.run(check)
        assert (checked.returncode, "FAULT" in checked.stdout) == (1, True)


def test_damage_that_is_met_later_is_one_line_too(tmp_path: Path, endpoint: Endpoint) -> None:
    """Every page but those of the account: what the outbox and its index are kept in."""
    with world(tmp_path, endpoint, "d-later") as (one, _):
        path = store_of(one)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (account,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'account'").fetchone()
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            (size,) = db.execute("PRAGMA page_size").fetchone()
        with path.open("r+b") as file:
            for page in {*range(2, pages + 1)} - {account}:
                file.seek(size * (page - 1))
                file.write(b"\xa5" * size)
        command = ["edgeclient.cli", "run", str(one / "d.toml")]
        ended = forked.run(command)
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
        last = ended.stderr.strip().splitlines()[-1]
        assert "store.db cannot be used" in last
        assert "edgeclient store check" in last


def test_a_damaged_frame_is_one_line_and_leaves_the_other_tasks_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    """Other bytes in a row of a sound database, which SQLite does not notice."""
    with world(tmp_path, endpoint, "d-frame") as (one, _):
        with closing(sqlite3.connect(store_of(one), isolation_level=None)) as db:
            row = "INSERT INTO frame (state, sequence, layer, base_version, created, body) VALUES (?, NULL, 0, 0, 0, ?)"
            db.execute(row, ("returned", fleet.make_frame("d-frame", "one", epoch=0, sequence=0)[:-1] + b"!"))
        third = prepared(tmp_path / "third", endpoint, "d-frame", "third", 4)
        command = ["edgeclient.cli", "run", str(one / "d.toml"), str(third / "d.toml")]
        process = Forked(command, log=tmp_path / "two.log")
        said = tmp_path / "two.log"
        try:
            until(lambda: "one in d-frame learns no longer, the other tasks go on" in said.read_text(), tmp_path)
            until(lambda: told(third)["applied"] >= 2, tmp_path)
            assert process.poll() is None
        finally:
            children.end(process)
        (line,) = [line for line in said.read_text().splitlines() if "learns no longer" in line]
        assert "store.db cannot be used" in line
        assert "edgeclient store check" in line
        assert "Traceback" not in said.read_text()
        check = ["edgeclient.cli", "store", "check", str(one / "d.toml")]
        checked = forked.run(check)
        assert (checked.returncode, "FAULT" in checked.stdout) == (1, True)


def test_a_task_that_ends_leaves_the_others_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    with world(tmp_path, endpoint, "d-alone") as (one, _):
        store_of(one).write_bytes(b"\0garbage" * 2000)
        third = prepared(tmp_path / "third", endpoint, "d-alone", "third", 4)
        command = ["edgeclient.cli", "run", str(one / "d.toml"), str(third / "d.toml")]
        process = Forked(command, log=tmp_path / "two.log")
        try:
            until(lambda: told(third)["applied"] >= 2, tmp_path)
            said = json.loads((one / "state/status.json").read_text())
            assert said["note"].startswith("ended: ")
            assert "move the folder away" in said["note"]
            assert "one in d-alone learns no longer, the other tasks go on" in (tmp_path / "two.log").read_text()
            assert process.poll() is None
        finally:
            children.end(process)
        assert "Traceback" not in (tmp_path / "two.log").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root")
def test_a_full_disk_pauses_the_device_and_no_more(tmp_path: Path, endpoint: Endpoint) -> None:
    with world(tmp_path, endpoint, "d-full") as (one, _):
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=True)
        try:
            shutil.copytree(one, small / "one")
            folder = small / "one"
            filler = small / "filler"
            with filler.open("wb", buffering=0) as file:
                file.write(bytes(1 << 20))
            sooner = "from edgeclient import agent, cli; agent._DISK_PAUSE_S = 2.0; cli.main()"
            command = [sys.executable, "-c", sooner, "run", str(folder / "d.toml")]
            process = children.spawn(command, log=tmp_path / "full.log")
            said = tmp_path / "full.log"
            try:
                until(lambda: "trained version" in said.read_text(), tmp_path)
                with filler.open("ab", buffering=0) as file:
                    while _room(small):
                        file.write(bytes(min(_room(small), 1 << 16)))
                until(lambda: "training and sending pause: disk full" in said.read_text(), tmp_path)
                assert process.poll() is None
                filler.unlink()
                trained = said.read_text().count("trained version")
                until(lambda: said.read_text().count("trained version") > trained + 1, tmp_path, 90)
            finally:
                children.end(process)
            assert "Traceback" not in said.read_text()
            assert told(folder)["renewals"] == 0
        finally:
            subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_fleet_goes_on_with_yesterdays_ledger(tmp_path: Path, endpoint: Endpoint) -> None:
    """Put back by hand, as with a snapshot of the machine: `edgebroker restore` would have said so to the ledger."""
    broker = tmp_path / "broker"
    broker.mkdir()
    one = prepared(tmp_path / "one", endpoint, "d-yesterday", "one", 2)
    settings = Task(goal=1, min_interval_s=0.2, policy=SETTINGS.policy)
    with ExitStack() as stack:
        with fleet.aggregator(broker, endpoint, "d-yesterday", settings):
            stack.enter_context(running(one))
            until(lambda: told(one)["applied"] >= 2, tmp_path)
        shutil.copytree(broker / "data", tmp_path / "yesterday")
        with fleet.restarted_aggregator(broker):
            applied = told(one)["applied"]
            until(lambda: told(one)["applied"] >= applied + 2, tmp_path)
        shutil.rmtree(broker / "data")
        (tmp_path / "yesterday").rename(broker / "data")
        with fleet.restarted_aggregator(broker):
            applied = told(one)["applied"]
            until(lambda: told(one)["applied"] >= applied + 2, tmp_path)
        assert (broker / "a.log").read_text().count("an older ledger was put back") == 1
        assert told(one)["renewals"] == 0


def _room(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
