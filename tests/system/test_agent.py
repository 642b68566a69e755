"""The device as a process, and a stranger on the wire who plays the aggregator."""

import json
import signal
import time
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import fleet
import forked
import numpy as np
import pytest
from forked import Forked

from broker.processes import children
from edgeclient import __version__
from edgeclient.link.mqtt import Endpoint, Link, Message
from edgeclient.wire import announcement, frame, messages, status, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.messages import Hello, Receipt, Refusal


def _announce(link: Link, announced: Announcement) -> None:
    link.publish(topics.head(announced.task), announcement.encode(announced), retain=True)


def _is(kind: int) -> "fleet.Accept":
    return lambda message: "/up/" in message.topic and messages.kind(message.payload) == kind


def _hello(link: Link) -> Hello:
    return messages.decode_hello(fleet.await_message(link, _is(messages.HELLO)).payload)


def _frame(link: Link) -> frame.Frame:
    return frame.decode(fleet.await_message(link, _is(messages.FRAME)).payload, fleet.LAYOUT.tensors)


def _status(link: Link, **wanted: object) -> status.Status:
    def fits(message: Message) -> bool:
        if "/status/" not in message.topic:
            return False
        said = status.decode(message.payload)
        return all(getattr(said, key) == value for key, value in wanted.items())

    return status.decode(fleet.await_message(link, fits).payload)


def test_a_frame_lives_until_its_receipt(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "a-life"
    wanted = [topics.everyone(task, "up"), topics.everyone(task, "status")]
    with fleet.hand(endpoint, *wanted) as link, fleet.device(tmp_path, endpoint, "pi", task):
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        _announce(link, fleet.announcement(task, 0, fleet.START))
        first, again = _frame(link), _frame(link)
        assert (first.epoch, first.sequence, first.base_version) == (again.epoch, again.sequence, 0)
        assert first.address == frame.address(task, "pi", fleet.LEDGER)
        down = topics.down(task, "pi")
        # A receipt of another epoch, and bytes that are none, settle nothing.
        link.publish(down, messages.encode_receipt(Receipt(first.epoch ^ 1, watermark=1, seen=1)))
        link.publish(down, b"junk")
        assert _frame(link).sequence == 0
        link.publish(down, messages.encode_receipt(Receipt(first.epoch, watermark=1, seen=1)))
        said = _status(link, applied=1)
        assert (said.sent, said.software) == (0, __version__)
        assert said.residual_norm is not None
        assert said.residual_norm > 0
        assert abs(said.time_s - time.time()) < 60
        assert said.uploaded_s <= said.time_s
        assert said.time_s - said.uploaded_s < 60
        # Refused: the mass returns and goes out with the next version's update.
        _announce(link, fleet.announcement(task, 1, fleet.START))
        second = _frame(link)
        assert second.sequence == 1
        refused = Receipt(first.epoch, watermark=2, seen=2, refused=((1, Refusal.STALE),))
        link.publish(down, messages.encode_receipt(refused))
        _status(link, refused=1, returned=1)
        _announce(link, fleet.announcement(task, 2, fleet.START))
        assert _frame(link).base_version == 2 or _frame(link).base_version == 2
        _status(link, returned=0)


def test_a_copied_store_begins_a_new_epoch(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "a-copy"
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link, fleet.device(tmp_path, endpoint, "pi", task):
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        _announce(link, fleet.announcement(task, 0, fleet.START))
        first = _frame(link)
        told = Receipt(first.epoch, watermark=5, seen=5)
        link.publish(topics.down(task, "pi"), messages.encode_receipt(told))
        while (hello := _hello(link)).epoch == first.epoch:
            pass
        assert (hello.next_sequence, hello.confirmed) == (0, 0)
        assert _frame(link).epoch == hello.epoch


def test_lies_about_the_model_are_refused(tmp_path: Path, endpoint: Endpoint) -> None:
    """Each is refused with its reason, and the truth that follows is taken."""
    task = "a-lie"
    good = fleet.announcement(task, 3, fleet.START)
    nan = np.full(fleet.START.size, np.nan, np.float32)
    with (
        fleet.hand(endpoint, topics.everyone(task, "up"), topics.everyone(task, "status")) as link,
        fleet.device(tmp_path, endpoint, "pi", task),
    ):
        _status(link, note="waiting for the model")
        link.publish(topics.head(task), b"junk", retain=True)
        link.publish(topics.head(task), announcement.encode(replace(good, task="other")), retain=True)
        fleet.log_says(tmp_path, "an announcement of task other")
        fleet.publish(link, task, fleet.BUNDLE)
        # Chunks under a digest that is not theirs.
        forged = bytearray(fleet.START.tobytes())
        forged[100] ^= 1
        digest = good.parameters.digest
        for chunk in range(good.parameters.chunks):
            part = bytes(forged[chunk * good.parameters.chunk : (chunk + 1) * good.parameters.chunk])
            link.publish(topics.blob(task, digest, chunk), part, retain=True)
        _announce(link, good)
        fleet.log_says(tmp_path, "digest: announced")
        fleet.publish(link, task, nan.tobytes())
        _announce(link, fleet.announcement(task, 4, nan))
        fleet.log_says(tmp_path, "parameters that are NaN or infinite")
        wrong_layout = replace(fleet.announcement(task, 5, fleet.START + 1), layout="ab" * 32)
        fleet.publish(link, task, (fleet.START + 1).tobytes())
        _announce(link, wrong_layout)
        fleet.log_says(tmp_path, "layout: announced abababab")
        truth = fleet.START + np.float32(0.5)
        fleet.publish(link, task, truth.tobytes())
        _announce(link, fleet.announcement(task, 6, truth))
        assert _frame(link).base_version == 6
        # Versions only rise.
        _announce(link, fleet.announcement(task, 2, fleet.START))
        _announce(link, fleet.announcement(task, 7, truth))
        link.publish(topics.down(task, "pi"), messages.encode_receipt(Receipt(_hello_epoch(link), 1, 1)))
        _status(link, version=7)


def test_updates_keep_to_the_budget_of_the_announcement(tmp_path: Path, endpoint: Endpoint) -> None:
    task, budget = "a-budget", 300
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link, fleet.device(tmp_path, endpoint, "pi", task):
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        announced = fleet.announcement(task, 0, fleet.START)
        policy = replace(announced.policy, update_bytes=budget, steady=True, warm_up=1)
        for version in range(2):  # the second knows what an entry costs
            _announce(link, replace(announced, version=version, policy=policy))
            message = fleet.await_message(link, _is(messages.FRAME))
            made = frame.decode(message.payload, fleet.LAYOUT.tensors)
            assert (made.base_version, made.parts) == (version, 1)
            assert (0.7 if version else 0) * budget < len(message.payload) <= budget
            receipt = Receipt(made.epoch, watermark=version + 1, seen=version + 1)
            link.publish(topics.down(task, "pi"), messages.encode_receipt(receipt))


def _hello_epoch(link: Link) -> int:
    return _frame(link).epoch


POINTS = [
    "models.before-slot", "models.before-switch", "files.before-rename@3", "durable.before-slot",
    "durable.before-slot-fsync", "durable.before-commit", "durable.after-commit", "durable.after-sent",
    "agent.after-publish@2", "durable.after-settle",
]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_it_resumes_with_the_same_identity(point: str, tmp_path: Path, endpoint: Endpoint) -> None:
    """What was sent before the kill and after it under one identity is the same, byte for byte."""
    name, _, nth = point.partition("@")
    task = f"kill-{name.replace('.', '-')}"
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link:
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        _announce(link, fleet.announcement(task, 0, fleet.START))
        doomed = fleet.start_device(config, f"{name}=kill@{nth or 1}")
        seen: dict[tuple[int, int], bytes] = {}
        until_s = time.monotonic() + 40
        while doomed.poll() is None:
            assert time.monotonic() < until_s, (tmp_path / "d.log").read_text()
            for event in link.poll(0.05):
                if isinstance(event, Message) and _note(link, event, seen):
                    _settle(link, task, seen)
        assert doomed.returncode == -signal.SIGKILL
        process = fleet.start_device(config)
        try:
            _announce(link, fleet.announcement(task, 1, fleet.START))
            while not any(frame.decode(body, fleet.LAYOUT.tensors).base_version == 1 for body in seen.values()):
                assert time.monotonic() < until_s, (tmp_path / "d.log").read_text()
                for event in link.poll(0.05):
                    if isinstance(event, Message) and _note(link, event, seen):
                        _settle(link, task, seen)
        finally:
            children.end(process)
        assert len({epoch for epoch, _ in seen}) == 1
        assert sorted(sequence for _, sequence in seen) == list(range(len(seen)))
    assert "Traceback" not in (tmp_path / "d.log").read_text()


def _note(link: Link, message: Message, seen: dict[tuple[int, int], bytes]) -> bool:
    link.acknowledge(message)
    if messages.kind(message.payload) != messages.FRAME:
        return False
    made = frame.decode(message.payload, fleet.LAYOUT.tensors)
    assert seen.setdefault((made.epoch, made.sequence), message.payload) == message.payload
    return True


def _settle(link: Link, task: str, seen: dict[tuple[int, int], bytes]) -> None:
    for epoch, _ in seen:
        settled = len(seen)
        link.publish(topics.down(task, "pi"), messages.encode_receipt(Receipt(epoch, settled, settled)))


def test_once_is_one_round_however_busy_the_fleet_is(tmp_path: Path, endpoint: Endpoint) -> None:
    """The next version is there before the receipt: a timer's run must end all the same."""
    task = "a-once"
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    command = ["edgeclient.cli", "once", str(config), "--json", "--timeout", "60"]
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link:
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        _announce(link, fleet.announcement(task, 0, fleet.START))
        process = Forked(command, log=tmp_path / "d.log")
        try:
            first = _frame(link)
            _announce(link, fleet.announcement(task, 1, fleet.START))
            _frame(link)  # resent, so that the announcement has come before the receipt
            down = topics.down(task, "pi")
            link.publish(down, messages.encode_receipt(Receipt(first.epoch, watermark=1, seen=1)))
            assert process.wait(60) == 0
        finally:
            children.end(process)
    report = json.loads((tmp_path / "d.log").read_text().splitlines()[-1])
    assert (report["done"], report["rounds"], report["applied"]) == (True, 1, 1)


def test_no_model_is_fetched_at_quiet_hours(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "a-night"
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    begin, end = (datetime.now() + timedelta(hours=each) for each in (-1, 1))  # noqa: DTZ005 (the owner's clock)
    with config.open("a") as file:
        file.write(f'quiet = "{begin:%H:%M}-{end:%H:%M}"\n')
    with fleet.hand(endpoint) as link:
        fleet.publish(link, task, fleet.BUNDLE)
        _announce(link, fleet.announcement(task, 0, fleet.START))
        command = ["edgeclient.cli", "once", str(config), "--json", "--timeout", "60"]
        ended = forked.run(command, timeout_s=100)
    assert ended.returncode == 3
    assert json.loads(ended.stdout.splitlines()[-1])["because"].startswith("quiet hours until")
    assert not list((tmp_path / "state/models").glob("*/*/*"))


def test_status_tells_what_it_waits_for(tmp_path: Path, endpoint: Endpoint) -> None:
    with fleet.hand(endpoint, topics.everyone("quiet", "status")) as link:
        with fleet.device(tmp_path, endpoint, "pi", "quiet"):
            said = _status(link, state="online")
            assert (said.note, said.doing) == ("waiting for the model", "model")
            told = json.loads((tmp_path / "state" / "status.json").read_text())
            assert told["session"] == said.session
        last = _status(link, state="offline")
        assert (last.note, last.doing) == ("stopped", "stopped")


def test_one_process_a_store(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "twice"
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link, fleet.device(tmp_path, endpoint, "pi", task):
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        _announce(link, fleet.announcement(task, 0, fleet.START))
        _frame(link)
        second = fleet.start_device(tmp_path / "d.toml")
        assert second.wait(30) == 1
        fleet.log_says(tmp_path, "in use by another edgeclient process")


def test_digests_are_sha256() -> None:
    assert fleet.announcement("t", 0, fleet.START).bundle.digest == sha256(fleet.BUNDLE).hexdigest()
