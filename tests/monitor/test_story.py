"""`edgebroker why` and `events`: what is told of a device and of the fleet, from a ledger and a broker."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgebroker
from ledgers import close, entry, hello, of_an_aggregator

from broker.commands import story as story_command
from broker.ledger import digests
from broker.ledger.protocol import Ledger
from broker.monitor.events import Bookmark
from broker.monitor.listener import Listener
from broker.monitor.story import REFUSED, Facts, told
from broker.views import Counted, NewMark, Past
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire import status, topics
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import Status

PAST = Past(
    settings={"goal": 8, "policy": {"max_staleness": 10}}, version=20, waiting=3, epochs=1, applied=0, refused=0,
    lost=0, last_frame_s=None, update=None, refusals={}, last_refusal=None,
)  # fmt: skip


def story(said: Status | None = None, *, asked: bool = True, **values: Any) -> str:
    return "\n".join(told(Facts("har", PAST._replace(**values), said, asked, now_s=1e9, goal=8)))


# The words


def test_silence_is_explained() -> None:
    assert "The MQTT broker knows nothing of it" in story()
    assert "No frame of it has come" in story()
    assert "cannot be reached" in story(asked=False)
    assert "knows nothing" not in story(asked=False)


def test_what_a_device_waits_for_is_told() -> None:
    text = story(said=Status("online", "s", note="waits for mains power", version=20, queued=2))
    assert "It is connected; it says: waits for mains power." in text
    assert "It has the current version, 20." in text
    assert "2 frames have not left yet" in text
    assert "too old to be counted" in story(said=Status("online", "s", version=9))
    assert "too old" not in story(said=Status("online", "s", version=10))
    assert "no model yet" in story(said=Status("online", "s"))
    will = story(said=Status("offline", "s", note="connection lost"))
    assert "not connected; it says: connection lost" in will
    assert "no model" not in will


def test_a_note_cannot_steer_the_terminal() -> None:
    text = story(said=Status("online", "s", note="fine\x1b[2J\r\nIt is all well.\u202e"))
    assert text.count("\n") == story(said=Status("online", "s", note="fine")).count("\n")
    assert not {"\x1b", "\r", "\u202e"} & set(text)


@pytest.mark.case("fleet 63")
def test_short_spells_are_told_while_the_device_is_off() -> None:
    will = Status(
        "offline", "s", note="connection lost, model 3 of 64 chunks, 49 of 1,049 kB", cut=2, spell_s=12, fruitless=4
    )
    text = story(said=will)
    assert "it says: connection lost, model 3 of 64 chunks" in text
    assert "Its last 2 starts ended within a round, the last after about 12 s: its rounds are made shorter." in text
    assert "Its last 4 starts got nothing done: no chunk of a model, no round, no receipt." in text
    assert "Why nothing comes, probably: short-spells." in text


@pytest.mark.case("fleet 37")
def test_a_clock_that_is_wrong_makes_no_ghost_of_who_uploads() -> None:
    ghost = Status("online", "s", version=20, time_s=int(1e9) - 2000, uploaded_s=int(1e9) - 2100)
    assert "It is silent" in story(said=ghost, applied=5, last_frame_s=1e9 - 2100)
    assert "its clock is wrong" in story(said=ghost, applied=5, last_frame_s=1e9 - 2100)
    assert "It is connected" in story(said=ghost, applied=5, last_frame_s=1e9 - 200)


def test_updates_refusals_losses_and_renewals_are_told() -> None:
    waits = Counted(19, 1e9 - 60, None, None)
    assert "trained from version 19 and waits for the next one: 3 of 8 updates there" in story(update=waits)
    text = story(
        applied=5, refused=3, epochs=3, lost=2, last_frame_s=1e9 - 42, update=Counted(17, None, 18, 1e9 - 7200),
        refusals={"stale": 1, "conflict": 2}, last_refusal=(9, "stale", 1e9 - 180),
    )  # fmt: skip
    assert "Its last frame came 42 s ago." in text
    assert "is part of version 18, made 2 h ago" in text
    assert "5 frames were counted, 3 refused." in text
    assert text.index("2 times as conflict: its number") < text.index("1 times as stale: trained from a version")
    assert "of frame 9, stale, 3 min ago" in text
    assert "2 frames that it had settled are unknown" in text
    assert "begun anew 2 times" in text
    assert "not known any more" in story(applied=5)


def test_health_and_the_reason_of_a_silence_are_told() -> None:
    health = Status(
        "online", "s", note="waits", doing="metered", version=20, time_s=int(1e9) - 300, software="0.2.0",
        oldest_s=7200, battery_percent=81, temperature_c=47.6, residual_norm=1.25,
    )  # fmt: skip
    text = story(said=health, applied=1, last_frame_s=1e9 - 60)
    assert (
        "It said 5 min ago, by its own clock: release 0.2.0, battery at 81 %, 48 °C, its oldest frame waits 2 h,"
        " residual norm 1.25." in text
    )
    assert "Why nothing comes" not in text
    assert "Why nothing comes, probably: waits. " in story(said=health, applied=1, last_frame_s=1e9 - 3601)
    hangs = replace(health, time_s=int(1e9) - 90_000)
    assert "probably: hangs. " in story(said=hangs, applied=1, last_frame_s=1e9 - 60)
    assert "probably: stopped. " in story(said=Status("offline", "s", note="stopped", doing="stopped"))
    assert "probably: never-connected. " in story()
    assert "probably: unknown. " in story(asked=False, applied=1)


def test_every_refusal_has_words() -> None:
    assert set(REFUSED) == set(Refusal)


# From a ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with of_an_aggregator(tmp_path) as made:
        yield made


def facts(ledger: Ledger, device: str = "d") -> Facts:
    return Facts("t", ledger.device("t", device), None, asked=True, now_s=time.time(), goal=4)


def test_facts_of_a_device(ledger: Ledger) -> None:
    assert facts(ledger).past.epochs == 0
    ledger.admit([entry(0)], 100.0)
    ledger.admit([entry(1, refusal=Refusal.STALE), entry(0, device="other")], 110.0)
    found, settings = facts(ledger).past, facts(ledger).settings
    assert (found.applied, found.refused, found.waiting, settings.goal) == (1, 1, 2, 4)
    assert (found.last_frame_s, found.update) == (110.0, Counted(0, 100.0, None, None))
    assert (found.refusals, found.last_refusal) == ({"stale": 1}, (1, "stale", 110.0))
    close(ledger, 1)
    assert facts(ledger).past.update == Counted(0, 100.0, 1, 101.0)
    assert hello(ledger, 5, epoch=8) == 5
    assert (facts(ledger).past.epochs, facts(ledger).past.lost) == (2, 5)


def test_what_is_compacted_is_still_told_as_far_as_it_goes(ledger: Ledger) -> None:
    count = digests.FOLD_AT
    ledger.admit([entry(s, refusal=Refusal.STALE if s % 2 else None) for s in range(count)], 100.0)
    before = facts(ledger).past
    hello(ledger, count)
    for number in (1, 2, 3):
        if number > 1:
            ledger.admit([entry(number, device="other")], 100.0 + number)
        close(ledger, number)
    ledger.forget_bodies("t", 3)
    assert ledger.compact("t", before_batch=3, before_base=3) >= count
    after = facts(ledger).past
    assert (after.last_frame_s, after.last_refusal, after.update) == (None, None, Counted(0, None, 1, 101.0))
    for name in ("applied", "refused", "refusals", "epochs"):
        assert getattr(after, name) == getattr(before, name), name


def kinds(bookmark: Bookmark, ledger: Ledger, now_s: float) -> list[tuple[str, str]]:
    found = story_command._news(ledger, bookmark, now_s)
    return [(each.kind, each.device) for each in found]


def test_events_are_told_once(ledger: Ledger) -> None:
    bookmark = Bookmark(silent_after_s=50)
    assert kinds(bookmark, ledger, 100.0) == [("version", "")]
    ledger.admit([entry(0), entry(1, refusal=Refusal.LAYOUT), entry(0, device="e")], 101.0)
    assert sorted(kinds(bookmark, ledger, 101.0)) == [("new-device", "d"), ("new-device", "e"), ("refused", "d")]
    assert kinds(bookmark, ledger, 102.0) == []
    # A refusal above a gap, seen before the watermark passes it.
    ledger.admit([entry(5, refusal=Refusal.STALE)], 103.0)
    assert kinds(bookmark, ledger, 103.0) == [("refused", "d")]
    ledger.admit([entry(s) for s in (2, 3, 4)], 104.0)
    close(ledger, 1)
    assert kinds(bookmark, ledger, 104.0) == [("version", "")]
    assert kinds(bookmark, ledger, 152.0) == [("silent", "e")]
    assert kinds(bookmark, ledger, 160.0) == [("silent", "d")]
    ledger.admit([entry(1, device="e"), entry(0, device="d", epoch=9)], 161.0)
    assert sorted(kinds(bookmark, ledger, 161.0)) == [("back", "d"), ("back", "e"), ("renewed", "d")]
    assert hello(ledger, 9, device="e") == 7
    assert kinds(bookmark, ledger, 162.0) == [("lost", "e")]
    assert kinds(bookmark, ledger, 163.0) == []


def test_the_past_tells_what_is_known_of_it(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE)], 100.5)
    close(ledger, 1)
    ledger.admit([entry(0, epoch=9)], 102.0)
    found = story_command._news(ledger, Bookmark(50), 1000.0)
    assert [(each.time_s, each.kind) for each in found] == [
        (100.0, "version"),
        (100.5, "new-device"),
        (100.5, "refused"),
        (101.0, "version"),
        (102.0, "renewed"),
        (1000.0, "silent"),
    ]
    # A device whose first frames have folded is not called new.
    old = NewMark(("t", "old", 1), (300, 300, 300, 0), None, 999.0, ())
    assert Bookmark(50).notices([], [old], now_s=1000.0) == []


# The commands


def configured(folder: Path, endpoint: Endpoint) -> str:
    (folder / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n{fleet.NO_PAGE}')
    return str(folder / "a.toml")


def test_why_joins_ledger_and_retained_status(tmp_path: Path, endpoint: Endpoint, ledger: Ledger) -> None:
    config = configured(tmp_path, endpoint)
    ledger.admit([entry(0, device="pi-7"), entry(1, device="pi-7", refusal=Refusal.STALE)], time.time())
    said = Status("online", "s", note="waits for mains power", version=0)
    with fleet.hand(endpoint, topics.status("t", "pi-7")) as link:
        link.publish(topics.status("t", "pi-7"), status.encode(said), retain=True)
        fleet.await_message(link, lambda message: message.payload == status.encode(said))
        done = edgebroker("why", "pi-7", "--config", config)
        assert done.returncode == 0, done.stderr
        assert "t/pi-7\n  It is connected; it says: waits for mains power.\n" in done.stdout
        assert "1 frames were counted, 1 refused." in done.stdout
        (row,) = json.loads(edgebroker("why", "pi-7", "--config", config, "--json").stdout)["tasks"]
        assert (row["said"]["note"], row["refusals"], row["update"]["version"]) == (said.note, {"stale": 1}, None)
        assert row["story"][0] == "It is connected; it says: waits for mains power."
        # Junk in its place is as good as nothing.
        link.publish(topics.status("t", "pi-7"), b"\xff", retain=True)
        fleet.await_message(link, lambda message: message.payload == b"\xff")
        assert "knows nothing of it" in edgebroker("why", "pi-7", "--config", config).stdout
        link.publish(topics.status("t", "pi-7"), b"", retain=True)
        fleet.await_message(link, lambda message: not message.payload)


@pytest.mark.usefixtures("ledger")
def test_wrong_questions_are_one_line(tmp_path: Path, endpoint: Endpoint) -> None:
    config = configured(tmp_path, endpoint)
    for arguments, line in (
        (["why", "pi-9", "--config", config], "edgebroker: no device pi-9 is known: edgebroker devices lists"),
        (["why", "../x", "--config", config], "is not a device or task id"),
        (["why", "pi-9", "--config", str(tmp_path / "none.toml")], "none.toml"),
        (["events", "--config", str(tmp_path / "none.toml")], "none.toml"),
    ):
        done = edgebroker(*arguments)
        assert (done.returncode, line in done.stderr, done.stderr.count("\n")) == (1, True, 1), done.stderr
    (tmp_path / "data/ledger.db").unlink()
    done = edgebroker("events", "--config", config)
    assert (done.returncode, "nothing was counted here yet" in done.stderr) == (1, True)


def test_an_unreachable_broker_is_told_apart_from_a_silent_one(endpoint: Endpoint) -> None:
    with Listener(endpoint, [topics.status("nobody", "x")]) as listener:
        listener.first()
        assert (listener.reached, len(listener.fleet)) == (True, 0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        with Listener(Endpoint("127.0.0.1", deaf.getsockname()[1]), [topics.status("nobody", "x")]) as listener:
            listener.first(connect_s=0.3)
            assert not listener.reached


def test_events_follow_the_ledger(tmp_path: Path, endpoint: Endpoint, ledger: Ledger) -> None:
    config = configured(tmp_path, endpoint)
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE)], time.time())
    listed = edgebroker("events", "--config", config, "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in listed] == ["version", "new-device", "refused"]
    assert edgebroker("events", "--config", config, "--last", "0").stdout == ""
    (line,) = edgebroker("events", "--config", config, "--last", "1").stdout.splitlines()
    assert line.endswith("t/d: frame 1 is not counted: stale")
    command = [sys.executable, "-m", "broker.cli", "events", "--config", config, "--follow", "--json", "--last", "1"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["kind"] == "refused"
        ledger.admit([entry(0, device="late")], time.time())
        close(ledger, 1)
        found = [json.loads(following.stdout.readline()) for _ in range(2)]
        assert {(each["kind"], each["device"]) for each in found} == {("new-device", "late"), ("version", "")}
    finally:
        following.terminate()
        following.wait(20)
        assert following.stdout is not None
        following.stdout.close()
