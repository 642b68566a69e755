"""A task in memory: what it has added of the next version is what the ledger has admitted, however it came to it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from unittest import mock

import attrs
import fleet
import pytest

from broker.aggregate.version import State
from broker.intake.decode import FrameIn, Incoming
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Entry, Version
from broker.monitor.watch import Watch
from broker.registry.blobs import Blobs
from broker.rounds.trigger import Buffer
from broker.settings import Aggregator, Task
from broker.task import open_batch as module
from broker.task.live import LiveTask
from broker.task.open_batch import OpenBatch
from broker.task.trigger import trigger
from broker.task.worth import best_version
from broker.upkeep.examine import remade
from edgeclient.logs.complaints import EVERY_S, MAX_KEYS, OTHERS, Complaints
from edgeclient.settings import Mqtt
from edgeclient.wire import frame


class World:
    """A ledger, a registry and the task t."""

    def __init__(self, ledger: Ledger, blobs: Blobs) -> None:
        self.ledger, self.blobs = ledger, blobs

    def load(self) -> LiveTask:
        (row,) = self.ledger.tasks()
        return LiveTask(self.ledger, self.blobs, row)

    def admit(self, entries: Sequence[Entry]) -> list[Incoming]:
        """What was read, once the ledger has it."""
        self.ledger.admit(entries, 1.0)
        return read(entries)

    def close(self, task: LiveTask) -> Version:
        task.close_batch(self.ledger, self.blobs)
        assert task.judge(self.ledger, self.blobs) is not None
        return task.version


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = Aggregator(directory=tmp_path, mqtt=Mqtt())
    fleet.add_task(settings, "t", fleet.BUNDLE, Task())
    with open_ledger(settings.ledger) as ledger:
        yield World(ledger, Blobs(settings.registry))
        assert ledger.check() == []


def read(entries: Sequence[Entry]) -> list[Incoming]:
    return [FrameIn("t", "d", each.body, frame.decode(each.body, fleet.LAYOUT.tensors)) for each in entries]


def entry(
    sequence: int, *, device: str = "d", number: int | None = None, part: int = 0, parts: int = 1, weight: int = 256
) -> Entry:
    body = fleet.make_frame("t", device, epoch=7, sequence=sequence, seed=sequence)
    update = sequence if number is None else number
    return Entry("t", device, 7, sequence, frame.digest(body), update, part, parts, 0, 100, weight, None, body)


def test_added_when_admitted_or_made_again_after_a_restart_it_is_the_same(world: World) -> None:
    task = world.load()
    for first in range(0, 6, 2):
        said = world.admit([entry(first), entry(first + 1)])
        with mock.patch.object(frame, "decode", side_effect=AssertionError("decoded at its admission")):
            task.follow(world.ledger, said)
    _, again = open_of(world.load()).finish(world.ledger, task.strategy, fleet.START, State())
    with mock.patch.object(frame, "decode", side_effect=AssertionError("decoded at its admission")):
        made = world.close(task)
    assert sha256(again.parameters.astype("<f4").tobytes()).hexdigest() == made.digest
    assert (again.total_weight, again.terms) == (made.total_weight, made.terms)
    (row,) = world.ledger.tasks()
    assert list(remade(world.ledger, world.blobs, row)) == [(1, True)]
    assert world.load().version == task.version


def open_of(task: LiveTask) -> OpenBatch:
    return task._open


def test_nothing_remains_of_an_admission_that_failed(world: World) -> None:
    task, quiet = world.load(), world.load()
    task.follow(world.ledger, world.admit([entry(0)]))
    bad = replace(entry(2), digest="text")  # type: ignore[arg-type]  # a strict table refuses it
    with pytest.raises(LedgerError):
        world.admit([entry(1), bad])
    task.follow(world.ledger, read([entry(1), entry(2)]))
    sums = [open_of(each).finish(world.ledger, each.strategy, fleet.START, State())[1] for each in (task, quiet)]
    assert sums[0].parameters.tobytes() == sums[1].parameters.tobytes()
    task.follow(world.ledger, world.admit([entry(1)]))
    assert world.close(task).frames == 2


def test_of_two_frames_of_one_identity_the_admitted_one_is_added(world: World) -> None:
    task = world.load()
    other = replace(entry(0), body=fleet.make_frame("t", "d", epoch=7, sequence=0, seed=99), digest=b"another!")
    task.follow(world.ledger, world.admit([entry(0), other]))
    world.close(task)
    (row,) = world.ledger.tasks()
    assert list(remade(world.ledger, world.blobs, row)) == [(1, True)]


def test_more_frames_than_a_batch_may_have_wait_for_the_next_and_leading_ones_come_first(world: World) -> None:
    with mock.patch.object(module, "MAX_FRAMES", 3):
        task = world.load()
        for part in range(3):
            task.follow(world.ledger, world.admit([entry(part, number=0, part=part, parts=3, weight=512)]))
        task.follow(world.ledger, world.admit([entry(sequence) for sequence in (3, 4)]))
        first = world.close(task)
        assert (first.updates, first.frames, first.total_weight) == (3, 3, 512 + 2 * 256)
        task.follow(world.ledger, world.admit([entry(5)]))
        second = world.close(task)
        assert (second.updates, second.frames, second.total_weight) == (1, 3, 512 + 256)
        assert world.ledger.pending("t").frames == 0
    (row,) = world.ledger.tasks()
    assert [same for _, same in remade(world.ledger, world.blobs, row)] == [True, True]
    assert second.digest != first.digest


def test_the_best_version_stays_whatever_its_age(tmp_path: Path) -> None:
    settings = Aggregator(directory=tmp_path, mqtt=Mqtt())
    fleet.add_task(settings, "t", fleet.BUNDLE, Task(keep_versions=3))
    with open_ledger(settings.ledger) as ledger:
        world = World(ledger, Blobs(settings.registry))
        task = world.load()
        for number in range(1, 40):
            world.admit([entry(number)])
            world.close(task)
            ledger.add_metrics("t", number, {"loss": 0.1 if number == 7 else 1.0})
            with mock.patch.object(task, "served", return_value=([], [])):  # as if none was young
                task.tidy(ledger, world.blobs)
        versions = ledger.versions("t")
        held = [replace(each, held="broken") if each.number == 7 else each for each in versions]
        assert (best_version(versions), best_version(held)) == (
            7,
            min(each.number for each in held if each.metrics and not each.held),
        )
        kept = [version.number for version in ledger.versions("t")]
        assert 7 in kept
        assert len(kept) < 20
        assert world.blobs.parameters(ledger.versions("t")[kept.index(7)].digest).size == fleet.LAYOUT.size


def test_goal_and_deadline_follow_who_takes_part(world: World) -> None:
    settings = Task()
    assert trigger(world.ledger, "t", settings) == Buffer(1, 600.0, 5.0)
    task = world.load()
    for number in range(4):
        entries = [entry(number, device=f"d{k}") for k in range(6)]
        world.admit(entries)
        world.close(task)
    assert trigger(world.ledger, "t", settings) == Buffer(3, 60.0, 5.0)
    assert trigger(world.ledger, "t", attrs.evolve(settings, goal=64, deadline_s=5.0)) == Buffer(64, 5.0, 5.0)


def test_a_task_rests_when_asked_to_and_goes_on_with_new_data(tmp_path: Path) -> None:
    settings = Aggregator(directory=tmp_path, mqtt=Mqtt())
    fleet.add_task(settings, "t", fleet.BUNDLE, Task(goal=1, min_interval_s=0, max_versions=3))
    with open_ledger(settings.ledger) as ledger:
        world = World(ledger, Blobs(settings.registry))
        task = world.load()

        def learn(sequence: int, examples: int = 100) -> bool:
            """Whether a version is made of one more update."""
            world.admit([replace(entry(sequence), num_examples=examples)])
            wait_s = task.wait_s(ledger, Watch())
            if wait_s is not None and wait_s <= 0:
                world.close(task)
                return True
            return False

        assert [learn(number) for number in range(5)] == [True, True, True, False, False]
        assert (task.version.number, task.rest) == (3, "3 versions are made (max_versions = 3)")
        assert world.load().wait_s(ledger, Watch()) is None  # after a restart likewise
        assert [learn(5, examples=200), *(learn(number) for number in range(6, 9))] == [True, True, True, False]
        assert task.version.number == 6
        # More patience, or a limit that is higher, and it goes on at once.
        task.change(
            ledger.change_task("t", lambda old: {**old, "max_versions": 0, "patience": 2, "evaluation": "x.npz"})
        )
        assert learn(9)
        for number, loss in enumerate((1.0, 0.5, 0.6, 0.7)):
            ledger.add_metrics("t", 4 + number, {"loss": loss})
        task.change(ledger.tasks()[0])  # as if measured just now
        assert not learn(10)
        assert task.rest == "none of 2 versions is better than version 5 (patience = 2)"


# Complaints


def test_a_flood_is_one_line_in_thirty_seconds() -> None:
    complaints = Complaints()
    lines = [complaints.note("d", "checksum", "broken", now=i / 100) for i in range(100 * 90)]
    told = [line for line in lines if line is not None]
    assert told[0] == "d: broken"
    assert len(told) == 3
    assert "(3000 times in 30 s, reason checksum)" in told[1]
    assert complaints._by_key["d", "checksum"].since == 9000 - 1 - 2 * 3000  # none is told twice or forgotten
    assert complaints.note("d", "magic", "another reason", now=90) == "d: another reason"
    assert complaints.note("e", "checksum", "another device", now=90) == "e: another device"


def test_hostile_names_take_bounded_memory_and_bounded_lines() -> None:
    complaints = Complaints()
    lines = [complaints.note(f"d{i}", "checksum", "broken", now=0.0) for i in range(50_000)]
    assert len(complaints._by_key) == MAX_KEYS + 1
    assert sum(line is not None for line in lines) == MAX_KEYS + 1
    assert complaints._by_key[OTHERS, "checksum"].since == 50_000 - MAX_KEYS - 1  # since its line
    assert complaints.note("d0", "checksum", "broken", now=EVERY_S) is not None
