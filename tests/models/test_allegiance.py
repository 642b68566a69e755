"""Whom a device follows: one ledger, and a successor only where that one stays silent."""

import logging
from pathlib import Path

import pytest
from tiny_models import announced

from edgeclient.models import allegiance
from edgeclient.models.allegiance import SILENT_S, Allegiance

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
