"""Versions that the fleet must not see: out of their domain, without a finite loss, or fallen off a cliff."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import attrs
import fleet
import numpy as np
import pytest
from fleet import aggregator, hand, make_frame
from trainer_exam import unpack

from broker.demo import data
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.ledger.rows import PENDING, Entry, Version
from broker.monitor.events import Bookmark
from broker.monitor.metrics import Metrics
from broker.monitor.watch import Watch
from broker.registry.blobs import Blobs
from broker.registry.cliff import WINDOW, fallen
from broker.registry.evaluator import Evaluated, Evaluator
from broker.settings import Aggregator, Task
from broker.task.gate import Judged
from broker.task.journal import Journal
from broker.task.live import LiveTask
from broker.task.new import add_task
from broker.upkeep.examine import remade
from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.layout import Layout
from edgeclient.bundle.manifest import MANIFEST
from edgeclient.compress.arrays import F32
from edgeclient.link.mqtt import Endpoint, Message
from edgeclient.settings import Mqtt, Source
from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.data import open_data
from edgeclient.train.trainer import Plan
from edgeclient.wire import announcement, frame, topics

GOOD = {"loss": 0.5, "accuracy": 0.8}
BROKEN = {"loss": 2.5, "accuracy": 0.12}


class World:
    """A task in memory whose evaluations are said by the test."""

    def __init__(self, ledger: Ledger, blobs: Blobs) -> None:
        self.ledger, self.blobs = ledger, blobs
        self.sequence = 0
        self.load()

    def load(self) -> LiveTask:
        (row,) = self.ledger.tasks()
        self.task = LiveTask(self.ledger, self.blobs, row)
        self.evaluator = mock.Mock(spec=Evaluator)
        self.evaluator.awaits.side_effect = lambda since_s, most_s: since_s < most_s
        self.evaluator.results.return_value = []
        self.task._evaluator = self.evaluator
        return self.task

    def close(self) -> Version:
        """A batch of one update; the newest version of the ledger."""
        body = make_frame("t", "d", epoch=7, sequence=self.sequence, seed=self.sequence)
        self.ledger.admit(
            [Entry("t", "d", 7, self.sequence, frame.digest(body), self.sequence, 0, 1, 0, 100, 256, None, body)], 1.0
        )
        self.sequence += 1
        self.task.close_batch(self.ledger, self.blobs)
        return self.newest()

    def newest(self) -> Version:
        return self.ledger.versions("t", 1)[0]

    def judge(self, metrics: Mapping[str, float] | None, number: int | None = None) -> Judged | None:
        """After an evaluation of the newest version, if there is one."""
        if metrics is not None:
            found = Evaluated(self.newest().number if number is None else number, dict(metrics))
            self.evaluator.results.return_value = [found]
            assert list(self.task.evaluated(self.ledger)) == [found]
            self.evaluator.results.return_value = []
        return self.task.judge(self.ledger, self.blobs)

    def good(self, versions: int) -> None:
        for _ in range(versions):
            self.close()
            judged = self.judge(GOOD)
            assert judged is not None
            assert not judged.held


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = Aggregator(directory=tmp_path, mqtt=Mqtt())
    add_task(settings, "t", fleet.BUNDLE, Task(keep_frames_of_versions=-1))
    with open_ledger(settings.ledger) as ledger:
        made = World(ledger, Blobs(settings.registry))
        yield made
        assert ledger.check() == []
        (row,) = ledger.tasks()
        again = list(remade(ledger, made.blobs, row))
        assert len(again) == sum(each.batch is not None for each in ledger.versions("t"))
        assert all(same for _, same in again)


def test_a_version_is_seen_once_its_evaluation_has_come(world: World) -> None:
    made = world.close()
    assert (made.number, made.held, world.task.version.number) == (1, PENDING, 0)
    assert world.judge(None) is None
    assert world.task.wait_s(world.ledger, Watch()) is None  # no other batch closes meanwhile
    assert made.digest not in world.task.served(world.ledger)[0]
    judged = world.judge(GOOD)
    assert judged is not None
    assert (judged.held, judged.current.number, world.newest().held) == ("", 1, "")
    assert world.task.version.number == 1
    assert world.judge(None) is None


@pytest.mark.parametrize("metrics", [BROKEN, {"loss": math.nan, "accuracy": 0.8}, {"loss": math.inf}])
def test_what_evaluates_as_broken_is_followed_by_the_last_good_parameters(
    world: World, metrics: dict[str, float]
) -> None:
    world.good(3)
    before = world.task.version
    broken = world.close()
    judged = world.judge(metrics)
    assert judged is not None
    assert (judged.made.number, judged.current.number) == (4, 5)
    assert judged.current.digest == before.digest != broken.digest
    assert (world.task.version, world.newest()) == (judged.current, judged.current)
    assert [each.held for each in world.ledger.versions("t")] == ["", "", "", "", judged.held, ""]
    assert broken.digest not in world.task.served(world.ledger)[0]
    notices = Bookmark(60).notices(*world.ledger.news({"t": 3}, {}), now_s=1.0)
    told = [each.text for each in notices if each.task == "t" and not each.device]
    assert told == [f"version 4 is held back: {judged.held}", "version 5 has the parameters of version 3 again"]
    # The next batch begins from the good ones; what the broken one was made of is counted, and its effect is gone.
    world.good(1)
    assert world.task.version.number == 6
    parameters = [world.blobs.parameters(each.digest) for each in (before, world.task.version)]
    assert 0 < np.abs(parameters[1] - parameters[0]).max() < 1
    # A start finds the same.
    assert world.load().version.number == 6


def test_an_evaluation_that_came_before_a_kill_is_judged_after_it(world: World) -> None:
    world.good(3)
    made = world.close()
    world.ledger.add_metrics("t", made.number, BROKEN)  # killed before it was judged
    world.load()
    judged = world.judge(None)
    assert judged is not None
    assert (judged.made.number, judged.held, world.task.version.number) == (4, judged.held, 5)
    assert judged.held


def test_numbers_outside_their_domain_are_never_seen_whatever_the_evaluation(world: World) -> None:
    world.good(1)
    behind(world)
    fine = {world.blobs.parameters(each.digest).tobytes() for each in world.ledger.versions("t")}

    def fault(_: Layout, flat: F32) -> str:
        return "" if flat.tobytes() in fine else "norm.var has -0.25, outside 0.0 to 2^36"

    with mock.patch.object(Layout, "fault", fault):
        made = world.close()
        assert made.held == "norm.var has -0.25, outside 0.0 to 2^36"
        again = world.load()  # killed between the two: the next life judges it
        assert (again.version.number, again._gate.busy) == (1, True)
        judged = world.judge(None)
    assert judged is not None
    assert (judged.current.number, judged.held) == (3, made.held)
    assert judged.current.digest == world.ledger.versions("t")[1].digest


def test_a_start_waits_for_the_evaluation_that_its_past_life_waited_for(world: World) -> None:
    world.good(3)
    made = world.close()
    again = world.load()
    assert (again.version.number, again._gate.busy) == (3, True)
    assert world.judge(None) is None
    judged = world.judge(GOOD)
    assert judged is not None
    assert (judged.held, world.task.version.digest) == ("", made.digest)


@pytest.mark.parametrize("why", ["slow", "behind", "none", "error"])
def test_without_an_evaluation_in_time_a_version_is_seen(world: World, why: str) -> None:
    if why == "none":
        world.task._evaluator = None
    if why == "behind":
        behind(world)
    world.close()
    if why == "slow":
        assert world.judge(None) is None
        world.task.settings = attrs.evolve(world.task.settings, evaluation_wait_s=0.0)
    judged = world.judge({} if why == "error" else None)
    assert judged is not None
    assert (judged.held, world.task.version.number) == ("", 1)


def test_an_evaluation_that_comes_too_late_is_followed_by_the_last_good_parameters_as_well(world: World) -> None:
    world.good(3)
    behind(world)
    for _ in range(2):
        world.close()
        assert world.judge(None) is not None
    assert world.judge(BROKEN, number=4) is None  # newer ones are seen already: they speak for themselves
    judged = world.judge(BROKEN, number=5)
    assert judged is not None
    assert (judged.made.number, judged.current.number) == (5, 6)
    assert judged.current.digest == world.ledger.versions("t")[3].digest
    assert world.judge(GOOD, number=2) is None


def behind(world: World) -> None:
    world.evaluator.awaits.side_effect = lambda *_: False


def test_what_waits_is_judged_before_an_older_ledger_goes_on(world: World) -> None:
    """Otherwise what its updates have taught would be lost, though they are counted."""
    world.good(1)
    made = world.close()
    world.task.note_lost(world.ledger, 3)
    assert world.task.catch_up(world.ledger) is None
    judged = world.judge(GOOD)
    assert judged is not None
    assert world.task.catch_up(world.ledger) == judged.current.number == made.number
    assert world.task.version.number > 1000
    assert world.task.version.digest == made.digest


def test_a_restored_ledger_goes_on_from_what_the_fleet_has_seen(world: World) -> None:
    world.good(1)
    world.close()
    world.ledger.jump(time.time(), "t")
    again = world.load()
    assert again.version.number > 1000
    assert again.version.digest == world.ledger.versions("t")[1].digest
    assert not again._gate.busy


def test_what_is_held_back_is_counted_and_told(world: World) -> None:
    metrics = Metrics(lambda: (0, 0))
    journal = Journal(metrics)
    journal.begins(world.task)
    world.task.wait_s(world.ledger, metrics)
    world.good(3)
    world.close()
    judged = world.judge(BROKEN)
    assert judged is not None
    journal.judged(world.task, judged)
    assert metrics.held_back("t") == f"version 4 is held back: {judged.held}"
    assert b'edgebroker_versions_held_total{task="t"} 1.0' in metrics.exposition()
    world.close()
    judged = world.judge(GOOD)
    assert judged is not None
    journal.judged(world.task, judged)
    assert metrics.held_back("t") == ""


def test_cliffs() -> None:
    usual = [{"loss": 0.5 + i % 3 / 10, "accuracy": 0.8 - i % 3 / 20} for i in range(30)]
    assert not fallen({"loss": 0.85, "accuracy": 0.4}, usual)  # loss within reach: uneven data
    assert not fallen({"loss": 2.5, "accuracy": 0.6}, usual)  # sure of itself, and yet right as often
    assert fallen({"loss": 2.5, "accuracy": 0.4}, usual)
    assert not fallen({"loss": 2.5, "accuracy": 0.4}, usual[:2])  # too few to tell
    assert not fallen({}, usual)
    assert not fallen({"loss": 4.0}, [{"loss": 0.5}] * 5)
    assert fallen({"loss": 6.0}, [{"loss": 0.5}] * 5)
    # A young model that stands still at chance has nothing to fall from.
    assert not fallen({"loss": 2.3, "accuracy": 0.1}, [{"loss": 2.2, "accuracy": 0.12}] * 5)
    # Data that has changed for good is the new measure once most versions show it.
    worse = {"loss": 2.5, "accuracy": 0.3}
    assert fallen(worse, [*usual, *[worse] * (WINDOW // 2 - 1)])
    assert not fallen(worse, [*usual, *[worse] * (WINDOW // 2 + 1)])


def test_a_fleet_gets_the_last_good_parameters_after_poison(tmp_path: Path, endpoint: Endpoint) -> None:
    """Real: `serve`, its evaluator, a broker, frames. The poison keeps to every limit that a frame has."""
    task = "gate"
    opened = archive.decode(fleet.BUNDLE)
    x, labels = data.device_windows(1, 0)
    np.savez(tmp_path / "held_out.npz", x=x, labels=labels)
    known = open_data(str(tmp_path / "held_out.npz"), {}, opened.manifest)
    trained = compiled_trainer(unpack(opened, tmp_path / "bundle")).train(
        opened.parameters, known, Plan(0.05, 4, 16), np.random.default_rng(0)
    )
    tensors = opened.manifest.layout.split(trained.applied_to(opened.parameters))
    files = {name: content for name, content in opened.files.items() if name != MANIFEST}
    bundle = archive.encode(opened.manifest, {**files, archive.PARAMETERS: safetensors.encode(tensors)})
    settings = Task(
        goal=1, deadline_s=60.0, min_interval_s=0.0, learning_rate=20.0,
        evaluation=Source(str(tmp_path / "held_out.npz")),
    )  # fmt: skip
    with (
        aggregator(tmp_path, endpoint, task, settings, bundle) as made,
        hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        seen: list[announcement.Announcement] = []

        def head(version: int) -> announcement.Announcement:
            def is_it(message: Message) -> bool:
                if message.topic == topics.head(task):
                    seen.append(announcement.decode(message.payload))
                return bool(seen) and seen[-1].version == version

            fleet.await_message(link, is_it, 60)
            return seen[-1]

        head(0)
        for number in range(1, 4):
            link.publish(fleet.up(task, "d"), make_frame(task, "d", epoch=7, sequence=number, scale=1e-6, seed=number))
            good = head(number)
        link.publish(fleet.up(task, "d"), make_frame(task, "d", epoch=7, sequence=4, scale=4.0, seed=4))
        after = head(5)
        assert after.parameters == good.parameters
        assert 4 not in {each.version for each in seen}
        with open_ledger(made.ledger, read_only=True) as book:
            held = book.versions(task)[4]
            assert book.frame_counts(task)["d"] == (4, 0, 0)  # counted, though its effect is gone
        assert "accuracy fell" in held.held
        assert held.metrics["accuracy"] < 0.7 * book_best(made, task)
        log = (tmp_path / "a.log").read_text()
        assert f"task {task}: version 4 is held back: its accuracy fell" in log
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "events", "--config", str(tmp_path / "a.toml"), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert any(each.startswith("version 4 is held back: its accuracy fell") for each in said)
    assert "version 5 has the parameters of version 3 again" in said


def book_best(settings: Aggregator, task: str) -> float:
    with open_ledger(settings.ledger, read_only=True) as book:
        return max(each.metrics["accuracy"] for each in book.versions(task) if "accuracy" in each.metrics)
