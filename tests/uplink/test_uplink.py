"""Uplink: the window, the outbox and receipts; pure functions and state machines."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.pace import Pace
from edgeclient.settings import Device, structure
from edgeclient.uplink.outbox import Bounds, LinkQuality, overflow, superseded
from edgeclient.uplink.settle import Settlement, settle
from edgeclient.uplink.terms import Terms
from edgeclient.uplink.window import MAX_RETRY_S, MAX_SILENT_S, Window
from edgeclient.wire.announcement import Announcement, Blob, Policy
from edgeclient.wire.life import Row, State
from edgeclient.wire.messages import Receipt, Refusal

# Window

COIN = st.booleans()


def HALF() -> float:  # noqa: N802 (a constant draw: no jitter)
    return 0.5


def test_the_first_go_first_and_no_more_than_the_window_holds() -> None:
    window = Window(most=2, retry_after_s=1.0, draw=HALF)
    assert window.due(now=0.0, waiting=[3, 5, 9]) == [3, 5]
    window.sent(3, now=0.0)
    window.sent(5, now=0.0)
    assert window.due(now=0.5, waiting=[3, 5, 9]) == []
    assert window.due(now=0.5, waiting=[5, 9]) == [9]


def test_resends_double_up_to_8_s() -> None:
    window = Window(most=1, retry_after_s=1.0, draw=HALF)
    now, pauses = 0.0, []
    for _ in range(7):
        assert window.due(now=now, waiting=[0]) == [0]
        window.sent(0, now=now)
        next_s = window.next_s()
        assert next_s is not None
        assert window.due(now=next_s - 0.001, waiting=[0]) == []
        pauses.append(next_s - now)
        now = next_s
    assert pauses == [1, 2, 4, 8, 8, 8, 8]
    assert MAX_RETRY_S == 8


def test_a_retry_time_over_8_s_is_respected() -> None:
    window = Window(most=1, retry_after_s=30.0, draw=HALF)
    window.due(now=0.0, waiting=[0])
    window.sent(0, now=0.0)
    assert window.next_s() == 30.0


def test_nothing_under_way_has_no_resend_time() -> None:
    window = Window(most=1, retry_after_s=1.0, draw=HALF)
    assert window.next_s() is None
    window.due(now=0.0, waiting=[1])
    window.sent(1, now=0.0)
    assert window.due(now=0.1, waiting=[]) == []
    assert window.next_s() is None


def test_after_a_reconnect_everything_is_due_once_hello_is_answered() -> None:
    window = Window(most=3, retry_after_s=2.0, draw=HALF)
    for sequence in window.due(now=0.0, waiting=[0, 1, 2, 3]):
        window.sent(sequence, now=0.0)
    window.restart(now=0.1)
    assert window.due(now=0.2, waiting=[0, 1, 2, 3]) == []
    assert window.next_s() == 2.1
    window.answered()
    assert window.due(now=0.3, waiting=[1, 2, 3]) == [1]  # halved: the link broke with three under way
    window.restart(now=0.4)
    assert window.due(now=2.5, waiting=[1, 2, 3]) == [1]  # no answer in time


def test_resends_wait_for_what_receipts_usually_take() -> None:
    """A slow link is not a broken one: nothing is sent twice that is only on its way."""
    window = Window(most=1, retry_after_s=0.5, draw=HALF)
    now = 0.0
    for sequence in range(20):
        window.due(now=now, waiting=[sequence])
        window.sent(sequence, now=now)
        now += 3.0
        window.due(now=now, waiting=[])
    window.due(now=now, waiting=[20])
    window.sent(20, now=now)
    assert window.due(now=now + 2.9, waiting=[20]) == []
    assert window.due(now=now + 4.0, waiting=[20]) == [20]


def test_receipts_widen_the_window_and_silence_narrows_it() -> None:
    window = Window(most=64, retry_after_s=1.0, draw=HALF)
    sequence, now = 0, 0.0
    for _ in range(300):
        due = window.due(now=now, waiting=range(sequence, sequence + 100))
        for each in due:
            window.sent(each, now=now)
        sequence += len(due)
        now += 0.1
    assert window.size > 20
    wide = window.size
    late = window.due(now=now + 2, waiting=range(sequence - 5, sequence))
    for each in late:
        window.sent(each, now=now + 2)
    assert wide // 2 <= window.size <= wide // 2 + 2  # once for all that is late together


@pytest.mark.case("fleet 05")
@pytest.mark.case("fleet 65")
def test_what_nobody_answers_is_sent_ever_more_rarely() -> None:
    """Not at the cost of a dead aggregator's next start: whatever it says, a receipt begins anew."""
    window = Window(most=1, retry_after_s=2.0, draw=HALF)
    now, waits = 0.0, []
    for _ in range(14):
        assert window.due(now=now, waiting=[0]) == [0]
        window.sent(0, now=now)
        due_s = window.next_s()
        assert due_s is not None
        waits.append(due_s - now)
        now = due_s
    assert waits == [2, 4, 8, 8, 8, 8, 8, 16, 32, 64, 128, 256, 300, 300]
    assert window.unanswered == 13
    window.restart(now=now)  # a new connection is no answer
    assert window.unanswered == 13
    window.answered()
    window.due(now=now, waiting=[])
    window.due(now=now, waiting=[1])
    window.sent(1, now=now)
    assert window.next_s() == now + 8  # as long as a receipt took at least, and no longer
    assert window.unanswered == 0


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 6), st.floats(0.1, 20))
def test_window_laws(data: st.DataObject, most: int, retry_after_s: float) -> None:
    """Never more than `most` under way, none twice within its pause, and every one in the end."""
    window = Window(most=most, retry_after_s=retry_after_s)
    waiting = list(range(data.draw(st.integers(0, 15))))
    last: dict[int, float] = {}
    now = 0.0
    for _ in range(60):
        due = window.due(now=now, waiting=waiting)
        for sequence in due:
            if sequence in last:
                assert now - last[sequence] >= min(retry_after_s, MAX_RETRY_S) * 0.75 * (1 - 1e-9)
            last[sequence] = now
            window.sent(sequence, now=now)
        assert sum(window.carries(sequence) for sequence in waiting) <= most
        answered = data.draw(COIN)
        if waiting and answered:
            waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            window.answered()
        now += data.draw(st.sampled_from([0.0, 0.05, 1.0, 9.0, 25.0]))
    for _ in range(len(waiting) * 2):
        for sequence in window.due(now=now, waiting=waiting):
            window.sent(sequence, now=now)
            waiting.remove(sequence)
        now += 1.25 * MAX_SILENT_S
    assert not waiting


# Outbox


def kept(id_: int, *, layer: int = 0, base: int = 0, created_s: float = 0.0, size: int = 10) -> Row:
    return Row(id_, State.QUEUED, None, layer, base, created_s, size)


def test_what_a_new_round_supersedes() -> None:
    rows = [
        kept(0, base=1),
        kept(1, base=1, layer=1),
        kept(2, base=7),
        kept(3, base=7, layer=1),
        kept(4, base=8, layer=1),
    ]
    assert superseded(rows, version=8, max_staleness=5) == [0, 1, 3]
    assert superseded(rows, version=8, max_staleness=20) == [1, 3]


ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(-1e9, 1e9), st.integers(0, 1000)), max_size=12)


@given(ROWS, st.integers(0, 3000), st.floats(0, 1e9), st.floats(-1e9, 2e9))
def test_the_outbox_keeps_to_its_bounds(
    rows: list[tuple[int, float, int]], max_bytes: int, max_age_s: float, now_s: float
) -> None:
    """Whatever a clock says: what stays fits, nothing more important or younger goes before something less so."""
    frames = [kept(i, layer=layer, created_s=made, size=size) for i, (layer, made, size) in enumerate(rows)]
    gone = set(overflow(frames, Bounds(max_bytes, max_age_s), now_s=now_s))
    stay = [each for each in frames if each.id not in gone]
    assert sum(each.size for each in stay) <= max_bytes
    assert all(now_s - each.created_s <= max_age_s for each in stay)
    for_room = [each for each in frames if each.id in gone and now_s - each.created_s <= max_age_s]
    if for_room:
        last = min(for_room, key=lambda each: (each.layer, -each.id))
        assert sum(each.size for each in stay) + last.size > max_bytes
        assert all((-each.layer, each.id) > (-last.layer, last.id) for each in stay)


def test_a_link_that_breaks_often_gets_small_frames() -> None:
    quality = LinkQuality()
    for _ in range(3):
        quality = quality.broken(80_000)
    assert quality.frame_bytes(65_536) == 16_384
    assert quality.frame_bytes(4_000) == 4_000
    for _ in range(3):
        quality = quality.broken(50_000_000)
    assert quality.frame_bytes(65_536) == 65_536


# Receipts

EPOCH = 7


def settled(receipt: Receipt, awaiting: list[int], next_sequence: int = 100) -> Settlement:
    return settle(receipt, epoch=EPOCH, next_sequence=next_sequence, awaiting=awaiting)


def test_the_watermark_and_the_list_apply() -> None:
    receipt = Receipt(EPOCH, watermark=3, seen=7, applied=(4, 6))
    assert settled(receipt, [1, 2, 3, 4, 5, 6]) == Settlement((1, 2, 4, 6))


def test_a_listed_refusal_outweighs_the_watermark() -> None:
    receipt = Receipt(EPOCH, watermark=3, seen=7, refused=((1, Refusal.STALE), (5, Refusal.VALUE_LIMIT)))
    wanted = ((1, Refusal.STALE), (5, Refusal.VALUE_LIMIT))
    assert settled(receipt, [0, 1, 2, 3, 5]) == Settlement((0, 2), wanted)


def test_only_what_awaits_is_settled() -> None:
    receipt = Receipt(EPOCH, watermark=50, seen=60, applied=(55,), refused=((3, Refusal.STALE),))
    assert settled(receipt, []) == Settlement(())
    assert settled(receipt, [70]) == Settlement(())


def test_a_receipt_of_another_epoch_settles_nothing() -> None:
    assert settled(Receipt(8, watermark=9, seen=999, conflict=(1, D)), [1, 2]) == Settlement(())


D = b"12345678"


def test_a_conflict_ends_the_epoch_of_the_store_that_made_the_frame() -> None:
    receipt = Receipt(EPOCH, watermark=9, seen=10, conflict=(1, D))

    def told(digest: Callable[[int], bytes | None]) -> Settlement:
        return settle(receipt, epoch=EPOCH, next_sequence=10, awaiting=[1], digest=digest)

    assert told(lambda sequence: D if sequence == 1 else None) == Settlement(renew=True)
    # The other store with this epoch made the frame that counted, or has forgotten what it made.
    assert told(lambda _: b"87654321") == Settlement((1,))
    assert told(lambda _: None) == Settlement((1,))


@pytest.mark.parametrize(("seen", "renew"), [(4, False), (5, False), (6, True)])
def test_a_ledger_that_has_seen_more_ends_the_epoch(seen: int, renew: bool) -> None:
    assert settled(Receipt(EPOCH, watermark=0, seen=seen), [1], next_sequence=5).renew is renew


# Terms


def terms(**upload: int) -> Terms:
    layout = Layout((Parameter("w", (10, 100)),))
    announced = Announcement(
        "har", 0, "5e", "1e", 1, BLOB, BLOB, layout.digest, layout.size, policy=Policy(update_bytes=900)
    )
    values = {"device": "pi", "task": "har", "directory": "x", "data": {"source": "x.npz"}, "upload": upload}
    return Terms(announced, structure(values, Device, where="test"), layout, 1000)


BLOB = Blob("ab" * 32, 1, 1)


def test_the_smaller_budget_counts() -> None:
    assert terms().budget_bytes == 900
    assert terms(max_update_bytes=800).budget_bytes == 800
    assert terms(max_update_bytes=1000).budget_bytes == 900


def test_a_full_outbox_takes_no_entries() -> None:
    """Then the whole delta joins the residual."""
    full, room = [kept(0, size=60), kept(1, size=60)], [kept(0, size=60)]
    bounded = terms(max_outbox_bytes=120)
    assert bounded.aim(Pace(), share=1.0, free_bytes=None, held=full).entries == 0
    assert bounded.aim(Pace(), share=1.0, free_bytes=None, held=room).entries == 10
