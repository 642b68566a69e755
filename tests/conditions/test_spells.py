"""Rounds as long as the spells that a device gets: laws, drawn lives, and the file between them."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclient.conditions.spells import Lives, Spells

ROUND_S = 60.0


def life(spells: Spells, spell_s: float, begins_s: float, packing_s: float = 0.0) -> tuple[Spells, int]:
    """A start, and the rounds that end until the power goes."""
    spells = spells.started()
    age_s, ended = begins_s, 0
    while True:
        spells = spells.begun(age_s)
        ends_s = age_s + min(ROUND_S, spells.limit_s(age_s)) + packing_s
        if ends_s > spell_s:
            return spells.seen(max(age_s, spell_s / 1.2)), ended
        spells, age_s, ended = spells.ended(ends_s), ends_s, ended + 1


@pytest.mark.case("fleet 63")
@given(spell_s=st.floats(8, 55), begins_s=st.floats(1, 4), packing_s=st.floats(0, 1.5))
def test_rounds_soon_fit_into_spells_and_go_on_doing_so(spell_s: float, begins_s: float, packing_s: float) -> None:
    spells, done = Spells(), []
    for _ in range(40):
        spells, ended = life(spells, spell_s, begins_s, packing_s)
        done.append(ended > 0)
    assert not done[0]
    assert any(done[:6])
    assert sum(done[6:]) >= 0.8 * len(done[6:])


@given(cut_s=st.floats(3, 600))
def test_one_accident_is_outlived(cut_s: float) -> None:
    """Who runs for ever after a cut is soon bounded no more."""
    spells = Spells().begun(2.0).seen(cut_s).started()
    age_s = 2.0
    for _ in range(60):
        spells = spells.begun(age_s)
        age_s += min(ROUND_S, spells.limit_s(age_s))
        spells = spells.ended(age_s)
    assert spells.limit_s(age_s) >= ROUND_S


def test_who_was_never_cut_off_is_never_bounded() -> None:
    spells = Spells()
    for _ in range(9):
        spells = spells.started().begun(3.0).ended(63.0)
    assert spells.limit_s(63.0) == math.inf
    assert spells.started().started().fruitless == spells.fruitless + 2


def test_what_a_process_leaves_is_what_the_next_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    path = tmp_path / "spells.json"
    first = Lives(path)
    assert first.limit_s() == math.inf
    now[0] += 4
    first.begin()
    seconds = 0
    for now[0] in (104.5, 105, 107, 107.2, 110, 112):
        seconds += first.tick()
    assert seconds == 5
    second = Lives(path)  # at 112 it died
    assert (second.facts["cut"], second.facts["spell_s"]) == (1, 10)
    assert second.limit_s() == 7.5
    assert "ended within a round, after about 10 s" in caplog.text
    second.begin()
    second.end()
    second.progress()
    assert second.facts == {"fruitless": 0, "cut": 0, "spell_s": 10}
    third = Lives(path)
    assert third.before.cut == 0
    assert third.told == "a start once ended after 10 s"


def test_starts_that_get_nothing_done_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(4):
        lives = Lives(tmp_path / "spells.json")
    assert lives.facts["fruitless"] == 3
    assert "the last 3 starts got nothing done" in caplog.text
    lives.progress()
    assert Lives(tmp_path / "spells.json").facts["fruitless"] == 0


def test_rounds_of_a_moment_are_not_written_down(tmp_path: Path) -> None:
    lives = Lives(tmp_path / "spells.json")
    lives.begin()
    lives.end()
    lives.progress()
    before = (tmp_path / "spells.json").stat()
    for _ in range(5):
        lives.begin()
        lives.end()
    assert (tmp_path / "spells.json").stat() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"cut": 1e999}',
        '{"share": 9}',
        '{"spell_s": 1e999}',
        '{"fruitless": "many"}',
        '{"new": 1}',
        '{"cut": null}',
    ],
)
def test_a_damaged_file_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "spells.json").write_text(text)
    assert Lives(tmp_path / "spells.json").limit_s() == math.inf
    assert json.loads((tmp_path / "spells.json").read_text())["cut"] == 0


def test_a_card_that_cannot_be_written_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lives = Lives(tmp_path / "spells.json")
    (tmp_path / "spells.json.new").mkdir()
    for _ in range(3):
        lives.begin()
        lives.end()
        lives.progress()
    assert caplog.text.count("cannot be written") == 1
