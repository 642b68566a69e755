"""The book of devices: what is kept of a status, what is left out, who has gone, and the summary of it."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from broker.monitor.fleet import Fleet, Sighting
from broker.monitor.silence import SILENT_S
from broker.monitor.summary import Summary, summary
from edgeclient.wire import status, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.status import Status

ONLINE = Status("online", "s", version=5, doing="next-version")
GONE = Status("offline", "s", note="connection lost")


def said(book: Fleet, device: str, state: str, session: str, **values: Any) -> None:
    assert book.hear(topics.status("har", device), status.encode(Status(state, session, **values)))


def told(book: Fleet) -> Summary:
    return summary(book.devices("har").values(), book.clock())


def states(book: Fleet) -> dict[str, int]:
    """Those that some device is in."""
    return {state: devices for state, devices in told(book).states.items() if devices}


def test_a_last_will_keeps_the_outbox_and_a_late_one_changes_nothing() -> None:
    book = Fleet()
    said(book, "a", "online", "s1", queued=3, socket_sent=1000)
    said(book, "a", "offline", "s1", note="connection lost")
    assert states(book) == {"offline": 1}
    assert told(book).outbox["queued"] == 3
    said(book, "a", "online", "s2", queued=1)
    said(book, "a", "offline", "s1", note="connection lost")
    assert states(book) == {"waiting": 1}
    assert told(book).outbox["queued"] == 1
    said(book, "a", "offline", "s2", queued=0, socket_sent=50)
    assert told(book).outbox["queued"] == 0


def test_memory_is_bounded_and_lies_are_capped() -> None:
    book = Fleet(most=3)
    for number in range(10):
        said(book, f"invented-{number}", "online", "s", queued=10**6)
    assert states(book) == {"waiting": 3}
    assert book.left_out == 7
    assert told(book).outbox["queued"] == 3 * 10**6
    said(book, "invented-0", "offline", "s", queued=1, socket_sent=1)
    assert states(book)["offline"] == 1
    assert book.hear(topics.status("har", "invented-0"), b"")  # it has left
    assert states(book) == {"waiting": 2}


def test_an_hour_of_silence_counts_with_its_reason_and_the_same_words_again_do_not_end_it() -> None:
    now = [0.0]
    book = Fleet(clock=lambda: now[0])
    said(book, "a", "online", "s", battery_percent=7, doing="training", socket_sent=9)
    said(book, "a", "offline", "s")  # its will
    said(book, "b", "offline", "s", doing="stopped")
    said(book, "c", "online", "s", doing="metered")
    now[0] = SILENT_S
    assert not told(book).silent
    book.connected()  # a reconnect brings the retained ones again: the will, without what was said before
    said(book, "a", "offline", "s")
    said(book, "b", "offline", "s", doing="stopped")
    said(book, "c", "online", "s", doing="metered", socket_sent=5)  # a heartbeat
    now[0] += 1
    assert told(book).silent == {"battery-empty": 1, "stopped": 1}
    assert told(book).doings == {"metered": 1}
    now[0] += SILENT_S
    assert told(book).silent["hangs"] == 1


def test_words_of_devices_are_bounded_and_numbers_are_spread() -> None:
    book = Fleet()
    for number in range(40):
        said(book, f"d{number}", "online", "s", doing=f"invented-{number}", queued=number, residual_norm=1e30)
    said(book, "old", "online", "s")
    assert told(book).doings == {"other": 41}
    spread = told(book).depths
    assert spread.counts[:4] == [2, 1, 1, 3]  # 0, 1, 2 and 3 to 5 frames
    assert (sum(spread.counts), spread.total) == (41, sum(range(40)))
    assert told(book).norms.total == 40 * 1e9


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b"{}", b"x" * 100_000, b'{"state":"asleep","session":"a"}'])
def test_what_is_no_status_is_refused(payload: bytes) -> None:
    book = Fleet()
    with pytest.raises(WireError):
        book.hear(topics.status("har", "a"), payload)
    assert len(book) == 0


@pytest.mark.parametrize("topic", ["edge/v1/status/up/a", "edge/v1/har/up/status", "edge/v1/har/up/a"])
def test_uploads_are_no_statuses(topic: str) -> None:
    assert not Fleet().hear(topic, b"{}")


def test_memory_is_bounded() -> None:
    book = Fleet(clock=lambda: 0.0, most=3)
    for number in range(10):
        book.hear(topics.status("har", f"a{number}"), status.encode(Status("online", "s")))
    assert len(book.devices("har")) == 3
    for _ in range(500):
        for state in ("offline", "online"):
            book.hear(topics.status("har", "a0"), status.encode(Status(state, "s")))
    assert len(book.events) == 100


def test_states() -> None:
    for said, state in (
        (Status("online", "s", note="training"), "training"),
        (Status("online", "s", note="60 °C is over 55 °C: training waits"), "waiting"),
        (Status("online", "s", note="sending"), "sending"),
        (Status("offline", "s", note="training"), "offline"),
    ):
        assert Sighting(said, None, 0.0).state == state


def test_since_when_survives_a_new_connection() -> None:
    now = [0.0]
    book = Fleet(clock=lambda: now[0], wall=lambda: now[0])

    def hear(device: str, state: str, session: str = "s") -> None:
        now[0] += 10
        book.hear(topics.status("har", device), status.encode(Status(state, session)))

    def since(device: str) -> float | None:
        found = book.find("har", device)
        assert found is not None
        return found.since_s

    book.connected()
    now[0] = -9.0
    hear("old", "online")  # kept by the broker: since when is unknown
    hear("a", "online")
    hear("a", "offline")
    assert (since("old"), since("a")) == (None, 21.0)
    assert [event.text for event in book.events] == ["is offline: "]
    book.connected()
    now[0] -= 9
    hear("a", "offline")
    assert (since("a"), book.find("har", "old")) == (21.0, None)
    hear("a", "online", "s2")
    hear("a", "offline", "s")  # the late will of the first session
    assert [device.state for device in book.devices("har").values()] == ["waiting"]


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

    def say(device: str, said: Status) -> None:
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


def test_ghosts_are_offline_after_their_heartbeat_whatever_is_retained() -> None:
    """A fleet went off together with its broker, which had kept that everybody is online."""
    now = [0.0]
    book = Fleet(clock=lambda: now[0])
    book.connected()
    said(book, "ghost", "online", "s", doing="training", heartbeat_s=60)
    said(book, "lives", "online", "s", doing="next-version", heartbeat_s=60)
    said(book, "slow", "online", "s", doing="next-version", heartbeat_s=900)
    now[0] = 100.0
    assert states(book) == {"waiting": 3}
    said(book, "lives", "online", "s", doing="next-version", heartbeat_s=60, socket_sent=1)
    now[0] = 140.0
    book.connected()  # the broker tells what it has kept once more
    said(book, "ghost", "online", "s", doing="training", heartbeat_s=60)
    said(book, "lives", "online", "s", doing="next-version", heartbeat_s=60, socket_sent=1)
    said(book, "slow", "online", "s", doing="next-version", heartbeat_s=900)
    assert states(book) == {"waiting": 2, "offline": 1}
    found = book.find("har", "ghost")
    assert found is not None
    assert (found.state, found.silent, told(book).connections) == ("offline", True, {"online": 2, "offline": 1})
    assert told(book).doings == {"next-version": 2}
    said(book, "ghost", "online", "s2")
    assert states(book) == {"waiting": 3}
