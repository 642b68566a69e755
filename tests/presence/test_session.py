"""When a device says something."""

from typing import Any

from edgeclient import __version__
from edgeclient.presence.session import Session
from edgeclient.wire import status


def due(session: Session, now: float, health: dict[str, Any] | None = None, **facts: Any) -> status.Status | None:
    return session.due(now, facts, (0, 0), health or {})


def test_a_change_is_told_at_once_and_then_not_too_often() -> None:
    session = Session("s", every_s=5.0, heartbeat_s=900.0)
    born = due(session, 0.0, note="training", doing="training")
    assert born is not None
    assert (born.state, born.doing, born.software) == ("online", "training", __version__)
    assert due(session, 4.9, note="sending") is None
    changed = due(session, 5.0, note="sending")
    assert changed is not None
    assert changed.note == "sending"


def test_health_alone_is_no_reason_but_comes_with_the_heartbeat() -> None:
    session = Session("s", every_s=5.0, heartbeat_s=900.0)
    assert due(session, 0.0, {"battery_percent": 81, "temperature_c": 50.0}) is not None
    for now in (5.0, 60.0, 899.0):
        assert due(session, now, {"battery_percent": 80, "temperature_c": 50.0 + now}) is None
    beat = due(session, 900.0, {"battery_percent": 79, "temperature_c": 41.5, "oldest_s": 7, "time_s": 12})
    assert beat is not None
    assert (beat.battery_percent, beat.temperature_c, beat.oldest_s, beat.time_s) == (79, 41.5, 7, 12)
    assert due(session, 1799.0) is None
    assert due(session, 1800.0) is not None


def test_the_goodbye_carries_health_and_the_will_says_what_it_is() -> None:
    session = Session("s", every_s=5.0)
    session.uploaded(100, 1e9)
    last = session.goodbye({"version": 3}, (1, 2), {"battery_percent": 4})
    assert (last.state, last.doing, last.battery_percent, last.uploaded_s) == ("offline", "stopped", 4, 10**9)
    will = status.decode(session.will("har", "pi").payload)
    assert (will.state, will.session, will.note) == ("offline", "s", "connection lost")


def test_the_echo_of_a_status_is_no_reason_for_another() -> None:
    """For a minute after it has connected a device hears what is said in its name: its own words, too."""
    session = Session("s", every_s=5.0, heartbeat_s=900.0)
    assert due(session, 0.0) is not None
    for now in (5.0, 10.0, 60.0):
        session.received(600)
        assert due(session, now) is None
    beat = due(session, 900.0)
    assert beat is not None
    assert beat.down_bytes == 1800
