"""What keeps a task from its work, conditions apart, and how long."""

import errno
from pathlib import Path

import pytest

from edgeclient.compress.feedback import NotFinite
from edgeclient.conditions.board import Board, Observed
from edgeclient.conditions.growth import Growth
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.pauses import Pauses
from edgeclient.conditions.reasons import Train
from edgeclient.link.events import Reach
from edgeclient.settings import Conditions
from edgeclient.wire.life import Account, Outbox, Row, State


class Silent(Board):
    def observe(self) -> Observed:
        return Observed()


def outbox(trained_version: int | None = None, rows: tuple[Row, ...] = ()) -> Outbox:
    return Outbox(Account(1, 0, 0, "ab", 2, trained_version, "", 0, 0, 0, 0, 0), rows)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def pauses(tmp_path: Path, now: list[float]) -> Pauses:
    return Pauses(Guard(Conditions(), tmp_path, Silent(tmp_path)), tmp_path, str(tmp_path / "data.csv"))


def doing(pauses: Pauses, version: int = 0, **held: object) -> str:
    return pauses.decide(outbox(**held), version, [], Reach()).doing  # type: ignore[arg-type]


def test_a_full_disk_pauses_everything_for_a_while(pauses: Pauses, now: list[float]) -> None:
    pauses.full(OSError(errno.ENOSPC, "No space left on device", "residual.0"))
    assert pauses.decision.because == "training and sending pause: disk full: residual.0: make room there"
    assert pauses.decision.forbidden
    assert doing(pauses) == "disk"
    assert not pauses.may_fetch(1)
    pauses.without_model()
    assert pauses.decision.doing == "disk"
    now[0] += 30
    assert (doing(pauses), pauses.may_fetch(1), pauses.disk) == ("training", True, "")


def test_another_error_of_the_disk_is_not_a_pause(pauses: Pauses) -> None:
    with pytest.raises(PermissionError):
        pauses.full(PermissionError(errno.EACCES, "Permission denied"))


def test_a_version_that_cannot_be_trained_on_waits_for_the_next(pauses: Pauses) -> None:
    with pauses.training(3):
        assert pauses.decision == Train("training on version 3")
        raise NotFinite("coordinate 7")
    assert doing(pauses, 3) == "failed"
    assert pauses.decision.because == "cannot train on version 3: coordinate 7"
    assert doing(pauses, 4) == "training"


def test_a_starved_source_is_asked_again(pauses: Pauses, now: list[float]) -> None:
    pauses.may_fetch(0)
    pauses.untrained(0, "starved", "no example yet")
    assert doing(pauses) == "next-version"
    assert pauses.done(outbox(), 0)
    now[0] += 30
    assert doing(pauses) == "training"


def test_an_interrupted_round_begins_again_at_once(pauses: Pauses) -> None:
    pauses.untrained(0, "interrupted", "before a first step")
    assert doing(pauses) == "training"


def test_once_is_one_round(pauses: Pauses) -> None:
    pauses.once = True
    assert doing(pauses) == "training"
    pauses.trained(2, 100)
    assert doing(pauses, 1, trained_version=0) == "next-version"


def test_done_is_trained_settled_and_nothing_missing(pauses: Pauses) -> None:
    assert not pauses.done(outbox(0), 0)  # nothing was announced yet
    pauses.may_fetch(9)
    assert not pauses.done(outbox(0), 0)
    pauses.may_fetch(0)
    assert pauses.done(outbox(0), 0)
    assert not pauses.done(outbox(0), 1)
    assert not pauses.done(None, None)
    row = Row(1, State.SENT, 0, 0, 0, 0.0, 10)
    assert not pauses.done(outbox(0, (row,)), 0)


def test_data_that_has_grown_by_a_tenth_is_a_reason_for_a_round(
    pauses: Pauses, now: list[float], tmp_path: Path
) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(bytes(1000))
    pauses.may_fetch(0)
    assert doing(pauses, 3) == "training"
    pauses.trained(100, 10)
    for size, seconds, then in (
        (1000, 3600.0, "next-version"),
        (1099, 60.0, "next-version"),
        (1200, 59.0, "next-version"),  # a newer version may come
        (1200, 1.0, "training"),
    ):
        data.write_bytes(bytes(size))
        now[0] += seconds
        assert doing(pauses, 3, trained_version=3) == then
    pauses.trained(100, 10)
    now[0] += 60
    assert doing(pauses, 3, trained_version=3) == "next-version"


def test_sources_that_tell_no_size_never_grow(tmp_path: Path, now: list[float]) -> None:
    (tmp_path / "folder").mkdir()
    for source in (
        "my_package.data:batches",
        "my_data.py:batches",
        str(tmp_path / "nothing"),
        str(tmp_path / "folder"),
    ):
        growth = Growth(source)
        growth.learnt()
        assert not growth.look(now=now[0] + 1e6)
    (tmp_path / "folder" / "a.csv").write_bytes(b"1,2\n")
    assert growth.look(now=now[0] + 2e6)
