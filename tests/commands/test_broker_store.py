"""Backup, restore and check, as a person runs them, beside an aggregator that works."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgebroker

from broker.aggregate.version import Partial, Sgd, State, Strategy, finish
from broker.ledger.opening import open_ledger
from broker.ledger.rows import Entry, Version
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Embedded, Task
from broker.task.new import add_task
from broker.task.open_batch import add_all
from broker.upkeep import backup, examine
from edgeclient.failpoint import VARIABLE
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.wire import announcement, frame, messages, topics
from edgeclient.wire.messages import Hello, Receipt

EPOCH = 2**64 - 7


def _call(folder: Path, *arguments: str, code: int = 0) -> str:
    ended = edgebroker(*arguments, folder=folder)
    assert ended.returncode == code, ended.stderr
    return ended.stdout if code == 0 or ended.stdout else ended.stderr


def _json(folder: Path, *arguments: str, code: int = 0) -> Any:
    return json.loads(_call(folder, *arguments, "--json", code=code))


def _say(link: Link, task: str, device: str, payload: bytes) -> Receipt:
    link.publish(topics.up(task, device), payload)
    answer = fleet.await_message(link, lambda message: message.topic == topics.down(task, device))
    return messages.decode_receipt(answer.payload)


def _upload(link: Link, task: str, device: str, sequences: range) -> None:
    for sequence in sequences:
        body = fleet.make_frame(task, device, epoch=EPOCH, sequence=sequence, seed=sequence)
        assert _say(link, task, device, body).watermark == sequence + 1


def _head(link: Link, task: str, at_least: int) -> int:
    """The version that is announced, once it is at least this one."""
    found = fleet.await_message(
        link,
        lambda message: message.topic == topics.head(task) and announcement.decode(message.payload).version >= at_least,
    )
    return announcement.decode(found.payload).version


def _closed(data: Path, task: str, version: int) -> None:
    """Wait until the aggregator has made it."""
    with open_ledger(data / "ledger.db", read_only=True) as ledger:
        until_s = time.monotonic() + 30
        while ledger.versions(task, last=1)[0].number < version:
            assert time.monotonic() < until_s


def test_the_gap_of_a_restored_backup_is_counted_and_ends_nothing(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "restored"
    data, config = tmp_path / "data", ("--config", "a.toml")
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        with fleet.aggregator(tmp_path, endpoint, task, Task(goal=2, min_interval_s=0)):
            _head(link, task, 0)
            _upload(link, task, "a", range(3))
            _upload(link, task, "b", range(1))
            _closed(data, task, 2)
            assert "MB in saved" in _call(tmp_path, "backup", *config, "saved")
            assert "already there" in _call(tmp_path, "backup", *config, "saved", code=1)
            assert "in use by another" in _call(tmp_path, "restore", *config, "saved", code=1)
            _upload(link, task, "a", range(3, 8))
            _closed(data, task, 4)
        assert "holds ledger.db already: move the folder away" in _call(tmp_path, "restore", *config, "saved", code=1)
        data.rename(tmp_path / "damaged")
        assert f"task {task} continues as version" in _call(tmp_path, "restore", *config, "saved")
        with fleet.restarted_aggregator(tmp_path):
            assert _head(link, task, 5) > 1000  # more than any device has seen
            # Six frames were settled on the device, three of them are in the backup; two are still under way.
            receipt = _say(link, task, "a", messages.encode_hello(Hello(EPOCH, 8, 6)))
            assert (receipt.watermark, receipt.seen, receipt.conflict) == (6, 6, None)
            _upload(link, task, "a", range(6, 9))
            assert _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=4, seed=4)).watermark == 9
            assert _say(link, task, "b", messages.encode_hello(Hello(EPOCH, 1, 1))).watermark == 1
            (told,) = _json(tmp_path, "status", "a.toml")["tasks"]
            assert told["devices"]["a"]["lost_to_restore"] == 3
            assert told["devices"]["b"]["lost_to_restore"] == 0
            assert "3 lost to a restore" in _call(tmp_path, "status", "a.toml")
            assert _json(tmp_path, "ledger", "check", *config)["findings"] == []
        assert (tmp_path / "a.log").read_text().count("a: 3 frames that it has settled are unknown") == 1


def test_a_backup_of_a_busy_aggregator_is_of_one_moment(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "busy"
    settings = Task(goal=1, min_interval_s=0, keep_versions=3)
    with (
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
        fleet.aggregator(tmp_path, endpoint, task, settings) as made,
    ):
        _head(link, task, 0)
        for turn in range(4):
            command = [sys.executable, "-m", "broker.cli", "backup", "--config", "a.toml", f"saved{turn}"]
            with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as copying:
                sequence = 0
                while copying.poll() is None:
                    body = fleet.make_frame(task, f"d{turn}", epoch=EPOCH, sequence=sequence, seed=sequence)
                    assert _say(link, task, f"d{turn}", body).watermark == sequence + 1
                    sequence += 1
            assert copying.returncode == 0
            assert sequence
        assert not list(tmp_path.glob("*.partial"))
    assert examine.examine(made)[0] == []
    for turn in range(4):
        copy = Aggregator(directory=tmp_path / f"saved{turn}", embedded=Embedded())
        assert examine.examine(copy)[0] == []
        with open_ledger(copy.ledger, read_only=True) as ledger:
            assert {path.name for path in copy.registry.iterdir()} == ledger.digests()


@pytest.fixture
def store(tmp_path: Path) -> Aggregator:
    """A store with some closed batches, written by its own parts."""
    made = Aggregator(directory=tmp_path / "data", embedded=Embedded())
    add_task(made, "t", fleet.BUNDLE, Task(keep_frames_of_versions=-1))
    (tmp_path / "b.toml").write_text('directory = "data"\n[embedded]\n')
    return made


DAMAGE = {
    "UPDATE frame SET refusal = 2 WHERE sequence = 1": "frame 1 is refused, but counted 1 times",
    "DELETE FROM contribution WHERE sequence = 1": "frame 1 is applied, but counted 0 times",
    "INSERT INTO contribution SELECT 99, task, device, epoch, sequence, 77, part, parts, 1, weight, base_version,"
    " num_examples, terms, received, batch, body FROM contribution WHERE sequence = 1": "frame 1 has 2 contributions",
    "DELETE FROM frame WHERE sequence = 5": "5 frames below it are known",
    "UPDATE epoch SET watermark = 4": "the watermark stops at 4",
    "UPDATE epoch SET seen = 99": "99 sequences are seen",
    "UPDATE epoch SET applied = applied + 1": "7 frames are applied, 6 were counted",
    "UPDATE epoch SET forgotten = forgotten + 1": "6 frames are applied, 7 were counted",
    "UPDATE epoch SET confirmed = 9": "the device has confirmed 9 frames",
    "UPDATE epoch SET folded = 9": "9 frames have folded",
    "UPDATE contribution SET leads = 1 WHERE sequence = 3": "leads 2 times",
    "UPDATE contribution SET weight = 3 WHERE sequence = 3": "has 2 weights",
    "UPDATE version SET total_weight = 3 WHERE number = 1": "its closing record says something else",
    "UPDATE version SET record = x'00' WHERE number = 1": "not a closing record",
    "UPDATE contribution SET batch = 1 WHERE sequence = 5": "contributions of its batch are not in its record",
    "UPDATE contribution SET batch = 5 WHERE sequence = 5": "there is no version of it",
}


def _fill(store: Aggregator) -> None:
    """Six frames in two versions; the fourth is the second part of the third's update."""
    parameters, blobs = fleet.START, Blobs(store.registry)
    with open_ledger(store.ledger) as ledger:
        for number in (1, 2):
            for sequence in range(3 * number - 3, 3 * number):
                body = fleet.make_frame("t", "d", epoch=7, sequence=sequence, seed=sequence)
                update, part, parts = (2, 1, 2) if sequence == 3 else (2, 0, 2) if sequence == 2 else (sequence, 0, 1)
                entry = Entry("t", "d", 7, sequence, frame.digest(body), update, part, parts, 0, 100, 25600, None, body)
                ledger.admit([entry], 1.0)
            members = ledger.open_contributions("t", 9)
            strategy, partial = Strategy(Sgd()), Partial.empty(parameters.size)
            add_all(partial, members, fleet.LAYOUT, strategy)
            made = finish(strategy, parameters, State(), partial)
            parameters, leads = made.parameters, sum(each.leads for each in members)
            digest = blobs.put_parameters(parameters)
            version = Version(number, digest, number, 1.0, leads, len(members), made.total_weight, terms=made.terms)
            ledger.close_batch("t", members, version)


def _findings(tmp_path: Path) -> list[str]:
    told = _json(tmp_path, "ledger", "check", "--config", "b.toml", code=1)["findings"]
    assert all(each["todo"] for each in told)
    return [f"{each['where']}: {each['what']}" for each in told]


def test_a_sound_store_has_no_findings(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    assert _json(tmp_path, "ledger", "check", "--config", "b.toml") == {"findings": [], "versions_remade": 2}
    size = _json(tmp_path, "ledger", "size", "--config", "b.toml")
    assert (size["frame_rows"], size["registry_contents"], size["versions_kept"]) == (6, 4, {"t": 3})
    assert size["registry_bytes"] == sum(path.stat().st_size for path in store.registry.iterdir())
    assert size["ledger_bytes"] > 4096


@pytest.mark.parametrize("statement", DAMAGE, ids=range(len(DAMAGE)))
def test_every_broken_promise_is_found(store: Aggregator, statement: str) -> None:
    _fill(store)
    db = sqlite3.connect(store.ledger)
    assert db.execute(statement).rowcount
    db.commit()
    db.close()
    found = [each.what for each in examine.examine(store)[0]]
    assert any(DAMAGE[statement] in what for what in found), found


def test_damage_to_files_is_found_with_what_to_do(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    with open_ledger(store.ledger, read_only=True) as ledger:
        before, after, last = (each.digest for each in ledger.versions("t"))
    (store.registry / last).write_bytes(b"other")
    (finding,) = _findings(tmp_path)
    assert last in finding
    assert "damaged" in finding
    (store.registry / after).unlink()
    assert sum("No such file" in each for each in _findings(tmp_path)) == 1
    assert before in {path.name for path in store.registry.iterdir()}
    db = sqlite3.connect(store.ledger)
    assert db.execute("UPDATE contribution SET body = x'4543' WHERE sequence = 1").rowcount
    db.commit()
    db.close()


def test_other_bytes_in_a_batch_make_another_version(store: Aggregator) -> None:
    _fill(store)
    db = sqlite3.connect(store.ledger)
    other = fleet.make_frame("t", "d", epoch=7, sequence=1, seed=99)
    db.execute("UPDATE contribution SET body = ? WHERE sequence = 1", (other,))
    db.commit()
    found, remade = examine.examine(store)
    assert [(each.where, remade) for each in found] == [("task t version 1", 1)]
    db.execute("UPDATE contribution SET body = x'4543' WHERE sequence = 1")
    db.commit()
    db.close()
    assert "cannot be added again" in examine.examine(store)[0][0].what


def test_damaged_pages_are_found(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    content = bytearray(store.ledger.read_bytes())
    content[5 * 4096 : 7 * 4096] = bytes(2 * 4096)
    store.ledger.write_bytes(content)
    assert any("the file is damaged" in each for each in _findings(tmp_path))


def test_a_damaged_backup_is_not_restored(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    backup.backup(store, tmp_path / "saved")
    shutil.rmtree(store.directory)
    config = ("--config", "b.toml")
    (tmp_path / "empty").mkdir()
    assert "holds no backup" in _call(tmp_path, "restore", *config, "empty", code=1)
    one = max((tmp_path / "saved" / "registry").iterdir())
    content = one.read_bytes()
    one.write_bytes(b"other")
    assert "is damaged" in _call(tmp_path, "restore", *config, "saved", code=1)
    assert not store.ledger.exists()
    one.write_bytes(content)
    _call(tmp_path, "restore", *config, "saved")
    assert _json(tmp_path, "ledger", "check", *config) == {"findings": [], "versions_remade": 2}
    assert sorted(path.name for path in store.directory.iterdir()) == ["ledger.db", "registry", "serve.lock"]


def test_killed_halfway_backup_and_restore_start_again(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    config = ("--config", "b.toml")
    killed = {**os.environ, VARIABLE: "files.before-rename=kill@2"}

    def interrupted(command: str) -> int:
        arguments = [sys.executable, "-m", "broker.cli", command, *config, "saved"]
        return subprocess.run(arguments, env=killed, cwd=tmp_path, check=False).returncode

    assert interrupted("backup") == -signal.SIGKILL
    assert not (tmp_path / "saved").exists()
    _call(tmp_path, "backup", *config, "saved")
    assert not (tmp_path / "saved.partial").exists()
    shutil.rmtree(store.directory)
    assert interrupted("restore") == -signal.SIGKILL
    assert not store.ledger.exists()
    _call(tmp_path, "restore", *config, "saved")
    assert _json(tmp_path, "ledger", "check", *config) == {"findings": [], "versions_remade": 2}
    assert sorted(path.name for path in store.directory.iterdir()) == ["ledger.db", "registry", "serve.lock"]


def test_a_folder_of_a_dead_machine_is_restored_with_its_log(store: Aggregator, tmp_path: Path) -> None:
    """ledger.db as a power cut or a snapshot leaves it: the newest writes are in ledger.db-wal alone."""
    _fill(store)
    with open_ledger(store.ledger) as ledger:
        body = fleet.make_frame("t", "d", epoch=7, sequence=6, seed=6)
        entry = Entry("t", "d", 7, 6, frame.digest(body), 6, 0, 1, 0, 100, 25600, None, body)
        ledger.admit([entry], 1.0)
        assert Path(f"{store.ledger}-wal").stat().st_size > 0
        shutil.copytree(store.directory, tmp_path / "snapshot")
    shutil.rmtree(store.directory)
    _call(tmp_path, "restore", "--config", "b.toml", "snapshot")
    with open_ledger(store.ledger, read_only=True) as ledger:
        assert ledger.frame_counts("t") == {"d": (7, 0, 0)}
    assert _json(tmp_path, "ledger", "check", "--config", "b.toml")["findings"] == []
    names = sorted(path.name for path in store.directory.iterdir())
    assert names == ["ledger.db", "registry", "serve.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_backup_without_room_gives_the_room_back(store: Aggregator, tmp_path: Path) -> None:
    _fill(store)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        used = sum(path.stat().st_size for path in store.directory.rglob("*") if path.is_file())
        (small / "filler").write_bytes(bytes((3 << 20) - used // 2))
        before = os.statvfs(small).f_bavail
        said = _call(tmp_path, "backup", "--config", "b.toml", "small/saved", code=1)
        assert len(said.splitlines()) == 1
        assert os.statvfs(small).f_bavail == before
        assert [path.name for path in small.iterdir()] == ["filler"]
        (small / "filler").unlink()
        _call(tmp_path, "backup", "--config", "b.toml", "small/saved")
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
