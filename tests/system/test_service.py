"""The aggregator as a process, and a stranger on the wire."""

import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast

import fleet
import forked
import numpy as np
import pytest
from forked import Forked
from links import free_port

from broker import service
from broker.ledger.opening import open_ledger
from broker.ledger.sqlite import ledger
from broker.monitor.watch import Watch
from broker.processes import children
from broker.registry import blobs
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Task
from broker.upkeep import examine
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.link.events import Connected, Event
from edgeclient.link.mqtt import Endpoint, Link, Message
from edgeclient.settings import Mqtt, load
from edgeclient.wire import announcement, frame, messages, topics
from edgeclient.wire.announcement import Policy
from edgeclient.wire.errors import REASONS
from edgeclient.wire.messages import Hello, Receipt, Refusal
from edgeclient.wire.reader import sealed

EPOCH = 2**64 - 7


def _say(link: Link, task: str, device: str, payload: bytes) -> Receipt:
    link.publish(topics.up(task, device), payload)
    answer = fleet.await_message(link, lambda message: message.topic == topics.down(task, device))
    return messages.decode_receipt(answer.payload)


def _wait_for_another(link: Link, task: str, before: announcement.Announcement) -> announcement.Announcement:
    """The first announcement of an aggregator that was started after another."""
    while (found := _wait_for_head(link, task, 0)).service == before.service:
        pass
    return found


def _wait_for_head(link: Link, task: str, version: int) -> announcement.Announcement:
    found = fleet.await_message(
        link,
        lambda message: message.topic == topics.head(task) and announcement.decode(message.payload).version >= version,
    )
    return announcement.decode(found.payload)


def _versions(settings: Aggregator, task: str) -> list[int]:
    with open_ledger(settings.ledger, read_only=True) as book:
        return [version.number for version in book.versions(task)]


def test_refused_frames_are_answered_and_change_nothing(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "refusals"
    settings = Task(goal=1, min_interval_s=0, policy=Policy(max_staleness=0))
    with (
        fleet.aggregator(tmp_path, endpoint, task, settings) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        other = "ab" * 32
        wrong = [
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=0, layout=other), Refusal.LAYOUT),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=1, size=100), Refusal.LAYOUT),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=2, base_version=10**6), Refusal.FUTURE),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=3, scale=1e6), Refusal.VALUE_LIMIT),
        ]
        for elsewhere in (  # an answer would settle what others count, or returns
            fleet.make_frame(task, "b", epoch=EPOCH, sequence=0),
            fleet.make_frame("other", "a", epoch=EPOCH, sequence=0),
            fleet.make_frame(task, "a", epoch=EPOCH, sequence=0, ledger="ab" * 8),
            messages.encode_hello(Hello(EPOCH, 900, 900, "ab" * 8)),
            messages.encode_withdraw(messages.Withdraw(EPOCH, ((0, bytes(8)),), "ab" * 8)),
        ):
            link.publish(topics.up(task, "a"), elsewhere)
        for sequence, (body, reason) in enumerate(wrong):
            receipt = _say(link, task, "a", body)
            assert dict(receipt.refused)[sequence] is reason
            assert not receipt.applied
        assert _versions(made, task) == [0]
        # A good one after them still counts, and makes the others stale.
        receipt = _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=4))
        assert receipt.watermark == 5
        assert len(receipt.refused) == 4
        _wait_for_head(link, task, 1)
        receipt = _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=5))
        assert dict(receipt.refused)[5] is Refusal.STALE
        # What the device has settled is not told again.
        receipt = _say(link, task, "a", messages.encode_hello(Hello(EPOCH, 6, 6)))
        assert (receipt.watermark, receipt.seen, receipt.refused) == (6, 6, ())


def test_junk_is_dropped_and_the_next_frame_counts(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "junk"
    good = fleet.make_frame(task, "a", epoch=EPOCH, sequence=0)
    rng = np.random.default_rng(0)
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=1, min_interval_s=0)) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        for junk in (b"", b"junk", good[:-1], good[:40], rng.bytes(70_000), sealed(good[:-4] + b"more")):
            link.publish(topics.up(task, "a"), junk)
        for at in range(0, 68, 3):
            forged = bytearray(good[:-4])
            forged[at] ^= 0xFF
            link.publish(topics.up(task, "stranger"), sealed(bytes(forged)))
        receipt = _say(link, task, "a", good)
        assert (receipt.watermark, receipt.refused) == (1, ())
        _wait_for_head(link, task, 1)
        with open_ledger(made.ledger, read_only=True) as book:
            assert book.frame_counts(task)["a"] == (1, 0, 0)
            assert book.frame_counts(task).get("stranger", (0, 0, 0))[0] == 0


def test_copies_count_once_and_a_conflict_is_told(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "copies"
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=2, min_interval_s=0)) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        first = fleet.make_frame(task, "a", epoch=EPOCH, sequence=0)
        for _ in range(5):
            assert _say(link, task, "a", first).watermark == 1
        other = fleet.make_frame(task, "a", epoch=EPOCH, sequence=0, seed=1)
        assert _say(link, task, "a", other).conflict == (0, frame.digest(other))
        assert _versions(made, task) == [0]
        assert _say(link, task, "b", fleet.make_frame(task, "b", epoch=EPOCH, sequence=0, seed=2)).watermark == 1
        _wait_for_head(link, task, 1)
        with open_ledger(made.ledger, read_only=True) as book:
            assert {device: counts[2] for device, counts in book.frame_counts(task).items()} == {"a": 0, "b": 0}
            assert book.versions(task)[-1].updates == 2


def test_an_unfilled_batch_closes_at_its_deadline(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "deadline"
    settings = Task(goal=100, deadline_s=0.5, min_interval_s=0)
    with (
        fleet.aggregator(tmp_path, endpoint, task, settings),
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=0))
        assert _wait_for_head(link, task, 1).version == 1


IN_THE_LEDGER = ["ledger.before-commit", "ledger.after-commit", "ledger.before-close", "ledger.after-close"]
AROUND = ["registry.before-put", "registry.after-put", "ledger.before-compact", "ledger.after-compact"]


@pytest.mark.parametrize("point", [*IN_THE_LEDGER, *AROUND, *service.POINTS])
def test_an_aggregator_killed_anywhere_counts_once(
    point: str, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = f"killed-{point.replace('.', '-')}"
    body = fleet.make_frame(task, "a", epoch=EPOCH, sequence=0)
    monkeypatch.setenv("EDGECLIENT_FAILPOINTS", f"{point}=kill")
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        doomed = fleet.start_aggregator(tmp_path, endpoint, task, Task(goal=1, min_interval_s=0))
        before = _wait_for_head(link, task, 0)
        link.publish(topics.up(task, "a"), body)
        assert doomed.wait(30) == -9
        monkeypatch.delenv("EDGECLIENT_FAILPOINTS")
        with fleet.restarted_aggregator(tmp_path):
            _wait_for_another(link, task, before)
            # A device sends everything again to an aggregator that is new.
            assert _say(link, task, "a", body).watermark == 1
            assert _say(link, task, "a", body).watermark == 1
            with open_ledger(tmp_path / "data" / "ledger.db", read_only=True) as book:
                until_s = time.monotonic() + 30
                while len(book.versions(task)) < 2:
                    assert time.monotonic() < until_s
                assert book.frame_counts(task) == {"a": (1, 0, 0)}
                assert [version.updates for version in book.versions(task)] == [0, 1]
    found, remade = examine.examine(Aggregator(directory=tmp_path / "data", mqtt=Mqtt()))
    assert (found, remade) == ([], 1)


def test_every_failpoint_of_the_aggregator_is_listed() -> None:
    folder = Path(service.__file__).parent
    sources = "".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    named = Counter(re.findall(r'"((?:ledger|registry|service)\.(?:before|after)-[a-z]+)"', sources))
    assert set(named) == {*ledger.POINTS, *blobs.POINTS, *service.POINTS}
    assert min(named.values()) == 2  # in the list and where it is passed


def test_withdrawals_and_frames_are_answered_in_order(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "withdrawn"
    first, second = (fleet.make_frame(task, "a", epoch=EPOCH, sequence=i, seed=i) for i in (0, 1))
    asked = messages.Withdraw(EPOCH, ((0, frame.digest(first)), (1, frame.digest(second))))
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=9)) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        assert _say(link, task, "a", first).watermark == 1
        receipt = _say(link, task, "a", messages.encode_withdraw(asked))
        assert (receipt.watermark, receipt.refused) == (2, ((1, Refusal.WITHDRAWN),))
        assert _say(link, task, "a", second).refused == ((1, Refusal.WITHDRAWN),)
        assert _say(link, task, "a", messages.encode_hello(Hello(EPOCH, 2, 2))).refused == ()
        other = messages.Withdraw(EPOCH, ((1, b"another!"),))
        assert _say(link, task, "a", messages.encode_withdraw(other)).conflict
        with open_ledger(made.ledger, read_only=True) as book:
            assert book.frame_counts(task) == {"a": (1, 1, 0)}


def test_poison_from_one_device_does_not_keep_the_others_waiting(tmp_path: Path, endpoint: Endpoint) -> None:
    """Undecodable, oversized, misaddressed, forged, refused and from ever new names; and bounded in the log."""
    task = "poison"
    rng = np.random.default_rng(0)
    honest = fleet.make_frame(task, "bad", epoch=1, sequence=0)
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=4, min_interval_s=0)) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        for turn in range(20):
            forged = bytearray(honest[:-4])
            forged[4 + turn % 60] ^= 0xFF
            for payload in (
                rng.bytes(500), rng.bytes(70_000), honest[: 10 + turn], sealed(bytes(forged)), b"",
                fleet.make_frame(task, "other", epoch=2, sequence=turn),
                fleet.make_frame(task, "bad", epoch=3, sequence=turn, base_version=10**6),
                frame.stamp(honest, epoch=4, sequence=0xFFFF_FFFF),
                messages.encode_withdraw(messages.Withdraw(5, ((turn, rng.bytes(8)),))),
                messages.encode_hello(Hello(6 + turn, 0xFFFF_FFFF, 0xFFFF_FFFF)),
            ):  # fmt: skip
                link.publish(topics.up(task, "bad"), payload)
            link.publish(topics.up(task, f"name{turn}"), b"junk")
            body = fleet.make_frame(task, f"good{turn % 4}", epoch=EPOCH, sequence=turn // 4, seed=turn)
            assert _say(link, task, f"good{turn % 4}", body).watermark == turn // 4 + 1
        until_s = time.monotonic() + 30
        while _versions(made, task)[-1] < 5:  # its head may have come among the receipts
            assert time.monotonic() < until_s
        with open_ledger(made.ledger, read_only=True) as book:
            counts = book.frame_counts(task)
            assert [counts[f"good{i}"] for i in range(4)] == [(5, 0, 0)] * 4
        log = (tmp_path / "a.log").read_text().splitlines()
        assert sum(" bad: " in line for line in log) <= 2 * len(REASONS)
        assert any("bad: dropped bytes: " in line for line in log)
    assert examine.examine(made)[0] == []


def test_without_room_on_the_disk_nothing_is_answered_and_then_everything(tmp_path: Path, endpoint: Endpoint) -> None:
    """The kernel refuses to let the aggregator's files grow, as a full disk does; the limit is lifted while it runs."""
    task = "full"
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        process = fleet.start_aggregator(tmp_path, endpoint, task, Task(goal=2, min_interval_s=0))
        try:
            _wait_for_head(link, task, 0)
            assert _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=0)).watermark == 1
            log = tmp_path / "data" / "ledger.db-wal"
            hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
            bodies = [fleet.make_frame(task, "a", epoch=EPOCH, sequence=i, seed=i) for i in range(1, 40)]
            for body in bodies:
                link.publish(topics.up(task, "a"), body)
            until_s = time.monotonic() + 30
            while "nothing is counted or answered" not in (tmp_path / "a.log").read_text():
                assert time.monotonic() < until_s
            for _ in range(3):  # several tries, one line
                assert not [event for event in link.poll(1.0) if isinstance(event, Message) and "/down/" in event.topic]
            assert process.poll() is None
            assert (tmp_path / "a.log").read_text().count("nothing is counted or answered") == 1
            with open_ledger(tmp_path / "data" / "ledger.db", read_only=True) as book:
                assert book.frame_counts(task) == {"a": (1, 0, 0)}
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            down = topics.down(task, "a")
            fleet.await_message(link, lambda m: m.topic == down and messages.decode_receipt(m.payload).watermark == 40)
            _wait_for_head(link, task, 1)
        finally:
            children.end(process)
        assert "Traceback" not in (tmp_path / "a.log").read_text()
    found, _ = examine.examine(Aggregator(directory=tmp_path / "data", mqtt=Mqtt()))
    assert found == []


def test_a_flood_from_one_device_takes_no_more_than_its_share(tmp_path: Path, endpoint: Endpoint) -> None:
    """Each message of it takes the ledger 25 ms. What is over the share is dropped; a real device would send it again.

    An honest frame behind it in the queue is answered when all of it was read or dropped.
    """
    task, floods = "flood", 300
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=9)) as made,
        fleet.hand(endpoint, topics.head(task), topics.down(task, "good")) as link,
        fleet.hand(endpoint) as bad,
    ):
        _wait_for_head(link, task, 0)
        for turn in range(floods):
            frames = tuple((512 * turn + i, b"12345678") for i in range(512))
            bad.publish(topics.up(task, "bad"), messages.encode_withdraw(messages.Withdraw(9, frames)))
        until_s = time.monotonic() + 30
        while bad.pending:
            assert time.monotonic() < until_s
        assert _say(link, task, "good", fleet.make_frame(task, "good", epoch=EPOCH, sequence=0)).watermark == 1
        with open_ledger(made.ledger, read_only=True) as book:
            # What it had saved, and less than a crowd before it was one and after it was none.
            assert 0 < book.frame_counts(task)["bad"][1] < 200 * 512
        assert "bad: takes more than its share of the time" in (tmp_path / "a.log").read_text()


class _Crowd:
    """A link where `events` wait, and that keeps what is published; who asks on a claim topic hears itself."""

    connected = True

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.published: list[str] = []

    def poll(self, _wait_s: float, limit: int = 64) -> list[Event]:
        given, self.events = self.events[:limit], self.events[limit:]
        return given

    def subscribe(self, *_: str, **__: int) -> None: ...

    def room(self, _: str) -> int:
        return 1 << 20

    def wake(self) -> None: ...

    def acknowledge(self, _: Message) -> None: ...

    def publish(self, topic: str, payload: bytes, **__: bool) -> None:
        self.published.append(topic)
        if topic.endswith("/claim"):
            self.events.append(Message(topic, payload, False, 1, 0, 0))


class _Statuses(Watch):
    """Takes them, as the monitor does."""

    listens = True

    def heard(self, topic: str, payload: bytes) -> bool:
        return "/status/" in topic and bool(payload)


def test_statuses_in_a_flood_do_not_hide_that_it_is_one(tmp_path: Path) -> None:
    made = Aggregator(directory=tmp_path / "data", mqtt=Mqtt())
    fleet.add_task(made, "t", fleet.BUNDLE, Task())
    flood: list[Event] = []
    for turn in range(160):
        frames = tuple((512 * turn + i, b"12345678") for i in range(512))
        withdraw = messages.encode_withdraw(messages.Withdraw(9, frames))
        flood.append(Message(topics.up("t", "bad"), withdraw, False, 1, turn, 1))
        flood += [Message(topics.status("t", "bad"), b"{}", False, 1, 0, 0)] * 5
    good = Message(topics.up("t", "good"), fleet.make_frame("t", "good", epoch=EPOCH, sequence=0), False, 1, 999, 1)
    link = _Crowd([Connected(1)])
    service_ = service.Service(made, cast(Link, link), lambda _: pytest.fail("nothing to start"), _Statuses())
    while topics.head("t") not in link.published:
        service_._turn()
    link.events += [*flood, good]
    while link.events:
        service_._turn()
    assert topics.down("t", "good") in link.published
    counts = service_._ledger.frame_counts("t")
    assert counts["good"] == (1, 0, 0)
    assert 0 < counts["bad"][1] < 120 * 512
    service_._ledger.close()
    service_._lock.close()


def _parts(task: str, device: str, examples: int, seed: int, max_bytes: int) -> list[bytes]:
    """The frames of one update."""
    delta = np.random.default_rng(seed).normal(0, 0.01, fleet.LAYOUT.size).astype(np.float32)
    update, _ = compress_with_feedback(delta, np.zeros_like(delta), k=900 if examples > 100 else 20)
    origin = frame.Origin(task, device, fleet.LAYOUT.tag, 0, 0, examples, fleet.LEDGER)
    bodies = [body for layer in frame.encode_layers(update, origin, frame.Coding(max_bytes)) for body in layer]
    return [frame.stamp(body, epoch=EPOCH, sequence=i) for i, body in enumerate(bodies)]


def test_late_parts_of_a_heavy_update_are_averaged_not_multiplied(tmp_path: Path, endpoint: Endpoint) -> None:
    """Their lead went into an earlier batch; the one that they come into is led by a light update."""
    task = "late"
    heavy, (light,) = _parts(task, "heavy", 4096, 1, 600), _parts(task, "light", 10, 2, 65536)
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(goal=1, deadline_s=60, min_interval_s=0)) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        _say(link, task, "heavy", heavy[0])
        _wait_for_head(link, task, 1)
        for body in heavy[1:]:
            _say(link, task, "heavy", body)
        assert _versions(made, task) == [0, 1]
        link.publish(topics.up(task, "light"), light)
        _wait_for_head(link, task, 2)
    with open_ledger(made.ledger, read_only=True) as book:
        _, first, second = book.versions(task)
    assert (first.frames, second.updates, second.frames) == (1, 1, len(heavy))
    registry = Blobs(made.registry)
    before, after = (np.frombuffer(registry.get(each.digest), "<f4") for each in (first, second))
    sent = max(np.abs(frame.decode(body).update.values.decoded()).max() for body in [*heavy, light])
    assert 0 < np.abs(after - before).max() <= 1.001 * sent
    assert examine.examine(made) == ([], 2)


@pytest.mark.parametrize("shown_by", ["hello", "frame"])
def test_an_older_ledger_that_was_put_back_by_hand_continues_above_the_fleet(
    tmp_path: Path, endpoint: Endpoint, shown_by: str
) -> None:
    """Once a start, and only as far as versions may have come since: a liar moves nothing."""
    task = f"yesterday-{shown_by}"
    settings = Task(goal=1, min_interval_s=0, policy=Policy(max_staleness=10))
    bodies = [fleet.make_frame(task, "a", epoch=EPOCH, sequence=i, seed=i) for i in range(3)]
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        with fleet.aggregator(tmp_path, endpoint, task, settings) as made:
            _wait_for_head(link, task, 0)
            _say(link, task, "a", bodies[0])
            first = _wait_for_head(link, task, 1)
        shutil.copytree(made.directory, tmp_path / "yesterday")
        with fleet.restarted_aggregator(tmp_path):
            _wait_for_another(link, task, first)
            for body in bodies[1:]:
                _say(link, task, "a", body)
            before = _wait_for_head(link, task, 3)
        shutil.rmtree(made.directory)
        (tmp_path / "yesterday").rename(made.directory)
        with fleet.restarted_aggregator(tmp_path):
            _wait_for_another(link, task, before)
            lie = fleet.make_frame(task, "liar", epoch=EPOCH, sequence=0, base_version=10**6)
            assert _say(link, task, "liar", lie).refused == ((0, Refusal.FUTURE),)
            _say(link, task, "liar", messages.encode_hello(Hello(8, 10**6, 10**6)))
            assert _versions(made, task) == [0, 1]
            if shown_by == "hello":
                assert _say(link, task, "a", messages.encode_hello(Hello(EPOCH, 3, 3))).watermark == 3
            else:
                newer = fleet.make_frame(task, "b", epoch=EPOCH, sequence=0, base_version=3)
                assert _say(link, task, "b", newer).refused == ((0, Refusal.FUTURE),)
            number = _wait_for_head(link, task, 4).version
            assert number > 1000
            again = fleet.make_frame(task, "c", epoch=EPOCH, sequence=0, base_version=number + 1)
            assert _say(link, task, "c", again).refused == ((0, Refusal.FUTURE),)
            good = fleet.make_frame(task, "a", epoch=EPOCH, sequence=3, base_version=number, seed=3)
            assert _say(link, task, "a", good).watermark == (4 if shown_by == "hello" else 1)
            assert _wait_for_head(link, task, number + 1).version == number + 1
            assert _versions(made, task) == [0, 1, number, number + 1]
        assert (tmp_path / "a.log").read_text().count("an older ledger was put back") == 1
    assert examine.examine(made)[0] == []


@pytest.mark.case("fleet 22")
@pytest.mark.parametrize("damage", ["cut short", "gone", "emptied"])
def test_a_damaged_version_of_the_past_is_not_served_and_ends_nothing(
    tmp_path: Path, endpoint: Endpoint, damage: str
) -> None:
    task = f"past-{damage[:3]}"
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        with fleet.aggregator(tmp_path, endpoint, task, Task(goal=1, min_interval_s=0)) as made:
            before = _wait_for_head(link, task, 0)
            for sequence in range(3):
                _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=sequence, seed=sequence))
                _wait_for_head(link, task, sequence + 1)
        with open_ledger(made.ledger, read_only=True) as book:
            past = made.registry / book.versions(task)[1].digest
        if damage == "gone":
            past.unlink()
        else:
            os.truncate(past, 0 if damage == "emptied" else past.stat().st_size - 4)
        with fleet.restarted_aggregator(tmp_path):
            _wait_for_another(link, task, before)
            assert _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=3, seed=3)).watermark == 4
            _wait_for_head(link, task, 4)
        (line,) = [
            line for line in (tmp_path / "a.log").read_text().splitlines() if "until then it is not served" in line
        ]
        assert past.name in line


JUMPING = """
import pathlib, sys, time
real, by = time.time, pathlib.Path(sys.argv.pop())
time.time = lambda: real() + float(by.read_text())
from broker.cli import main
main()
"""


@pytest.mark.case("fleet 37")
@pytest.mark.parametrize("jump_s", [-3e7, 3e7])
def test_versions_keep_coming_when_the_clock_jumps_a_year(tmp_path: Path, endpoint: Endpoint, jump_s: float) -> None:
    task = f"clock{'-' if jump_s < 0 else '_'}"
    made = Aggregator(directory=tmp_path / "data", mqtt=Mqtt(port=endpoint.port))
    fleet.add_task(made, task, fleet.BUNDLE, Task(goal=100, deadline_s=0.5, min_interval_s=0.5))
    (tmp_path / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n{fleet.NO_PAGE}')
    (tmp_path / "by").write_text("0")
    command = [sys.executable, "-c", JUMPING, "serve", str(tmp_path / "a.toml"), str(tmp_path / "by")]
    with fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link:
        process = children.spawn(command, log=tmp_path / "a.log")
        try:
            _wait_for_head(link, task, 0)
            for sequence in range(4):
                _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=sequence, seed=sequence))
                if sequence == 1:
                    (tmp_path / "by.new").write_text(str(jump_s))
                    (tmp_path / "by.new").rename(tmp_path / "by")
                _wait_for_head(link, task, sequence + 1)
        finally:
            children.end(process)
        assert "Traceback" not in (tmp_path / "a.log").read_text()


def test_two_aggregators_and_a_damaged_ledger_are_one_line(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "lines"
    with fleet.aggregator(tmp_path, endpoint, task, Task()) as made:
        with fleet.hand(endpoint, topics.head(task)) as link:
            _wait_for_head(link, task, 0)
        assert "in use by another edgebroker process: stop that one first" in _last_words(tmp_path)
    content = bytearray(made.ledger.read_bytes())
    content[4096:] = np.random.default_rng(0).bytes(len(content) - 4096)
    made.ledger.write_bytes(content)
    assert "is damaged" in _last_words(tmp_path)
    made.ledger.write_bytes(b"junk" * 5000)
    assert "is not a ledger" in _last_words(tmp_path)


def _last_words(folder: Path) -> str:
    command = ["broker.cli", "serve", str(folder / "a.toml")]
    ended = forked.run(command)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("edgebroker: ")
    return line


def test_serve_starts_its_mqtt_broker_again(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "broker.toml"
    config.write_text(f'directory = "data"\n[embedded]\nport = {port}\n[monitor]\nenabled = false\n')
    fleet.add_task(load(config, Aggregator), "s-again", fleet.BUNDLE, Task())
    endpoint = Endpoint("127.0.0.1", port)
    command = ["broker.cli", "serve", str(config)]
    process = Forked(command, log=tmp_path / "serve.log")
    try:
        for _ in range(2):
            with fleet.hand(endpoint, topics.head("s-again")) as link:
                fleet.await_message(link, lambda message: message.topic == topics.head("s-again"))
                server = json.loads((tmp_path / "data/mqtt/server.json").read_text())["pid"]
                os.kill(server, signal.SIGKILL)
                until_s = time.monotonic() + 30
                while json.loads((tmp_path / "data/mqtt/server.json").read_text())["pid"] == server:
                    assert time.monotonic() < until_s, (tmp_path / "serve.log").read_text()
    finally:
        children.end(process)
    assert "the MQTT broker has ended (-9): it is started again" in (tmp_path / "serve.log").read_text()
