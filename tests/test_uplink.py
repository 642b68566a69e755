"""Uplink: the window, receipts, conditions and the policy; pure functions and state machines."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclient.uplink.conditions import Observed, observe
from edgeclient.uplink.policy import Limits, decide
from edgeclient.uplink.settle import Settlement, settle
from edgeclient.uplink.window import MAX_RETRY_S, Window
from edgeclient.wire.messages import Receipt, Refusal

# Window

COIN = st.booleans()


def test_the_oldest_go_first_and_no_more_than_the_window_holds() -> None:
    window = Window(size=2, retry_after_s=1.0)
    assert window.due(now=0.0, waiting=[5, 3, 9]) == [3, 5]
    window.sent(3, now=0.0)
    window.sent(5, now=0.0)
    assert window.due(now=0.5, waiting=[3, 5, 9]) == []
    assert window.due(now=0.5, waiting=[5, 9]) == [9]


def test_resends_double_up_to_8_s() -> None:
    window = Window(size=1, retry_after_s=1.0)
    now, pauses = 0.0, []
    for _ in range(7):
        assert window.due(now=now, waiting=[0]) == [0]
        window.sent(0, now=now)
        next_s = window.next_s(now=now)
        assert next_s is not None
        assert window.due(now=next_s - 0.001, waiting=[0]) == []
        pauses.append(next_s - now)
        now = next_s
    assert pauses == [1, 2, 4, 8, 8, 8, 8]
    assert MAX_RETRY_S == 8


def test_a_retry_time_over_8_s_is_respected() -> None:
    window = Window(size=1, retry_after_s=30.0)
    window.due(now=0.0, waiting=[0])
    window.sent(0, now=0.0)
    assert window.next_s(now=0.0) == 30.0


def test_nothing_under_way_has_no_resend_time() -> None:
    window = Window(size=1, retry_after_s=1.0)
    assert window.next_s(now=0.0) is None
    window.due(now=0.0, waiting=[1])
    window.sent(1, now=0.0)
    assert window.due(now=0.1, waiting=[]) == []
    assert window.next_s(now=0.1) is None


def test_a_restart_makes_everything_due_at_once() -> None:
    window = Window(size=3, retry_after_s=2.0)
    for sequence in window.due(now=0.0, waiting=[0, 1, 2, 3]):
        window.sent(sequence, now=0.0)
    assert window.due(now=0.1, waiting=[0, 1, 2, 3]) == []
    window.restart()
    assert window.due(now=0.1, waiting=[0, 1, 2, 3]) == [0, 1, 2]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 6), st.floats(0.1, 20))
def test_window_laws(data: st.DataObject, size: int, retry_after_s: float) -> None:
    """Never more than `size` without a receipt, none twice within its pause, and every one in the end."""
    window = Window(size=size, retry_after_s=retry_after_s)
    waiting = list(range(data.draw(st.integers(0, 15))))
    last: dict[int, float] = {}
    now = 0.0
    for _ in range(60):
        due = window.due(now=now, waiting=waiting)
        for sequence in due:
            if sequence in last:
                assert now - last[sequence] >= min(retry_after_s, MAX_RETRY_S) * (1 - 1e-9)
            last[sequence] = now
            window.sent(sequence, now=now)
        assert len([sequence for sequence in last if sequence in waiting]) <= size
        answered = data.draw(COIN)
        if waiting and answered:
            waiting.pop(data.draw(st.integers(0, min(size, len(waiting)) - 1)))
        now += data.draw(st.sampled_from([0.0, 0.05, 1.0, 9.0, 25.0]))
    waiting = waiting[-1:]
    assert not waiting or waiting[0] in last or window.due(now=now, waiting=waiting) == waiting


# Receipts

EPOCH = 7


def settled(receipt: Receipt, awaiting: list[int], next_sequence: int = 100) -> Settlement:
    return settle(receipt, epoch=EPOCH, next_sequence=next_sequence, awaiting=awaiting)


def test_the_watermark_and_the_list_apply() -> None:
    receipt = Receipt(EPOCH, watermark=3, seen=7, applied=(4, 6))
    assert settled(receipt, [1, 2, 3, 4, 5, 6]) == Settlement((1, 2, 4, 6), (), renew=False)


def test_a_listed_refusal_outweighs_the_watermark() -> None:
    receipt = Receipt(EPOCH, watermark=3, seen=7, refused=((1, Refusal.STALE), (5, Refusal.VALUE_LIMIT)))
    wanted = ((1, Refusal.STALE), (5, Refusal.VALUE_LIMIT))
    assert settled(receipt, [0, 1, 2, 3, 5]) == Settlement((0, 2), wanted, renew=False)


def test_only_what_awaits_is_settled() -> None:
    receipt = Receipt(EPOCH, watermark=50, seen=60, applied=(55,), refused=((3, Refusal.STALE),))
    assert settled(receipt, []) == Settlement((), (), renew=False)
    assert settled(receipt, [70]) == Settlement((), (), renew=False)


def test_a_receipt_of_another_epoch_settles_nothing() -> None:
    assert settled(Receipt(8, watermark=9, seen=999, conflict=True), [1, 2]) == Settlement((), (), renew=False)


def test_a_conflict_ends_the_epoch_and_settles_nothing() -> None:
    assert settled(Receipt(EPOCH, watermark=9, seen=10, conflict=True), [1]) == Settlement((), (), renew=True)


@pytest.mark.parametrize(("seen", "renew"), [(4, False), (5, False), (6, True)])
def test_a_ledger_that_has_seen_more_ends_the_epoch(seen: int, renew: bool) -> None:
    assert settled(Receipt(EPOCH, watermark=0, seen=seen), [1], next_sequence=5).renew is renew


# Conditions


def supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


def load(root: Path, text: str) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/loadavg").write_text(text)


def test_a_board_that_tells_nothing_is_on_mains(tmp_path: Path) -> None:
    assert observe(tmp_path) == Observed(False, None, None)


@pytest.mark.parametrize(
    ("status", "on_battery"),
    [("Discharging", True), ("Charging", False), ("Full", False), ("Not charging", False), ("Unknown", None)],
)
def test_battery_states(tmp_path: Path, status: str, on_battery: bool | None) -> None:
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "BAT0", type="Battery", status=status, capacity="41")
    assert observe(tmp_path) == Observed(on_battery, 41, None)


def test_the_battery_of_a_mouse_is_not_ours(tmp_path: Path) -> None:
    supply(tmp_path, "hid-mouse", type="Battery", scope="Device", status="Discharging", capacity="3")
    assert observe(tmp_path) == Observed(False, None, None)


@pytest.mark.parametrize("capacity", ["", "many", "-5", "²", "4.5"])
def test_a_charge_that_is_no_number_is_unknown(tmp_path: Path, capacity: str) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity=capacity)
    assert observe(tmp_path) == Observed(True, None, None)


def test_files_that_are_missing_or_garbage_are_unknown(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery")
    (tmp_path / "sys/class/power_supply/BAT0/capacity").write_bytes(b"\xff\xfe")
    assert observe(tmp_path) == Observed(None, None, None)


@pytest.mark.parametrize("text", ["", " ", "much 1 2", "\x00"])
def test_a_load_that_is_no_number_is_unknown(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)
    assert observe(tmp_path).load_per_core is None


def test_load_is_per_core(tmp_path: Path) -> None:
    load(tmp_path, "0.00 9 9 1/2 3")
    assert observe(tmp_path).load_per_core == 0
    load(tmp_path, "100000.0 0 0 1/2 3")
    per_core = observe(tmp_path).load_per_core
    assert per_core is not None
    assert 0 < per_core <= 100_000


def test_a_tree_that_cannot_be_read_is_never_an_error() -> None:
    """Android answers EACCES where others answer ENOENT; a name that is too long is another such error."""
    assert observe(Path("/" + "x" * 300)) == Observed(False, None, None)


def test_this_machine() -> None:
    assert observe().load_per_core is not None


# Policy

LIMITS = Limits(max_load=1.5, min_battery_percent=30)


@pytest.mark.parametrize(
    ("observed", "train", "send", "because"),
    [
        (Observed(None, None, None), True, True, "training"),
        (Observed(False, 5, 0.0), True, True, "training"),
        (Observed(None, 5, 0.0), True, True, "training"),
        (Observed(True, None, 0.0), True, True, "training"),
        (Observed(True, 30, 0.0), True, True, "training"),
        (Observed(True, 29, 0.0), False, False, "battery"),
        (Observed(True, 29, 9.0), False, False, "battery"),
        (Observed(True, 80, 1.6), False, True, "load"),
        (Observed(False, None, 1.5), True, True, "training"),
    ],
)
def test_policy(observed: Observed, train: bool, send: bool, because: str) -> None:
    decision = decide(observed, LIMITS, new_version=True)
    assert (decision.train, decision.send) == (train, send)
    assert because in decision.because


def test_a_version_that_was_trained_is_not_trained_again() -> None:
    decision = decide(Observed(False, None, 0.0), LIMITS, new_version=False)
    assert (decision.train, decision.send) == (False, True)
    assert "waiting" in decision.because


def test_a_load_limit_of_0_switches_the_check_off() -> None:
    assert decide(Observed(False, None, 99.0), Limits(0, 30), new_version=True).train
