"""Whom a device follows: one ledger, and a successor only where that one stays silent."""

import logging
from pathlib import Path
from typing import cast

import pytest
from tiny_models import announced

from edgeclient.link.mqtt import Link
from edgeclient.models import absence, allegiance
from edgeclient.models.absence import Absence
from edgeclient.models.allegiance import SILENT_S, Allegiance
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Models
from edgeclient.wire import topics

OURS, OTHER = "1e" * 8, "ab" * 8


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(allegiance, "time", made)
    return made


def test_the_first_is_followed_and_no_other(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    followed = Allegiance(tmp_path / "ledger")
    assert followed.accepts(announced(1))
    with caplog.at_level(logging.WARNING):
        assert not any(followed.accepts(announced(900 + i, ledger=OTHER)) for i in range(3))
    assert caplog.text.count(f"with ledger {OTHER}, announces task t: this device goes on with ledger {OURS}") == 1
    clock.now_s += 1e6
    assert followed.successor() is None
    assert Allegiance(tmp_path / "ledger").facts == {"ledger": OURS, "stranger": ""}
    assert followed.facts == {"ledger": OURS, "stranger": OTHER}


def test_a_successor_is_followed_when_nobody_objects(tmp_path: Path, clock: Clock) -> None:
    followed = Allegiance(tmp_path / "ledger")
    followed.accepts(announced(7))
    claims = announced(0, ledger=OTHER, succeeds=(OURS,))
    assert not followed.accepts(claims)
    clock.now_s += SILENT_S - 1
    assert followed.accepts(announced(7))  # it lives
    clock.now_s += SILENT_S
    assert followed.successor() is None
    assert not followed.accepts(claims)
    clock.now_s += SILENT_S - 1
    newer = announced(1, ledger=OTHER, succeeds=(OURS,))
    assert not followed.accepts(newer)
    assert followed.successor() is None
    clock.now_s += 1
    assert followed.successor() == newer
    assert followed.facts == Allegiance(tmp_path / "ledger").facts == {"ledger": OTHER, "stranger": ""}
    assert not followed.accepts(announced(8))


class Line:
    """A connection that breaks, and keeps what is subscribed."""

    connected = True

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def subscribe(self, *wanted: str, **_: int) -> None:
        self.asked |= set(wanted)

    def unsubscribe(self, *unwanted: str) -> None:
        self.asked -= set(unwanted)


def test_who_could_not_be_heard_was_not_silent(tmp_path: Path, clock: Clock) -> None:
    """The link breaks before the ledger that is followed has answered a forged successor."""
    follower, line = Follower("t", Models(tmp_path)), Line()
    link = cast("Link", line)
    follower.announce(announced(7))
    follower.announce(announced(0, ledger=OTHER, succeeds=(OURS,)))
    line.connected = False
    clock.now_s += 2 * SILENT_S
    follower.ask(link, lambda *_: False)
    line.connected = True
    follower.connected(link)
    follower.ask(link, lambda *_: False)
    assert follower.allegiance.ledger == OURS
    follower.announce(announced(0, ledger=OTHER, succeeds=(OURS,)))  # it is retained
    clock.now_s += SILENT_S
    follower.ask(link, lambda *_: False)
    assert follower.allegiance.ledger == OTHER


def test_a_look_for_other_tasks_ends_when_the_own_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who went on listening would hear every version of every task."""
    now, line, looked = Clock(), Line(), Absence("t")
    monkeypatch.setattr(absence, "time", now)
    looked.connected()
    now.now_s += 9
    looked.look(cast("Link", line))
    assert line.asked == {topics.heads()}
    looked.ended()
    now.now_s += 5
    looked.look(cast("Link", line))
    assert (line.asked, looked.told) == (set(), "")


@pytest.mark.parametrize("damaged", [bytes(16), b"", b"1e1e", b"\xff" * 16])
def test_a_damaged_file_is_none(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "ledger").write_bytes(damaged)
    followed = Allegiance(tmp_path / "ledger")
    assert followed.accepts(announced(1))
    assert followed.ledger == OURS
