"""What is particular to SQLite: what opening a file can find, migrations, a full disk, and the lock beside the file."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import EPOCH, INTERRUPTED, admitted, entry, version

from broker.ledger.opening import AggregatorLock, open_ledger
from broker.ledger.protocol import LedgerError, LedgerUnavailable
from broker.ledger.rows import Admission, Verdict
from broker.ledger.sqlite import schema
from broker.ledger.sqlite.ledger import POINTS, SqliteLedger
from edgeclient.failpoint import VARIABLE

NEWEST = len(schema.MIGRATIONS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(path) as made:
        yield made


def version_of(path: Path) -> int:
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(version)


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with pytest.raises(LedgerError, match="does not exist: nothing was counted here yet"):
        open_ledger(path, read_only=True)
    with pytest.raises(LedgerError, match="cannot be opened"):
        open_ledger(tmp_path / "missing" / "ledger.db")
    path.write_bytes(b"no database" * 200)
    with pytest.raises(LedgerError, match="is not a ledger"):
        open_ledger(path)
    path.write_bytes(b"")
    for read_only in (False, True):
        with pytest.raises(LedgerError, match=r"ledger\.db is empty: restore a backup"):
            open_ledger(path, read_only=read_only)
    assert path.read_bytes() == b""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE task (name TEXT)")
        db.execute("PRAGMA user_version = 1")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"ledger\.db is no ledger but the database of another program"):
        open_ledger(path)
    assert path.read_bytes() == before


def test_a_newer_ledger_is_left_alone(path: Path) -> None:
    open_ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {NEWEST + 1}")
    db.close()
    with pytest.raises(LedgerError, match=f"schema {NEWEST + 1}"):
        open_ledger(path)


NEXT = """
import pathlib, sys
from broker.ledger.opening import open_ledger
from broker.ledger.sqlite import schema

schema.MIGRATIONS += (lambda db: db.execute("ALTER TABLE task ADD COLUMN more INTEGER NOT NULL DEFAULT 7"),)
open_ledger(pathlib.Path(sys.argv[1])).close()
"""


@pytest.mark.parametrize("point", ["ledger.before-migration", "ledger.after-migration", ""])
@pytest.mark.parametrize("old", [False, True])
def test_a_migration_happens_wholly_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch, point: str, *, old: bool
) -> None:
    """From nothing, and from the schema before: killed in the last step it is old or new, and everything is kept."""
    if old:
        with open_ledger(path) as ledger:
            ledger.add_task("t", "b", {}, version(0))
            ledger.admit([entry(0)], 1.0)
    environment = {**os.environ, VARIABLE: f"{point}=kill@{1 if old else NEWEST + 1}"}
    child = subprocess.run([sys.executable, "-c", NEXT, str(path)], env=environment, check=False)
    assert child.returncode == (-signal.SIGKILL if point else 0)
    assert version_of(path) == (NEWEST if "before" in point else NEWEST + 1)
    more = "ALTER TABLE task ADD COLUMN more INTEGER NOT NULL DEFAULT 7"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, lambda db: db.execute(more)))
    if "before" in point:
        with pytest.raises(
            LedgerError, match=f"has schema {NEWEST}, this program reads {NEWEST + 1}: start edgebroker"
        ):
            open_ledger(path, read_only=True)
        assert version_of(path) == NEWEST
    with open_ledger(path) as ledger:
        assert admitted(ledger) == ({entry(0).body} if old else set())
        assert ledger.check() == []
    assert version_of(path) == NEWEST + 1


def test_a_full_disk_writes_nothing_and_passes(ledger: SqliteLedger) -> None:
    ledger.admit([entry(0)], 1.0)
    (pages,) = ledger.db.execute("PRAGMA page_count").fetchone()
    ledger.db.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(entry(1), body=bytes(1_000_000))
    with pytest.raises(LedgerUnavailable, match=r"ledger.db cannot be written: .* full"):
        ledger.admit([large], 1.0)
    assert ledger.receipt("t", "d", EPOCH).seen == 1
    ledger.db.execute("PRAGMA max_page_count = 100000")
    assert ledger.admit([large], 1.0) == [Admission(Verdict.APPLIED)]


def test_one_aggregator_at_a_time(tmp_path: Path) -> None:
    with (
        closing(AggregatorLock(tmp_path / "ledger.db")),
        pytest.raises(LedgerError, match="in use by another edgebroker"),
    ):
        AggregatorLock(tmp_path / "ledger.db")
    AggregatorLock(tmp_path / "ledger.db").close()


def test_every_crash_point_is_examined() -> None:
    """By the conformance kit, or by the migrations above; that the source has no others is a test of the service."""
    assert {each for each in POINTS if "migration" not in each} == set(INTERRUPTED)


@pytest.mark.case("fleet 42")
def test_a_ledger_that_another_program_locks_counts_nothing_until_it_is_free(ledger: SqliteLedger, path: Path) -> None:
    ledger.db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="locked"):
            ledger.admit([entry(0)], 1.0)
        other.execute("ROLLBACK")
    assert ledger.admit([entry(0)], 1.0) == [Admission(Verdict.APPLIED)]
