"""Budgets: bytes over metered links, bytes written to the card, and what a task takes of a board."""

from datetime import date

import pytest

from edgeclient.conditions.board import Observed
from edgeclient.conditions.budgets import Allowance, Usage, lacking


def test_a_days_allowance_is_spent_and_comes_back() -> None:
    day = 86_400
    allowance = Allowance(day, float(day), 0.0)
    assert allowance.wait_s(now=0.0) == 0
    allowance = allowance.spent(day + 10, now=0.0)
    assert allowance.wait_s(now=0.0) == 10
    assert allowance.wait_s(now=11.0) == 0
    assert allowance.spent(day, now=1e9).wait_s(now=1e9) == 0  # never more than a day's
    assert Allowance(0, 0.0, 0.0).spent(1 << 40, now=0.0).wait_s(now=0.0) == 0


@pytest.mark.parametrize(
    ("size", "observed", "a_day", "begun", "why"),
    [
        (10**6, Observed(), 0, False, None),
        (10**9, Observed(), 0, False, None),
        (10**6, Observed(free_bytes=28_000_000, free_disk_bytes=16_000_000), 10**9, False, None),
        (10**6, Observed(free_bytes=27_999_999), 0, False, "memory"),
        (10**6, Observed(free_disk_bytes=15_999_999), 0, False, "on the disk"),
        (10**6, Observed(free_disk_bytes=0), 0, True, None),
        (10**6, Observed(), 8_000_000, False, "max_written_bytes_per_day"),
    ],
)
def test_what_a_board_lacks(size: int, observed: Observed, a_day: int, begun: bool, why: str | None) -> None:
    told = lacking(size, observed, a_day, begun=begun)
    assert (told is None) == (why is None)
    assert why is None or why in (told or "")


def test_a_lack_is_said_in_numbers() -> None:
    what = "it needs about 26702 MiB of memory for training, 512 are free: a smaller model, or a larger board"
    assert lacking(10**9, Observed(free_bytes=1 << 29), 0, begun=False) == what


@pytest.mark.parametrize(
    ("day", "today", "left"),
    [
        ("2026-11-29", "2026-11-29", (5, 9)),
        ("2026-11-29", "2026-11-30", (0, 9)),
        ("2026-11-29", "2026-12-01", (0, 0)),
        ("2026-11-29", "2026-11-28", (5, 9)),  # an owner who puts the clock back gains nothing
        ("2026-11-29", "1970-01-01", (5, 9)),  # nor a board without a clock that has not heard the time
    ],
)
def test_a_day_and_a_month_of_metered_bytes(day: str, today: str, left: tuple[int, int]) -> None:
    on = Usage(day, 5, 9).on(date.fromisoformat(today))
    assert (on.day_bytes, on.month_bytes) == left


def test_a_clock_that_was_wrong_and_put_right_ends_no_budget_for_ever() -> None:
    wrong = Usage("2026-11-28", 5, 9).on(date(2099, 1, 1)).plus(7)
    right = wrong.on(date(2026, 11, 28))
    assert right.day_bytes == 7
    assert right.on(date(2026, 11, 29)).day_bytes == 0
    assert right.on(date(2026, 12, 1)).month_bytes == 0
    assert wrong.on(date(1970, 1, 1)) == wrong
