"""Tasks, versions and views of them; a kill anywhere leaves them before or after, never between."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ledgers
import pytest
from ledgers import EPOCH, INTERRUPTED, admitted, close, entry, version

from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Start
from broker.views import Contact, Rival
from edgeclient.failpoint import VARIABLE
from edgeclient.wire.messages import Refusal


def test_tasks_and_versions(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="task t is already there"):
        ledger.add_task("t", "other", {}, version(0))
    assert ledger.tasks() == [("t", "b", {})]
    for number in (1, 2, 3):
        ledger.close_batch("t", [], version(number, number))
    ledger.add_metrics("t", 2, {"accuracy": 0.5})
    assert [each.number for each in ledger.versions("t")] == [0, 1, 2, 3]
    assert [each.number for each in ledger.versions("t", last=2)] == [2, 3]
    assert ledger.versions("t")[2].metrics == {"accuracy": 0.5}
    assert ledger.versions("t")[0].batch is None


def test_a_version_that_cannot_be_written_closes_no_batch(ledger: Ledger) -> None:
    ledger.admit([entry(0)], 1.0)
    with pytest.raises(LedgerError):
        ledger.close_batch("t", ledger.open_contributions("t", 9), version(0, 1))
    assert admitted(ledger) == {entry(0).body}


def test_contributions_of_a_device(ledger: Ledger) -> None:
    ledger.admit([entry(0), entry(1), entry(0, device="e"), entry(0, epoch=4)], 1.0)
    assert [each.body for each in ledger.by_device("t", "d", EPOCH)] == [entry(0).body, entry(1).body]
    assert [each.sequence for each in ledger.open_contributions("t", 2)] == [0, 1]


def test_a_reader_looks_on_while_the_aggregator_writes(
    opened: Callable[..., Ledger], ledger: Ledger, tmp_path: Path
) -> None:
    with opened(tmp_path, read_only=True) as reader:
        ledger.admit([entry(0)], 1.0)
        assert reader.receipt("t", "d", EPOCH).watermark == 1
        with pytest.raises(LedgerError, match="cannot be written"):
            reader.admit([entry(1)], 1.0)
        with reader.moment():
            before = reader.pending("t")
            ledger.admit([entry(2)], 1.0)
            assert reader.pending("t") == before
        assert reader.pending("t").frames == before.frames + 1


def test_views_tell_what_was_counted_and_what_is_new(ledger: Ledger) -> None:
    assert (ledger.devices(), ledger.device("t", "d").epochs) == ([], 0)
    ledger.admit([entry(0), entry(1, refusal=Refusal.STALE), entry(0, device="e")], 7.0)
    made, moved = ledger.news({"t": 0}, {})
    assert (made, [(each.epoch[1], each.mark[:2], len(each.refused)) for each in moved]) == (
        [], [("d", (2, 2), 1), ("e", (1, 1), 0)],
    )  # fmt: skip
    assert ledger.news({"t": 0}, {each.epoch: each.mark for each in moved}) == ([], [])
    close(ledger, 1)
    assert [each.number for each in ledger.news({"t": 0}, {})[0]] == [1]
    past = ledger.device("t", "d")
    assert (past.version, past.waiting, past.applied, past.refused, past.lost) == (1, 0, 1, 1, 0)
    assert past.update is not None
    assert (past.update.version, past.refusals, past.last_refusal) == (1, {"stale": 1}, (1, "stale", 7.0))
    size = len(entry(0).body)
    assert [tuple(each)[2:] for each in ledger.recent("t", "d")] == [(7.0, 1, 5, size)]
    assert [(each.number, each.updates, each.frame_bytes) for each in ledger.points("t")] == [
        (0, 0, 0),
        (1, 2, 2 * size),
    ]
    (latest,) = ledger.rounds("t", before=9, limit=9)
    assert (latest.number, latest.frame_bytes, latest.devices, latest.contributors) == (1, 2 * size, ["d", "e"], 2)
    assert (ledger.contributors("t", 1), ledger.contributors("t", 0), ledger.contributors("t", 9)) == (
        ["d", "e"],
        [],
        [],
    )


CHILD = """
import sys
from pathlib import Path
from ledgers import IMPLEMENTATIONS, close, entry, hello, version
from broker.ledger import digests

digests.FOLD_AT = 1
with IMPLEMENTATIONS[sys.argv[1]](Path(sys.argv[2])) as ledger:
    if not ledger.tasks():
        ledger.add_task("t", "b", {}, version(0))
    for number in range(len(ledger.versions("t")), 4):
        print("round", number, flush=True)
        hello(ledger, 2 * (number - 1))
        ledger.admit([entry(2 * (number - 1)), entry(2 * (number - 1) + 1)], 1.0)
        close(ledger, number)
        ledger.compact("t", before_batch=0, before_base=0)
"""


def run_child(implementation: str, folder: Path, failpoints: str) -> "subprocess.CompletedProcess[str]":
    paths = [str(Path(ledgers.__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, VARIABLE: failpoints, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", CHILD, implementation, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("point", INTERRUPTED)
def test_killed_anywhere_the_ledger_is_before_or_after(
    implementation: str, opened: Callable[..., Ledger], tmp_path: Path, point: str
) -> None:
    """Every point is passed, and what it interrupts has happened wholly or not at all."""
    child = run_child(implementation, tmp_path, f"{point}=kill@2")
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert child.stdout.splitlines()[-1] == "round 2"
    with opened(tmp_path) as ledger:
        frames, closed, rows = INTERRUPTED[point]
        assert ledger.pending("t").frames == frames - 2 * closed
        assert len(ledger.versions("t")) == 1 + closed
        assert [len(ledger.batch("t", number)) for number in (1, 2)] == [2, 2 if closed == 2 else 0]
        assert ledger.size()["frame_rows"] == rows
    again = run_child(implementation, tmp_path, "")
    assert again.returncode == 0, again.stderr
    with opened(tmp_path) as ledger:
        members = [each.body for number in (1, 2, 3) for each in ledger.batch("t", number)]
        assert sorted(members) == [entry(sequence).body for sequence in range(6)]
        assert ledger.frame_counts("t") == {"d": (6, 0, 0)}
        assert ledger.lost_to_restore("t") == {}
        assert ledger.check() == []


def test_whose_ledger_it_is_stays_and_its_terms_rise(
    ledger: Ledger, opened: Callable[..., Ledger], tmp_path: Path
) -> None:
    me = ledger.identity()
    assert (len(bytes.fromhex(me.ledger)), me.term) == (8, 0)
    assert [ledger.begin().term, ledger.begin(above=1).term, ledger.begin(above=9).term] == [1, 2, 10]
    with opened(tmp_path) as again, opened(tmp_path, read_only=True) as beside:
        assert again.identity() == beside.identity() == Start(me.ledger, 10)
    (tmp_path / "another").mkdir()
    with opened(tmp_path / "another") as another:
        assert another.identity().ledger != me.ledger


def test_who_has_served_a_task_and_who_was_met(ledger: Ledger) -> None:
    mine, other = Start(ledger.identity().ledger, 3, "5e" * 8, "here"), Start("ab" * 8, 7)
    ledger.inherit("t", mine, 1.0)
    ledger.inherit("t", other, 2.0)
    ledger.inherit("t", mine._replace(term=4), 3.0)
    assert ledger.lineage("t") == {other.ledger: other, mine.ledger: mine._replace(term=4)}
    assert ledger.lineage("u") == {}
    for met_s in range(40):  # whoever publishes may invent them
        ledger.meet(Rival("t", f"{met_s:016x}", 1, "5e" * 8, Contact.ASKED, float(met_s)))
    ledger.meet(Rival("t", f"{30:016x}", 2, "5e" * 8, Contact.ASKED, 50.0))
    rivals = ledger.rivals("t")
    assert (len(rivals), rivals[0]) == (16, Rival("t", f"{30:016x}", 2, "5e" * 8, Contact.ASKED, 50.0))
    assert ledger.rivals("u") == []
