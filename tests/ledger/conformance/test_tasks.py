"""Tasks change, go and come again; two connections may do it at once, and what was counted stays exact."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledgers import EPOCH, close, entry, hello, version

from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Verdict, Withdrawal
from edgeclient.wire.messages import Refusal


def test_settings_change_in_one_transaction(ledger: Ledger) -> None:
    assert ledger.change_task("t", lambda old: {**old, "goal": 2}).settings == {"goal": 2}
    assert ledger.change_task("t", lambda old: {**old, "deadline_s": 9.0}).name == "t"
    assert ledger.tasks() == [("t", "b", {"goal": 2, "deadline_s": 9.0})]

    def fails(_: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("not allowed")

    with pytest.raises(ValueError, match="not allowed"):
        ledger.change_task("t", fails)
    assert ledger.tasks() == [("t", "b", {"goal": 2, "deadline_s": 9.0})]
    with pytest.raises(LedgerError, match="no task tt is served here: did you mean t\\?"):
        ledger.change_task("tt", lambda old: old)


def test_what_is_counted_is_untouched_by_a_change(ledger: Ledger) -> None:
    ledger.admit([entry(0, weight=10)], 1.0)
    before = ledger.open_contributions("t", 9)[0]
    ledger.change_task("t", lambda _: {"policy": {"max_staleness": 0}})
    ledger.admit([entry(1, weight=99)], 2.0)
    after = ledger.open_contributions("t", 9)
    assert (after[0].weight, after[0].terms, after[1].weight) == (before.weight, before.terms, 99)
    close(ledger, 1)


def test_metrics_of_other_data_are_forgotten(ledger: Ledger) -> None:
    ledger.add_metrics("t", 0, {"loss": 1.0})
    ledger.change_task("t", lambda _: {"goal": 3})
    assert ledger.versions("t")[0].metrics == {"loss": 1.0}
    ledger.change_task("t", lambda _: {"goal": 3, "evaluation": "/other.npz"})
    assert ledger.versions("t")[0].metrics == {}


def test_no_change_is_lost_between_two_who_change_at_once(opened: Callable[..., Ledger], tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        made.add_task("t", "b", {}, version(0))

    def change(name: str) -> None:
        with opened(tmp_path) as mine:
            for number in range(20):
                mine.change_task("t", lambda old: {**old, name: number})  # noqa: B023 (called at once)

    threads = [threading.Thread(target=change, args=(name,)) for name in ("a", "b")]
    with opened(tmp_path) as aggregator:
        for thread in threads:
            thread.start()
        for sequence in range(30):  # which goes on counting
            aggregator.admit([entry(sequence)], 1.0)
        for thread in threads:
            thread.join()
        assert aggregator.tasks()[0].settings == {"a": 19, "b": 19}
        assert aggregator.frame_counts("t") == {"d": (30, 0, 0)}


def test_a_removed_task_is_taken_off_then_forgotten_and_another_goes_on_above(ledger: Ledger) -> None:
    ledger.add_task("other", "b", {}, version(0))
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE), entry(2), entry(9), entry(0, device="e")], 1.0)
    close(ledger, 1)
    ledger.admit([entry(3)], 2.0)
    hello(ledger, 3)
    ledger.remove_task("t")
    assert ([row.name for row in ledger.tasks()], [row.name for row in ledger.removed()]) == (["other"], ["t"])
    assert f"{1:064x}" in ledger.digests()  # until it has left the MQTT broker
    for refused in (lambda: ledger.remove_task("t"), lambda: ledger.change_task("t", lambda old: old)):
        with pytest.raises(LedgerError, match="no task t is served here"):
            refused()
    with pytest.raises(LedgerError, match="is being removed"):
        ledger.add_task("t", "b2", {}, version(0))
    # An aggregator that has not noticed yet counts on, and loses nothing by it.
    assert ledger.admit([entry(4)], 3.0)[0].verdict is Verdict.APPLIED
    assert ledger.check() == []

    assert ledger.forget_task("t") == [f"{1:064x}"]  # version 0 and the bundle are the other task's, too
    assert (ledger.removed(), ledger.versions("t"), ledger.pending("t").frames) == ([], [], 0)
    assert ledger.check() == []

    ledger.add_task("t", "b2", {}, version(0))
    assert [(each.number, each.batch) for each in ledger.versions("t")] == [(1001, None)]
    # What was settled stays so; what was not is new.
    verdicts = [each.verdict for each in ledger.admit([entry(0), entry(4), entry(5)], 4.0)]
    assert verdicts == [Verdict.DUPLICATE, Verdict.DUPLICATE, Verdict.APPLIED]
    assert hello(ledger, 5) == 0  # nothing is lost
    assert ledger.receipt("t", "d", EPOCH).watermark == 6
    assert ledger.admit([Withdrawal("t", "d", EPOCH, 1, b"d1")], 5.0)[0].verdict is Verdict.APPLIED
    assert ledger.frame_counts("t")["d"] == (5, 1, 0)
    assert ledger.check() == []


def test_removed_twice_versions_rise_still(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.remove_task("t")
        ledger.forget_task("t")
        ledger.add_task("t", "b", {}, version(0))
    assert [each.number for each in ledger.versions("t")] == [2000]


def test_new_data_is_an_update_with_more_examples_than_its_device_ever_had(ledger: Ledger) -> None:
    assert (ledger.since("t"), ledger.grown("t")) == (0, [])
    first = [entry(0), entry(0, device="e")]  # of 5 examples each
    ledger.admit(first, 1.0)
    assert ledger.grown("t") == ["d", "e"]
    close(ledger, 1)
    ledger.admit([entry(1), replace(entry(1, device="e"), num_examples=6), entry(0, device="f")], 2.0)
    assert ledger.grown("t") == ["e", "f"]
    ledger.go_on("t", 1)
    assert ledger.since("t") == 1
    ledger.jump(1e9)
    assert ledger.since("t") == ledger.versions("t")[-1].number
    close(ledger, ledger.versions("t")[-1].number + 1)
