"""Every identity at most once, whatever comes twice, out of order, or is withdrawn; and what devices are told."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import EPOCH, admitted, close, entry, hello

from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Admission, Entry, Verdict
from edgeclient import failpoint
from edgeclient.uplink.settle import settle
from edgeclient.wire.limits import MAX_RECEIPT_LIST
from edgeclient.wire.messages import Refusal, decode_receipt, encode_receipt


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Entry], list[list[Entry]]]:
    """Entries of some devices, and a schedule that holds each at least once, in any order, in transactions."""
    entries = []
    for device in ("a", "b"):
        for sequence in range(draw(st.integers(0, 8))):
            refusal = draw(st.sampled_from([None, None, None, Refusal.STALE, Refusal.VALUE_LIMIT]))
            entries.append(entry(sequence, device=device, refusal=refusal))
    extra = draw(st.lists(st.sampled_from(entries), max_size=12)) if entries else []
    order = draw(st.permutations(entries + extra))
    schedule: list[list[Entry]] = []
    while order:
        count = draw(st.integers(1, 5))
        schedule.append(list(order[:count]))
        order = order[count:]
    return entries, schedule


@settings(max_examples=40, deadline=None)
@given(traffic_=traffic(), data=st.data())
def test_the_admitted_set_does_not_change(
    opened: Callable[..., Ledger], traffic_: tuple[list[Entry], list[list[Entry]]], data: st.DataObject
) -> None:
    """Under duplication, reordering and restarts; and receipts with settle lose nothing, at any moment."""
    entries, schedule = traffic_
    with tempfile.TemporaryDirectory() as folder:
        decided: dict[tuple[str, int], Refusal | None] = {}
        settled: dict[tuple[str, int], Refusal | None] = {}
        with ExitStack() as stack:  # also when an example is given up
            ledger = stack.enter_context(opened(Path(folder)))
            for batch in schedule:
                for one, admission in zip(batch, ledger.admit(batch, 1.0), strict=True):
                    key = (one.device, one.sequence)
                    if key in decided:
                        assert admission == Admission(Verdict.DUPLICATE)
                    else:
                        verdict = Verdict.REFUSED if one.refusal else Verdict.APPLIED
                        assert admission == Admission(verdict, one.refusal)
                        decided[key] = one.refusal
                if data.draw(st.booleans()):
                    stack.close()
                    ledger = stack.enter_context(opened(Path(folder)))
                for device in ("a", "b"):
                    if data.draw(st.booleans()):
                        tell(ledger, device, [e.sequence for e in entries if e.device == device], settled)
                assert settled.items() <= decided.items()
            assert admitted(ledger) == {each.body for each in entries if each.refusal is None}
            for device in ("a", "b"):
                sequences = [e.sequence for e in entries if e.device == device]
                tell(ledger, device, sequences, settled)
                receipt = ledger.receipt("t", device, EPOCH)
                assert receipt.watermark == receipt.seen == len(sequences)
                assert receipt.applied == ()
            assert settled == {(e.device, e.sequence): e.refusal for e in entries}
            for device, (applied, refused, beyond) in ledger.frame_counts("t").items():
                mine = [e for e in entries if e.device == device]
                assert applied == sum(e.refusal is None for e in mine)
                assert refused == sum(e.refusal is not None for e in mine)
                assert beyond == 0


def tell(ledger: Ledger, device: str, sequences: list[int], settled: dict[tuple[str, int], Refusal | None]) -> None:
    """The receipt as it is on the wire, to a device that awaits what is not settled yet."""
    awaiting = [each for each in sequences if (device, each) not in settled]
    receipt = decode_receipt(encode_receipt(ledger.receipt("t", device, EPOCH)))
    settlement = settle(receipt, epoch=EPOCH, next_sequence=len(sequences), awaiting=awaiting)
    assert not settlement.renew
    settled.update({(device, each): None for each in settlement.applied})
    settled.update({(device, each): refusal for each, refusal in settlement.refused})
    confirmed = min((each for each in sequences if (device, each) not in settled), default=len(sequences))
    hello(ledger, confirmed, device=device)


def test_the_same_identity_with_other_bytes_is_a_conflict(ledger: Ledger) -> None:
    ledger.admit([entry(0)], 1.0)
    (admission,) = ledger.admit([entry(0, digest=b"other")], 1.0)
    assert admission == Admission(Verdict.REFUSED, Refusal.CONFLICT)
    assert admission.conflict
    assert ledger.admit([entry(0)], 1.0) == [Admission(Verdict.DUPLICATE)]
    assert admitted(ledger) == {entry(0).body}
    assert ledger.receipt("t", "d", EPOCH, conflict=(0, bytes(8))).conflict == (0, bytes(8))
    assert not ledger.receipt("t", "d", EPOCH).conflict


def test_devices_epochs_and_tasks_are_apart(ledger: Ledger) -> None:
    several = [entry(0), entry(0, device="e"), entry(0, epoch=0), entry(0, epoch=2**63), entry(0, epoch=2**63 - 1)]
    assert ledger.admit(several, 1.0) == [Admission(Verdict.APPLIED)] * 5
    assert admitted(ledger) == {each.body for each in several}
    assert {each.epoch for each in ledger.open_contributions("t", 9)} == {EPOCH, 0, 2**63, 2**63 - 1}
    assert ledger.receipt("t", "d", 2**63).epoch == 2**63
    assert ledger.receipt("t", "d", 12345).seen == 0
    assert ledger.receipt("another", "d", EPOCH).seen == 0


def test_a_closed_batch_still_makes_its_frames_duplicates(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1)], 1.0)
    close(ledger, 1)
    ledger.forget_bodies("t", 2)
    assert ledger.batch("t", 1) == []
    assert ledger.admit([entry(0), entry(1)], 2.0) == [Admission(Verdict.DUPLICATE)] * 2
    assert admitted(ledger) == set()


# Watermark and lists


def test_the_watermark_stops_at_the_first_gap(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE), entry(3), entry(5, refusal=Refusal.FUTURE)], 1.0)
    receipt = ledger.receipt("t", "d", EPOCH)
    assert (receipt.watermark, receipt.seen, receipt.applied) == (2, 6, (3,))
    assert receipt.refused == ((1, Refusal.STALE), (5, Refusal.FUTURE))
    ledger.admit([entry(2), entry(4)], 1.0)
    receipt = ledger.receipt("t", "d", EPOCH)
    assert (receipt.watermark, receipt.seen, receipt.applied) == (6, 6, ())


def test_refusals_are_told_until_they_are_confirmed(ledger: Ledger) -> None:
    ledger.admit([entry(0, refusal=Refusal.STALE), entry(1, refusal=Refusal.STALE), entry(2)], 1.0)
    hello(ledger, 1)
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.STALE),)
    hello(ledger, 0)  # an old HELLO that comes late takes nothing back
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.STALE),)
    hello(ledger, 3)
    assert ledger.receipt("t", "d", EPOCH).refused == ()


def test_a_hello_of_an_unknown_epoch_gets_an_empty_receipt(ledger: Ledger) -> None:
    hello(ledger, 0)
    receipt = ledger.receipt("t", "d", EPOCH)
    assert (receipt.watermark, receipt.seen, receipt.applied, receipt.refused) == (0, 0, (), ())


def test_more_refusals_than_a_receipt_lists_are_all_told_in_the_end(ledger: Ledger) -> None:
    """A device that confirms what it has settled hears of the rest; none ever passes for applied."""
    total = 2 * MAX_RECEIPT_LIST + 100
    entries = [entry(i, refusal=None if i % 5 == 0 else Refusal.STALE) for i in range(total)]
    ledger.admit(entries, 1.0)
    settled: dict[tuple[str, int], Refusal | None] = {}
    for _ in range(4):
        tell(ledger, "d", list(range(total)), settled)
    assert settled == {("d", each.sequence): each.refusal for each in entries}


# Updates of several frames


def test_an_update_weighs_once_at_its_first_frame(ledger: Ledger) -> None:
    parts = [entry(i, number=7, part=i, parts=3, weight=10 + i) for i in range(3)]
    ledger.admit([parts[2]], 5.0)
    assert ledger.pending("t").updates == 1
    ledger.admit([parts[0], parts[1]], 6.0)
    members = ledger.open_contributions("t", 9)
    assert [(each.leads, each.weight) for each in members] == [(True, 12), (False, 12), (False, 12)]
    pending = ledger.pending("t")
    assert (pending.updates, pending.frames, pending.opened_s) == (1, 3, 5.0)


def test_late_parts_keep_the_weight_across_a_batch(ledger: Ledger) -> None:
    ledger.admit([entry(0, number=7, part=0, parts=2, weight=10)], 1.0)
    close(ledger, 1)
    ledger.admit([entry(1, number=7, part=1, parts=2, weight=99)], 2.0)
    (late,) = ledger.open_contributions("t", 9)
    assert (late.leads, late.weight) == (False, 10)
    assert ledger.pending("t").updates == 0


def test_a_refused_first_part_leaves_the_lead_to_the_next(ledger: Ledger) -> None:
    ledger.admit([entry(0, number=7, part=0, parts=2, weight=10, refusal=Refusal.STALE)], 1.0)
    ledger.admit([entry(1, number=7, part=1, parts=2, weight=11)], 1.0)
    (member,) = ledger.open_contributions("t", 9)
    assert (member.leads, member.weight) == (True, 11)


@pytest.mark.parametrize(("part", "parts"), [(0, 2), (1, 3), (0, 1)])
def test_a_part_that_does_not_fit_its_update_is_refused(ledger: Ledger, part: int, parts: int) -> None:
    ledger.admit([entry(0, number=7, part=0, parts=2)], 1.0)
    misfit = entry(1, number=7, part=part, parts=parts)
    assert ledger.admit([misfit], 1.0) == [Admission(Verdict.REFUSED, Refusal.UPDATE)]
    assert ledger.admit([misfit], 1.0) == [Admission(Verdict.DUPLICATE)]
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.UPDATE),)
    assert admitted(ledger) == {entry(0).body}


def test_one_bad_entry_admits_none_of_its_transaction(ledger: Ledger) -> None:
    bad = entry(1, digest="text")  # type: ignore[arg-type]  # a strict table refuses it
    with pytest.raises(LedgerError):
        ledger.admit([entry(0), bad], 1.0)
    assert admitted(ledger) == set()
    assert ledger.receipt("t", "d", EPOCH).seen == 0


def test_contributions_of_a_device(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1), entry(0, device="e"), entry(0, epoch=4)], 1.0)
    assert [each.body for each in ledger.by_device("t", "d", EPOCH)] == [entry(0).body, entry(1).body]
    assert [each.sequence for each in ledger.open_contributions("t", 2)] == [0, 1]


def test_a_frame_that_counts_twice_is_found(
    opened: Callable[..., Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoint, "_ACTIONS", {"sabotage.double": "on"})
    with opened(tmp_path) as ledger:
        ledger.admit([entry(0), entry(0), entry(1)], 1.0)
        assert ledger.frame_counts("t") == {"d": (2, 0, 1)}
        assert "frame 0 is applied, but counted 2 times" in [each.what for each in ledger.check()]
