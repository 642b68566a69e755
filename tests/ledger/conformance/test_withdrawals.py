"""WITHDRAW at the ledger: a frame is either applied or given back, whatever comes first, twice, or late."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
from ledgers import EPOCH, admitted, close, entry, hello

from broker.ledger.protocol import Ledger
from broker.ledger.rows import Admission, Entry, Verdict, Withdrawal
from edgeclient import failpoint
from edgeclient.wire.messages import Refusal

WITHDRAWN = Admission(Verdict.WITHDRAWN, Refusal.WITHDRAWN)
CONFLICT = Admission(Verdict.REFUSED, Refusal.CONFLICT)


def withdrawal(of: Entry, digest: bytes | None = None) -> Withdrawal:
    return Withdrawal(of.task, of.device, of.epoch, of.sequence, digest or of.digest)


def test_what_has_not_come_is_withdrawn_and_stays_so(ledger: Ledger) -> None:
    assert ledger.admit([withdrawal(entry(0))], 1.0) == [WITHDRAWN]
    assert ledger.receipt("t", "d", EPOCH).refused == ((0, Refusal.WITHDRAWN),)
    for _ in range(2):  # late copies, and the device asking again
        assert ledger.admit([entry(0)], 2.0) == [Admission(Verdict.REFUSED, Refusal.WITHDRAWN)]
        assert ledger.admit([withdrawal(entry(0))], 2.0) == [WITHDRAWN]
    assert admitted(ledger) == set()
    receipt = ledger.receipt("t", "d", EPOCH)
    assert (receipt.watermark, receipt.seen, receipt.refused) == (1, 1, ((0, Refusal.WITHDRAWN),))
    hello(ledger, 1)
    assert ledger.receipt("t", "d", EPOCH).refused == ()
    assert ledger.frame_counts("t") == {"d": (0, 1, 0)}


def test_too_late_changes_nothing(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE)], 1.0)
    asked = [withdrawal(entry(0)), withdrawal(entry(1))]
    assert ledger.admit(asked, 2.0) == [Admission(Verdict.APPLIED), Admission(Verdict.REFUSED, Refusal.STALE)]
    receipt = ledger.receipt("t", "d", EPOCH)
    assert (receipt.watermark, receipt.refused) == (2, ((1, Refusal.STALE),))
    assert admitted(ledger) == {entry(0).body}


def test_other_bytes_are_a_conflict_either_way(ledger: Ledger) -> None:
    ledger.admit([entry(0), withdrawal(entry(1))], 1.0)
    other = b"another!"
    assert ledger.admit([withdrawal(entry(0), other), withdrawal(entry(1), other)], 2.0) == [CONFLICT, CONFLICT]
    assert ledger.admit([entry(1, digest=other)], 2.0) == [CONFLICT]
    assert admitted(ledger) == {entry(0).body}
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.WITHDRAWN),)


def test_gaps_close_in_any_order_and_the_order_in_a_batch_decides(
    opened: Callable[..., Ledger], tmp_path: Path
) -> None:
    asked: list[Entry | Withdrawal] = [entry(0), withdrawal(entry(1)), entry(1), withdrawal(entry(2))]
    for number, order in enumerate(permutations(asked)):
        (tmp_path / str(number)).mkdir()
        with opened(tmp_path / str(number)) as ledger:
            ledger.admit(order, 1.0)
            kinds = [type(each) for each in order if each.sequence == 1]
            counted = {entry(0).body} | ({entry(1).body} if kinds[0] is Entry else set())
            assert admitted(ledger) == counted
            receipt = ledger.receipt("t", "d", EPOCH)
            assert (receipt.watermark, receipt.seen) == (3, 3)
            refused = {1, 2} if kinds[0] is Withdrawal else {2}
            assert {sequence for sequence, _ in receipt.refused} == refused
            assert ledger.check() == []


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_an_update_counts_once_whichever_part_never_comes(ledger: Ledger, gone: int) -> None:
    parts: list[Entry | Withdrawal] = [entry(i, number=7, part=i, parts=3, weight=10 + i) for i in range(3)]
    first = min({0, 1, 2} - {gone})
    parts[gone] = withdrawal(entry(gone))
    ledger.admit(parts, 5.0)
    members = ledger.open_contributions("t", 9)
    assert [(each.leads, each.weight) for each in members] == [(True, 10 + first), (False, 10 + first)]
    assert ledger.pending("t").updates == 1
    # One frame is withdrawn only after the batch has closed without it: nothing reopens.
    close(ledger, 1)
    assert ledger.admit([entry(gone, number=7, part=gone, parts=3)], 6.0)[0].refusal is Refusal.WITHDRAWN
    assert ledger.pending("t").frames == 0
    assert ledger.versions("t")[-1].total_weight == 10 + first


def test_late_parts_after_a_withdrawn_first_keep_the_weight_of_the_one_that_led(ledger: Ledger) -> None:
    ledger.admit([withdrawal(entry(0)), entry(1, number=7, part=1, parts=3, weight=11)], 1.0)
    close(ledger, 1)
    ledger.admit([entry(2, number=7, part=2, parts=3, weight=99)], 2.0)
    (late,) = ledger.open_contributions("t", 9)
    assert (late.leads, late.weight) == (False, 11)
    assert ledger.pending("t").updates == 0


def test_the_sabotage_is_a_frame_both_returned_and_counted(
    opened: Callable[..., Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an auditor must notice: the device was told that its frame came back, and a late copy counts."""
    monkeypatch.setattr(failpoint, "_ACTIONS", {"sabotage.tombstone": "on"})
    with opened(tmp_path) as ledger:
        assert ledger.admit([withdrawal(entry(0))], 1.0) == [WITHDRAWN]
        assert ledger.receipt("t", "d", EPOCH).refused == ((0, Refusal.WITHDRAWN),)
        assert ledger.admit([entry(0)], 1.0) == [Admission(Verdict.APPLIED)]
        assert admitted(ledger) == {entry(0).body}
