"""The aggregator as a process, and a stranger on the wire."""

import time
from pathlib import Path

import fleet
import numpy as np
import pytest

from broker.ledger.ledger import Ledger
from broker.settings import Aggregator, DevicePolicy, Task
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.wire import announcement, messages, topics
from edgeclient.wire.messages import Hello, Receipt, Refusal
from edgeclient.wire.reader import sealed

EPOCH = 2**64 - 7


def _say(link: Link, task: str, device: str, payload: bytes) -> Receipt:
    link.publish(topics.up(task, device), payload)
    answer = fleet.await_message(link, lambda message: message.topic == topics.down(task, device))
    return messages.decode_receipt(answer.payload)


def _wait_for_head(link: Link, task: str, version: int) -> announcement.Announcement:
    found = fleet.await_message(
        link,
        lambda message: message.topic == topics.head(task) and announcement.decode(message.payload).version >= version,
    )
    return announcement.decode(found.payload)


def _versions(settings: Aggregator, task: str) -> list[int]:
    with Ledger(settings.ledger, read_only=True) as ledger:
        return [version.number for version in ledger.versions(task)]


def test_refused_frames_are_answered_and_change_nothing(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "refusals"
    settings = Task(goal=1, min_interval_s=0, policy=DevicePolicy(max_staleness=0))
    with (
        fleet.aggregator(tmp_path, endpoint, task, settings) as made,
        fleet.hand(endpoint, topics.head(task), topics.everyone(task, "down")) as link,
    ):
        _wait_for_head(link, task, 0)
        other = "ab" * 32
        wrong = [
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=0, layout=other), Refusal.LAYOUT),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=1, size=100), Refusal.LAYOUT),
            (fleet.make_frame(task, "b", epoch=EPOCH, sequence=2), Refusal.ADDRESS),
            (fleet.make_frame("other", "a", epoch=EPOCH, sequence=3), Refusal.ADDRESS),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=4, base_version=9), Refusal.FUTURE),
            (fleet.make_frame(task, "a", epoch=EPOCH, sequence=5, scale=1e6), Refusal.VALUE_LIMIT),
        ]
        for sequence, (body, reason) in enumerate(wrong):
            receipt = _say(link, task, "a", body)
            assert dict(receipt.refused)[sequence] is reason
            assert not receipt.applied
        assert _versions(made, task) == [0]
        # A good one after them still counts, and makes the others stale.
        receipt = _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=6))
        assert receipt.watermark == 7
        assert len(receipt.refused) == 6
        _wait_for_head(link, task, 1)
        receipt = _say(link, task, "a", fleet.make_frame(task, "a", epoch=EPOCH, sequence=7))
        assert dict(receipt.refused)[7] is Refusal.STALE
        # What the device has settled is not told again.
        receipt = _say(link, task, "a", messages.encode_hello(Hello(EPOCH, 8, 8)))
        assert (receipt.watermark, receipt.seen, receipt.refused) == (8, 8, ())


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
        with Ledger(made.ledger, read_only=True) as ledger:
            assert ledger.frame_counts(task)["a"] == (1, 0, 0)
            assert ledger.frame_counts(task).get("stranger", (0, 0, 0))[0] == 0


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
        assert _say(link, task, "a", other).conflict
        assert _versions(made, task) == [0]
        assert _say(link, task, "b", fleet.make_frame(task, "b", epoch=EPOCH, sequence=0, seed=2)).watermark == 1
        _wait_for_head(link, task, 1)
        with Ledger(made.ledger, read_only=True) as ledger:
            assert {device: counts[2] for device, counts in ledger.frame_counts(task).items()} == {"a": 0, "b": 0}
            assert ledger.versions(task)[-1].updates == 2


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


@pytest.mark.parametrize("point", ["ledger.before-commit", "ledger.after-commit", "service.before-ack"])
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
            while _wait_for_head(link, task, 0).service == before.service:
                pass
            # A device sends everything again to an aggregator that is new.
            assert _say(link, task, "a", body).watermark == 1
            assert _say(link, task, "a", body).watermark == 1
            with Ledger(tmp_path / "data" / "ledger.db", read_only=True) as ledger:
                until_s = time.monotonic() + 30
                while len(ledger.versions(task)) < 2:
                    assert time.monotonic() < until_s
                assert ledger.frame_counts(task) == {"a": (1, 0, 0)}
                assert [version.updates for version in ledger.versions(task)] == [0, 1]
