"""Presence: when a device says something, and what its silence is taken for."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from broker.monitor.fleet import Fleet
from broker.monitor.silence import HANGS_S, WORDS, Contact, guess
from edgeclient import __version__
from edgeclient.presence.session import Presence
from edgeclient.wire import status, topics
from edgeclient.wire.errors import WireError

# When a device says something


def due(presence: Presence, now: float, health: dict[str, Any] | None = None, **facts: Any) -> status.Status | None:
    return presence.due(now, facts, (0, 0), health or {})


def test_a_change_is_told_at_once_and_then_not_too_often() -> None:
    presence = Presence("s", every_s=5.0, heartbeat_s=900.0)
    born = due(presence, 0.0, note="training", doing="training")
    assert born is not None
    assert (born.state, born.doing, born.software) == ("online", "training", __version__)
    assert due(presence, 4.9, note="sending") is None
    changed = due(presence, 5.0, note="sending")
    assert changed is not None
    assert changed.note == "sending"


def test_health_alone_is_no_reason_but_comes_with_the_heartbeat() -> None:
    presence = Presence("s", every_s=5.0, heartbeat_s=900.0)
    assert due(presence, 0.0, {"battery_percent": 81, "temperature_c": 50.0}) is not None
    for now in (5.0, 60.0, 899.0):
        assert due(presence, now, {"battery_percent": 80, "temperature_c": 50.0 + now}) is None
    beat = due(presence, 900.0, {"battery_percent": 79, "temperature_c": 41.5, "oldest_s": 7, "time_s": 12})
    assert beat is not None
    assert (beat.battery_percent, beat.temperature_c, beat.oldest_s, beat.time_s) == (79, 41.5, 7, 12)
    assert due(presence, 1799.0) is None
    assert due(presence, 1800.0) is not None


def test_the_goodbye_carries_health_and_the_will_says_what_it_is() -> None:
    presence = Presence("s", every_s=5.0)
    presence.uploaded(100, 1e9)
    last = presence.goodbye({"version": 3}, (1, 2), {"battery_percent": 4})
    assert (last.state, last.doing, last.battery_percent, last.uploaded_s) == ("offline", "stopped", 4, 10**9)
    will = status.decode(presence.will)
    assert (will.state, will.session, will.note) == ("offline", "s", "connection lost")


# What a silence is taken for

ONLINE = status.Status("online", "s", version=5, doing="next-version")
GONE = status.Status("offline", "s", note="connection lost")
CASES = [
    (Contact(None, asked=False), "unknown"),
    (Contact(None, asked=False, counted=True), "unknown"),
    (Contact(None), "never-connected"),
    (Contact(None, counted=True), "left"),
    (Contact(replace(ONLINE, state="offline", doing="stopped")), "stopped"),
    (Contact(replace(GONE, note="stopped")), "stopped"),
    (Contact(replace(GONE, battery_percent=10)), "battery-empty"),
    (Contact(replace(GONE, battery_percent=11)), "connection-lost"),
    (Contact(replace(GONE, battery_percent=90, temperature_c=80.0)), "overheated"),
    (Contact(replace(GONE, temperature_c=79.9)), "connection-lost"),
    (Contact(GONE, age_s=1e6), "connection-lost"),
    (Contact(replace(ONLINE, doing="battery"), age_s=HANGS_S + 1), "hangs"),
    (Contact(replace(ONLINE, doing="battery"), age_s=HANGS_S), "waits"),
    *(
        (Contact(replace(ONLINE, doing=doing)), "waits")
        for doing in ("paused", "quiet-hours", "metered", "heat", "wear")
    ),
    (Contact(replace(ONLINE, doing="failed")), "failed"),
    (Contact(replace(ONLINE, doing="training")), "training"),
    (Contact(replace(ONLINE, doing="model", version=-1)), "no-model"),
    (Contact(status.Status("online", "s")), "no-model"),
    (Contact(replace(ONLINE, doing="receipts", sent=2)), "no-receipts"),
    (Contact(replace(ONLINE, doing="sending", queued=2)), "slow-link"),
    (Contact(replace(ONLINE, doing="", sent=1)), "slow-link"),
    (Contact(ONLINE), "up-to-date"),
    (Contact(replace(ONLINE, doing="a word of later")), "up-to-date"),
]


@pytest.mark.parametrize(("contact", "word"), CASES)
def test_guesses(contact: Contact, word: str) -> None:
    assert guess(contact) == word


def test_every_word_is_guessed_and_every_doing_has_a_guess() -> None:
    assert {word for _, word in CASES} == WORDS.keys()
    for doing in status.DOINGS:
        assert guess(Contact(replace(ONLINE, doing=doing))) in WORDS


# What the book keeps


def test_a_book_is_bounded_and_forgets_who_has_left() -> None:
    book = Fleet(most=3)

    def say(topic: str, payload: bytes) -> None:
        with suppress(WireError):
            book.hear(topic, payload)

    for number in range(10):
        say(topics.status("t", f"d{number}"), status.encode(ONLINE))
    say(topics.status("t", "d0"), b"\xff")
    say(topics.status("other", "d0"), status.encode(ONLINE))
    say(topics.up("t", "d0"), status.encode(ONLINE))
    say("t", b"{}")
    assert book.tasks() == ["t"]
    assert {name: device.said for name, device in book.devices("t").items()} == {f"d{n}": ONLINE for n in range(3)}
    say(topics.status("t", "d1"), b"")
    say(topics.status("t", "d2"), status.encode(GONE))
    assert {name: device.state for name, device in book.devices("t").items()} == {"d0": "waiting", "d2": "offline"}


def test_a_connection_brings_the_kept_ones_again_and_sessions_add_up() -> None:
    book = Fleet()

    def say(device: str, said: status.Status) -> None:
        book.hear(topics.status("t", device), status.encode(said))

    first = replace(ONLINE, down_bytes=100, socket_sent=10, socket_received=200, battery_percent=9)
    say("a", first)
    say("b", replace(first, down_bytes=1))
    say("a", replace(first, down_bytes=150, socket_sent=20))
    say("a", GONE)  # a will: counters are as they were
    found = book.find("t", "a")
    assert found is not None
    assert (found.state, found.said.battery_percent, found.said.down_bytes) == ("offline", 9, 150)
    assert (book.downlink_bytes, book.socket_bytes) == (151, 20 + 200 + 10 + 200)
    book.connected()
    say("a", GONE)
    assert (book.find("t", "a"), book.find("t", "b")) == (found, None)
    say("a", replace(first, session="s2", down_bytes=7, socket_sent=1, socket_received=2))
    assert (book.downlink_bytes, book.socket_bytes) == (158, 433)
    # A session that began and ended while nobody listened: what is kept is its will, and no late one.
    book.connected()
    say("a", replace(GONE, session="s3"))
    assert [device.state for device in book.devices("t").values()] == ["offline"]
