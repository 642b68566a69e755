"""Turns of the device's loop, with a link that says what the test wants."""

import errno
import json
import time
from pathlib import Path
from typing import Any, cast

import fleet
import pytest
from links import Script

from edgeclient.agent import Agent
from edgeclient.conditions.board import Board, Observed
from edgeclient.conditions.guard import Guard
from edgeclient.durable.store import Store
from edgeclient.link.events import Connected, Message
from edgeclient.link.mqtt import Link
from edgeclient.settings import Conditions, Device, structure
from edgeclient.uplink.sender import Sender
from edgeclient.wire import messages, topics


def device(folder: Path, name: str = "pi") -> Device:
    values = {"device": name, "task": "har", "directory": str(folder / name), "data": {"source": "x.npz"}}
    (folder / name).mkdir(parents=True, exist_ok=True)
    return structure(values, Device, where="test")


def message(payload: bytes, mid: int) -> Message:
    return Message(topics.down("har", "pi"), payload, retained=False, connection=1, mid=mid, qos=1)


def test_a_full_disk_makes_nobody_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the receipt that could not be kept is heard, and the broker may send on."""
    first, second = message(b"1", 1), message(b"2", 2)
    link = Script(first, Connected(2), second)
    agent = Agent(device(tmp_path), link=cast("Link", link))
    taken: list[Message] = []

    def take(event: Message) -> None:
        if not taken:
            taken.append(event)
            raise OSError(errno.ENOSPC, "No space left on device", "store.db")
        taken.append(event)

    monkeypatch.setattr(agent, "_take", take)
    agent.turn(0.0)
    agent.turn(0.0)
    assert taken == link.acknowledged == [first, second]
    assert topics.down("har", "pi") in link.subscribed


def test_every_task_of_a_device_counts_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Metered(Board):
        def observe(self) -> Observed:
            return Observed(metered=True)

    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    guard = Guard(Conditions(), tmp_path, Metered(tmp_path))
    links = [Script(passed_bytes=1000), Script(passed_bytes=500)]
    agents = [
        Agent(device(tmp_path, name), link=cast("Link", link), guard=guard)
        for name, link in zip(("a", "b"), links, strict=True)
    ]
    for now[0] in (100.0, 100.25, 105.0, 105.25, 110.0, 110.25):
        for agent in agents:
            agent.turn(0.0)
    assert json.loads((tmp_path / "usage.json").read_text())["day_bytes"] == 1500


def test_an_unanswered_withdrawal_is_said_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    link = Script()
    said: list[float] = []
    with Store(tmp_path / "store", layout="ab", size=2) as store:
        store.commit_round(
            [[fleet.make_frame("har", "pi", epoch=1, sequence=0)]], store.residual(), token="r", base_version=0
        )
        store.mark_sent([row.id for row in store.outbox().rows])
        store.withdraw([row.id for row in store.outbox().rows])
        sender = Sender(device(tmp_path), cast("Link", link), lambda _count, _now_s: None)
        for now[0] in map(float, range(4000)):
            before = len(link.published)
            sender.withdraw(store)
            said += [now[0]] * (len(link.published) - before)
        assert {messages.kind(payload) for _, payload in link.published} == {messages.WITHDRAW}
        assert said == [0, 8, 24, 56, 120, 248, 504, 1016, 1616, 2216, 2816, 3416]
        sender.greet(store.outbox())  # somebody is there again
        sender.withdraw(store)
        assert [messages.kind(payload) for _, payload in link.published[-2:]] == [messages.HELLO, messages.WITHDRAW]


def test_a_broker_that_takes_no_frame_is_no_reason_to_train_for_ever(tmp_path: Path) -> None:
    """What is over its limit is cut anew by a round, and no frame is smaller than these."""
    link: Any = Script()
    link.room = lambda *_: 100
    sender = Sender(device(tmp_path), link, lambda _count, _now_s: None)
    assert sender.frame_bytes <= sender.reach.room


@pytest.mark.parametrize(("connected", "waits_s"), [(True, 0.25), (False, 0.5)])
def test_what_is_due_and_cannot_be_sent_keeps_nobody_busy(tmp_path: Path, connected: bool, waits_s: float) -> None:
    """A frame under way when the broker went, or when quiet hours began."""
    link: Any = Script()
    waited: list[float] = []

    def poll(wait_s: float, **_: int) -> list[Message]:
        waited.append(wait_s)
        return []

    link.connected, link.poll = connected, poll
    sender = Sender(device(tmp_path), link, lambda _count, _now_s: None)
    sender.window.sent(0, now=time.monotonic() - 100)
    assert list(sender.events(0.5)) == []
    assert waited == [waits_s]


def test_a_task_that_cannot_go_on_says_why_once(tmp_path: Path) -> None:
    link: Any = Script()
    link.stop = lambda: None
    agent = Agent(device(tmp_path), link=link)
    agent.close("ended: no such sensor")
    agent.close()
    assert len(link.published) == 1
    said = json.loads((tmp_path / "pi/status.json").read_text())
    assert (said["note"], said["state"]) == ("ended: no such sensor", "offline")
