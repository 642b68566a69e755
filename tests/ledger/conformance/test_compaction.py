"""Compaction: smaller, and never another answer."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import EPOCH, close, entry, hello, version

from broker.ledger import digests
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Admission, Verdict, Withdrawal
from edgeclient.wire.messages import Refusal

CONFLICT = Admission(Verdict.REFUSED, Refusal.CONFLICT)


def compact(ledger: Ledger, limit: int = 8192) -> int:
    newest = ledger.versions("t", last=1)[0].number
    ledger.forget_bodies("t", newest - 1)
    return ledger.compact("t", before_batch=newest - 1, before_base=newest, limit=limit)


STEPS = st.one_of(
    st.tuples(st.just("frame"), st.integers(0, 30), st.sampled_from([None, None, Refusal.STALE]), st.booleans()),
    st.tuples(st.just("frame"), st.integers(0, 30), st.none(), st.just(False)),
    st.tuples(st.just("withdraw"), st.integers(0, 30), st.none(), st.booleans()),
    st.tuples(st.just("confirm"), st.integers(0, 31), st.none(), st.just(False)),
    st.tuples(st.just("close"), st.just(0), st.none(), st.just(False)),
    st.tuples(st.just("compact"), st.integers(1, 9), st.none(), st.just(False)),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=10, max_size=80))
def test_a_ledger_that_compacts_answers_like_one_that_never_does(
    opened: Callable[..., Ledger], steps: list[tuple[str, int, object, bool]]
) -> None:
    """Chunks of 4 sequences and folding at every one, so that all borders are crossed."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "FOLD_AT", 1)
        patch.setattr(digests, "CHUNK", 4)
        ledgers: list[Ledger] = []
        for name in ("plain", "compacting"):
            (Path(folder) / name).mkdir()
            ledgers.append(each := opened(Path(folder) / name))
            each.add_task("t", "b", {}, version(0))
        for kind, number, refusal, other in steps:
            digest = b"another!" if other else None
            of = entry(number, digest=digest, refusal=refusal)  # type: ignore[arg-type]  # drawn from refusals
            answers: list[object] = []
            for each in ledgers:
                if kind == "frame":
                    answers.append(each.admit([of], 1.0))
                elif kind == "withdraw":
                    answers.append(each.admit([Withdrawal("t", "d", EPOCH, number, of.digest)], 1.0))
                elif kind == "confirm":
                    settled = each.receipt("t", "d", EPOCH).watermark
                    answers.append(hello(each, min(number, settled)))
                elif kind == "close" and each.pending("t").updates:
                    close(each, each.versions("t", last=1)[0].number + 1)
                answers.append(each.receipt("t", "d", EPOCH))
                answers.append(each.settled("t", "d", EPOCH))
                answers.append(each.frame_counts("t"))
            if kind == "compact":
                compact(ledgers[1], limit=number)
            half = len(answers) // 2
            assert answers[:half] == answers[half:]
        for each in ledgers:
            assert each.check() == []
            each.close()


def test_a_used_sequence_is_noticed_after_its_row_is_gone(ledger: Ledger) -> None:
    frames = [entry(i, refusal=Refusal.STALE if i == 7 else None) for i in range(3000)]
    ledger.admit([*frames[:9], Withdrawal("t", "d", EPOCH, 9, frames[9].digest), *frames[10:]], 1.0)
    close(ledger, 1)
    assert ledger.size()["frame_rows"] == 3000
    hello(ledger, 8)
    assert compact(ledger) == 2999  # the withdrawn one is not confirmed yet
    assert ledger.size()["frame_rows"] == 1
    assert ledger.receipt("t", "d", EPOCH).refused == ((9, Refusal.WITHDRAWN),)
    hello(ledger, 3000)
    ledger.admit([entry(i) for i in range(3000, 3300)], 1.0)
    compact(ledger)
    assert ledger.size()["frame_rows"] == 0
    answers = ledger.admit([frames[0], frames[7], frames[9], entry(0, digest=b"another!")], 2.0)
    duplicate = Admission(Verdict.DUPLICATE)
    assert answers == [duplicate, duplicate, Admission(Verdict.REFUSED, Refusal.WITHDRAWN), CONFLICT]
    assert ledger.frame_counts("t") == {"d": (3298, 2, 0)}


def test_what_is_older_than_the_window_counts_as_a_duplicate(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digests.WINDOW == 65_536
    monkeypatch.setattr(digests, "WINDOW", 2048)
    for start in range(0, 8000, 1000):
        ledger.admit([entry(i) for i in range(start, start + 1000)], 1.0)
        hello(ledger, start + 1000)
        compact(ledger)
    size = ledger.size()
    assert (size["frame_rows"], size["past_rows"]) == (0, 3)
    assert ledger.admit([entry(7999, digest=b"another!")], 1.0) == [CONFLICT]
    assert ledger.admit([entry(7, digest=b"another!"), entry(7)], 1.0) == [Admission(Verdict.DUPLICATE)] * 2
    assert ledger.settled("t", "d", EPOCH) == dict.fromkeys(range(8000))


def test_steps_are_bounded_and_many_epochs_get_their_turn(ledger: Ledger) -> None:
    for device in ("a", "b", "c"):
        ledger.admit([entry(i, device=device) for i in range(1000)], 1.0)
    close(ledger, 1)
    done = [compact(ledger, limit=700) for _ in range(6)]
    assert done[:4] == [700, 700, 700, 700]
    assert sum(done) == 2800  # the rest is too little to be worth a chunk
    assert ledger.frame_counts("t") == dict.fromkeys("abc", (1000, 0, 0))


def test_contributions_go_with_age_and_their_record_stays(ledger: Ledger) -> None:
    for number in range(1, 8):
        ledger.admit([entry(300 * number - 300 + i) for i in range(300)], 1.0)
        close(ledger, number)
        compact(ledger)
    size = ledger.size()
    assert size["contribution_rows"] == 2 * 300  # the two newest batches
    assert ledger.frame_counts("t") == {"d": (2100, 0, 0)}
    assert [each.frames for each in ledger.versions("t")] == [0] + [300] * 7


def test_the_first_part_is_remembered_while_a_late_one_can_be_admitted(ledger: Ledger) -> None:
    ledger.admit([entry(0, number=7, part=0, parts=2, weight=11), *(entry(i) for i in range(1, 400))], 1.0)
    for number in range(1, 6):
        ledger.admit([entry(400 * number + i) for i in range(400)], 1.0)
        close(ledger, number)
        ledger.forget_bodies("t", number - 1)
        ledger.compact("t", before_batch=number - 1, before_base=0)
    ledger.admit([entry(2400, number=7, part=1, parts=2, weight=99)], 1.0)
    (late,) = ledger.open_contributions("t", 9)
    assert (late.leads, late.weight) == (False, 11)
    ledger.compact("t", before_batch=4, before_base=1)
    assert [each.sequence for each in ledger.open_contributions("t", 9)] == [2400]


def test_versions_go_and_say_which_contents_nothing_names(ledger: Ledger) -> None:
    ledger.add_task("other", f"{3:064x}", {}, version(5))
    for number in range(1, 9):
        made = replace(version(number, number), state={"moment": number}, state_digest=f"{number % 2:064x}")
        ledger.close_batch("t", [], made)
    assert ledger.versions("t", last=1)[0].state == {"moment": 8}
    assert ledger.forget_versions("t", [2, 3, 4, 5, 99]) == [f"{number:064x}" for number in (2, 4)]
    assert [each.number for each in ledger.versions("t")] == [0, 1, 6, 7, 8]
    assert f"{1:064x}" in ledger.digests()
    assert ledger.forget_versions("t", [1, 7]) == [f"{number:064x}" for number in (1, 7)]


def test_the_file_stops_growing(ledger: Ledger) -> None:
    """A thousand frames of 1 kB per version, ten devices: what is kept of them is four bytes each."""
    sizes = []
    for number in range(1, 31):
        frames = [
            replace(entry(100 * (number - 1) + i, device=f"d{d}"), body=f"{d} {number} {i}".encode() * 100)
            for d in range(10)
            for i in range(100)
        ]
        ledger.admit(frames, 1.0)
        close(ledger, number)
        compact(ledger)
        ledger.forget_versions("t", range(number - 3))
        size = ledger.size()
        sizes.append(size["ledger_bytes"])
    assert size["frame_rows"] <= 10 * digests.FOLD_AT
    assert size["contribution_rows"] <= 2 * 1000 + 10 * digests.FOLD_AT
    assert sizes[-1] - sizes[14] < 12 * 15 * 1000  # 3.5 bytes a frame were measured
    assert ledger.frame_counts("t") == {f"d{d}": (3000, 0, 0) for d in range(10)}
