"""The ledger: every identity at most once, whatever comes twice, out of order, or is killed."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.ledger.lock import Lock
from broker.ledger.rows import Admission, Contribution, Entry, Verdict, Version
from broker.ledger.sqlite.check import check
from broker.ledger.sqlite.ledger import POINTS, Ledger, LedgerError, LedgerUnavailable
from broker.ledger.sqlite.schema import SCHEMA_VERSION
from broker.rounds.ages import Ages
from edgeclient import failpoint
from edgeclient.failpoint import VARIABLE
from edgeclient.uplink.settle import settle
from edgeclient.wire.limits import MAX_RECEIPT_LIST
from edgeclient.wire.messages import Hello, Refusal, decode_receipt, encode_receipt

EPOCH = 2**64 - 3


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as made:
        yield made


def entry(  # noqa: PLR0913 (each has a default)
    sequence: int,
    *,
    device: str = "d",
    epoch: int = EPOCH,
    number: int | None = None,
    part: int = 0,
    parts: int = 1,
    weight: int = 10,
    refusal: Refusal | None = None,
    digest: bytes | None = None,
) -> Entry:
    return Entry(
        task="t", device=device, epoch=epoch, sequence=sequence,
        digest=digest or f"{device}{sequence}".encode(), number=sequence if number is None else number, part=part,
        parts=parts, base_version=0, num_examples=5, weight=weight, refusal=refusal,
        body=f"{device}/{epoch}/{sequence}".encode(),
    )  # fmt: skip


def version(number: int, batch: int | None = None, members: Sequence[Contribution] = ()) -> Version:
    weights = [member.weight for member in members if member.leads]
    return Version(number, f"{number:064x}", batch, 100.0 + number, len(weights), len(members), sum(weights), {})


def close(ledger: Ledger, number: int) -> None:
    """What waits becomes the next version."""
    members = ledger.open_contributions("t", 10_000)
    ledger.close_batch("t", members, version(number, number, members))


def admitted(ledger: Ledger) -> set[bytes]:
    contributions = ledger.open_contributions("t", 10_000)
    bodies = [each.body for each in contributions]
    assert len(set(bodies)) == len(bodies)
    return set(bodies)


# Exactly once


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
@given(traffic(), st.data())
def test_the_admitted_set_does_not_change(traffic_: tuple[list[Entry], list[list[Entry]]], data: st.DataObject) -> None:
    """Under duplication, reordering and restarts; and receipts with settle lose nothing, at any moment."""
    entries, schedule = traffic_
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        decided: dict[tuple[str, int], Refusal | None] = {}
        settled: dict[tuple[str, int], Refusal | None] = {}
        with ExitStack() as opened:  # also when an example is given up
            ledger = opened.enter_context(Ledger(path))
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
                    opened.close()
                    ledger = opened.enter_context(Ledger(path))
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
    ledger.hello("t", device, Hello(EPOCH, len(sequences), confirmed))


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
    ledger.add_task("t", "b", {}, version(0))
    ledger.admit([entry(0), entry(1)], 1.0)
    ledger.close_batch("t", ledger.open_contributions("t", 9), version(1, 1))
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
    ledger.hello("t", "d", Hello(EPOCH, 3, 1))
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.STALE),)
    ledger.hello("t", "d", Hello(EPOCH, 3, 0))  # an old HELLO that comes late takes nothing back
    assert ledger.receipt("t", "d", EPOCH).refused == ((1, Refusal.STALE),)
    ledger.hello("t", "d", Hello(EPOCH, 3, 3))
    assert ledger.receipt("t", "d", EPOCH).refused == ()


def test_a_hello_of_an_unknown_epoch_gets_an_empty_receipt(ledger: Ledger) -> None:
    ledger.hello("t", "d", Hello(EPOCH, 3, 0))
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
    ledger.add_task("t", "b", {}, version(0))
    ledger.admit([entry(0, number=7, part=0, parts=2, weight=10)], 1.0)
    ledger.close_batch("t", ledger.open_contributions("t", 9), version(1, 1))
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


# Tasks, versions, metrics


def test_tasks_and_versions(ledger: Ledger) -> None:
    ledger.add_task("t", "bundle", {"goal": 3}, version(0))
    with pytest.raises(LedgerError, match="task t is already there"):
        ledger.add_task("t", "other", {}, version(0))
    assert ledger.tasks() == [("t", "bundle", {"goal": 3})]
    for number in (1, 2, 3):
        ledger.close_batch("t", [], version(number, number))
    ledger.add_metrics("t", 2, {"accuracy": 0.5})
    assert [each.number for each in ledger.versions("t")] == [0, 1, 2, 3]
    assert [each.number for each in ledger.versions("t", last=2)] == [2, 3]
    assert ledger.versions("t")[2].metrics == {"accuracy": 0.5}
    assert ledger.versions("t")[0].batch is None


def test_a_version_that_cannot_be_written_closes_no_batch(ledger: Ledger) -> None:
    ledger.add_task("t", "b", {}, version(0))
    ledger.admit([entry(0)], 1.0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.close_batch("t", ledger.open_contributions("t", 9), version(0, 1))
    assert admitted(ledger) == {entry(0).body}


def test_one_bad_entry_admits_none_of_its_transaction(ledger: Ledger) -> None:
    bad = entry(1, digest="text")  # type: ignore[arg-type]  # a strict table refuses it
    with pytest.raises(sqlite3.IntegrityError):
        ledger.admit([entry(0), bad], 1.0)
    assert admitted(ledger) == set()
    assert ledger.receipt("t", "d", EPOCH).seen == 0


def test_contributions_of_a_device(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1), entry(0, device="e"), entry(0, epoch=4)], 1.0)
    assert [each.body for each in ledger.by_device("t", "d", EPOCH)] == [entry(0).body, entry(1).body]
    assert [each.sequence for each in ledger.open_contributions("t", 2)] == [0, 1]


# What opening can find


def test_a_reader_looks_on_while_the_aggregator_writes(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as writer, Ledger(tmp_path / "l.db", read_only=True) as reader:
        writer.admit([entry(0)], 1.0)
        assert reader.receipt("t", "d", EPOCH).watermark == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.admit([entry(1)], 1.0)


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(path, read_only=True)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "missing" / "ledger.db")
    path.write_bytes(b"no database" * 200)
    with pytest.raises(LedgerError, match="is not a ledger"):
        Ledger(path)


def test_a_newer_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(LedgerError, match=f"schema {SCHEMA_VERSION + 1}"):
        Ledger(path)


# Kills

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_ledger import close, entry, version
from broker.ledger.sqlite import compaction
from broker.ledger.sqlite.ledger import Ledger
from edgeclient.wire.messages import Hello

compaction.FOLD_AT = 1
with Ledger(Path(sys.argv[1])) as ledger:
    if not ledger.tasks():
        ledger.add_task("t", "b", {}, version(0))
    for number in range(len(ledger.versions("t")), 4):
        print("round", number, flush=True)
        ledger.hello("t", "d", Hello(2**64 - 3, 2 * number, 2 * (number - 1)))
        ledger.admit([entry(2 * (number - 1)), entry(2 * (number - 1) + 1)], 1.0)
        close(ledger, number)
        ledger.compact("t", before_batch=0, before_base=0)
"""


def run_child(path: Path, failpoints: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: failpoints}
    command = [sys.executable, "-c", CHILD, str(path), str(Path(__file__).parent)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# Frames admitted, batches closed and frame rows after a kill in the second round of two frames each.
INTERRUPTED = {
    "ledger.before-hello": (2, 1, 0),
    "ledger.after-hello": (2, 1, 0),
    "ledger.before-commit": (2, 1, 0),
    "ledger.after-commit": (4, 1, 2),
    "ledger.before-close": (4, 1, 2),
    "ledger.after-close": (4, 2, 2),
    "ledger.before-compact": (4, 2, 2),
    "ledger.after-compact": (4, 2, 0),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_the_ledger_is_before_or_after(tmp_path: Path, point: str) -> None:
    """Every point of the list is passed, and what it interrupts has happened wholly or not at all."""
    path = tmp_path / "ledger.db"
    child = run_child(path, f"{point}=kill@2")
    assert child.returncode == -signal.SIGKILL, child.stderr
    if "migration" in point:
        assert child.stdout == ""
    else:
        assert child.stdout.splitlines()[-1] == "round 2"
        with Ledger(path) as ledger:
            frames, closed, rows = INTERRUPTED[point]
            assert ledger.pending("t").frames == frames - 2 * closed
            assert len(ledger.versions("t")) == 1 + closed
            assert [len(ledger.batch("t", number)) for number in (1, 2)] == [2, 2 if closed == 2 else 0]
            assert ledger.size()["frame_rows"] == rows
    again = run_child(path, "")
    assert again.returncode == 0, again.stderr
    with Ledger(path) as ledger:
        members = [each.body for number in (1, 2, 3) for each in ledger.batch("t", number)]
        assert sorted(members) == [entry(sequence).body for sequence in range(6)]
        assert ledger.frame_counts("t") == {"d": (6, 0, 0)}
        assert ledger.lost_to_restore("t") == {}
    assert check(path) == []


def test_a_frame_that_counts_twice_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "_ACTIONS", {"sabotage.double": "on"})
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.admit([entry(0), entry(0), entry(1)], 1.0)
        assert ledger.frame_counts("t") == {"d": (2, 0, 1)}
    assert "frame 0 is applied, but counted 2 times" in [each.what for each in check(tmp_path / "ledger.db")]


def test_a_full_disk_writes_nothing_and_passes(ledger: Ledger) -> None:
    ledger.admit([entry(0)], 1.0)
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(entry(1), body=bytes(1_000_000))
    with pytest.raises(LedgerUnavailable, match=r"ledger.db cannot be written: .* full"):
        ledger.admit([large], 1.0)
    assert ledger.receipt("t", "d", EPOCH).seen == 1
    ledger._db.execute("PRAGMA max_page_count = 100000")
    assert ledger.admit([large], 1.0) == [Admission(Verdict.APPLIED)]


def test_one_aggregator_at_a_time(tmp_path: Path) -> None:
    with Lock(tmp_path / "ledger.db"), pytest.raises(LedgerError, match="in use by another edgebroker"):
        Lock(tmp_path / "ledger.db")
    Lock(tmp_path / "ledger.db").close()


def test_a_clock_that_jumps_changes_no_age() -> None:
    ages = Ages()
    assert ages.of("opened", 1000.0, wall_s=1005.0, steady_s=70.0) == 5
    assert ages.of("opened", 1000.0, wall_s=1005.0 + 3e7, steady_s=71.0) == 6
    assert ages.of("opened", 1000.0, wall_s=1005.0 - 3e7, steady_s=72.0) == 7
    assert ages.of("other", 1000.0, wall_s=999.0, steady_s=72.0) == 0  # a correction, not a jump
    assert ages.of("opened", 2000.0, wall_s=1006.0, steady_s=73.0) == math.inf  # written before the clock was set back
