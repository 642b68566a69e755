"""Which tasks are served: with a ledger that fails at the wrong moment, and messages of whoever can publish."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from unittest import mock

import fleet
import numpy as np
import pytest
from links import Script

from broker.commands import takeover
from broker.ledger.opening import open_ledger, place
from broker.ledger.protocol import Ledger, LedgerError, LedgerUnavailable
from broker.ledger.rows import Start
from broker.monitor.watch import Watch
from broker.publish.retained import Publisher
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Task
from broker.task.incumbency import Incumbency
from broker.task.journal import Journal
from broker.task.live import LiveTask
from broker.task.roster import Roster
from broker.views import Contact, Rival
from edgeclient.link.events import Message
from edgeclient.link.mqtt import Link
from edgeclient.settings import Mqtt
from edgeclient.wire import announcement, topics
from edgeclient.wire import claim as claims
from edgeclient.wire.claim import Claim

TASKS = ("a", "b")


def message(topic: str, payload: bytes) -> Message:
    return Message(topic, payload, retained=False, connection=1, mid=1, qos=1)


def head(task: str) -> Message:
    """A forged announcement, of a ledger that nobody has seen before."""
    zeros = np.zeros(fleet.LAYOUT.size, np.float32)
    made = fleet.announcement(task, 7, zeros, secrets.token_hex(8), ledger=secrets.token_hex(8), term=1)
    return message(topics.head(task), announcement.encode(made))


@dataclass
class World:
    """Two tasks, in memory but for the ledger; time passes when the test says so."""

    now: list[float]
    ledger: Ledger
    blobs: Blobs
    link: Script
    publisher: Publisher
    roster: Roster

    def look(self, after_s: float = 1.5) -> None:
        self.now[0] += after_s
        self.roster.look()

    @property
    def heads(self) -> list[str]:
        """Topics on which an announcement was published."""
        return [topic for topic, payload in self.link.published if topic.endswith("/head") and payload]

    def subscribed(self, task: str) -> bool:
        return topics.everyone(task, "up") in self.link.subscribed


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    settings = Aggregator(directory=tmp_path, mqtt=Mqtt())
    for task in TASKS:
        fleet.add_task(settings, task, fleet.BUNDLE, Task())
    with open_ledger(settings.ledger) as ledger:
        blobs, link = Blobs(settings.registry), Script()
        publisher = Publisher(cast("Link", link))
        publisher.listens = True
        journal = Journal(Watch())
        roster = Roster(ledger, blobs, publisher, cast("Link", link), journal, mock.Mock(), place(settings.ledger))
        yield World(now, ledger, blobs, link, publisher, roster)


@pytest.mark.parametrize("fails", [(Ledger, "inherit"), (LiveTask, "evaluate"), (LiveTask, "publish_all")])
def test_a_ledger_that_fails_while_tasks_begin_loses_none(
    world: World, monkeypatch: pytest.MonkeyPatch, fails: tuple[type, str]
) -> None:
    """The second of two fails: both are served once it works again."""
    of = type(world.ledger) if fails[0] is Ledger else fails[0]
    real, calls = getattr(of, fails[1]), []

    def once(*given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise LedgerUnavailable("the disk is failing")
        return real(*given)

    monkeypatch.setattr(of, fails[1], once)
    with pytest.raises(LedgerUnavailable):
        world.look(6.0)
    world.look()
    assert sorted(task.name for task in world.roster) == [*TASKS]
    assert set(world.heads) == set(map(topics.head, TASKS))
    assert all(map(world.subscribed, TASKS))


@pytest.mark.parametrize("fails", [(Incumbency, "connected"), (LiveTask, "publish_all")])
def test_a_ledger_that_fails_while_a_connection_begins_makes_nobody_deaf(
    world: World, monkeypatch: pytest.MonkeyPatch, fails: tuple[type, str]
) -> None:
    world.look(6.0)
    world.link.subscribed.clear()
    world.link.published.clear()
    with monkeypatch.context() as patch:
        patch.setattr(*fails, mock.Mock(side_effect=LedgerUnavailable("the disk is failing")))
        world.roster.welcome()  # what follows it in the same turn is heard
        with pytest.raises(LedgerUnavailable):
            world.look()
    world.look()
    assert all(map(world.subscribed, TASKS))
    assert set(world.heads) == set(map(topics.head, TASKS))


def test_a_version_that_could_not_be_announced_is_announced_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look(6.0)
    world.link.published.clear()
    (task, _) = world.roster
    with monkeypatch.context() as patch:
        patch.setattr(LiveTask, "announcement", mock.Mock(side_effect=LedgerUnavailable("the disk is failing")))
        with pytest.raises(LedgerUnavailable):
            world.roster.publish(task)
    world.look()
    assert world.heads == [topics.head(task.name)]


def test_a_task_whose_contents_are_gone_keeps_no_other_from_being_served(world: World) -> None:
    world.look(6.0)
    world.link.published.clear()
    (task, other) = world.roster
    content = world.blobs.get(other.version.digest)
    world.blobs.remove(task.version.digest)  # both begin with the same
    world.roster.welcome()
    assert world.heads == []
    world.blobs.put(content)
    world.roster.welcome()
    assert set(world.heads) == set(map(topics.head, TASKS))


@pytest.mark.parametrize("device", ["head", "claim"])
def test_a_device_may_be_called_as_a_topic_is(world: World, device: str) -> None:
    """Unheard, its messages are not acknowledged either, and the MQTT broker soon delivers none of anybody."""
    world.look(6.0)
    world.link.published.clear()
    assert not world.roster.hear(message(topics.up("a", device), b"frame"))
    assert not world.roster.hear(message(topics.up("a", device), b""))
    world.look()
    assert world.heads == []  # nobody has cleared anything
    assert world.roster.hear(message(topics.head("a"), b""))
    world.look()
    assert world.heads == [topics.head("a")]


def test_whoever_invents_aggregators_costs_a_line_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.look(6.0)
    written = mock.Mock()
    monkeypatch.setattr(type(world.ledger), "meet", written)
    for _ in range(3000):
        assert world.roster.hear(head("a"))
    assert written.call_count == 1
    assert len([each for each in caplog.records if "announces it" in each.getMessage()]) == 1


def test_a_removed_task_leaves_although_others_serve_what_is_left(world: World) -> None:
    """Only then does the command end, and says why."""
    answer = Claim("cd" * 8, 9, "ef" * 8, True, answers=world.roster._incumbency.me.service)
    world.roster.hear(message(topics.claim("b"), claims.encode(answer)))
    world.look(6.0)
    assert [task.name for task in world.roster] == ["a"]
    world.ledger.remove_task("a")
    world.link.published.clear()
    world.look()
    assert (topics.head("a"), b"") in world.link.published
    world.look()
    assert world.ledger.removed() == []
    with pytest.raises(LedgerError, match="served from another ledger"):
        world.look()


def test_a_takeover_is_of_the_ledger_that_served_whoever_is_announced_since(world: World) -> None:
    with_another = Rival("a", "cd" * 8, 9, "ef" * 8, Contact.SILENT, 1.0)
    world.ledger.meet(with_another)
    world.ledger.meet(Rival("a", "ba" * 8, 1, "ab" * 8, Contact.ANNOUNCED, 2.0))
    assert takeover._chosen(world.ledger, "a", "") == Start("cd" * 8, 9)
    assert takeover._chosen(world.ledger, "a", "ba") == Start("ba" * 8, 1)
