"""Old ledgers come forward: each committed file was made by the code of its schema, and never changes."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from broker.ledger import record
from broker.ledger.rows import Admission, Entry, Verdict
from broker.ledger.sqlite.check import check
from broker.ledger.sqlite.ledger import Ledger, LedgerError
from broker.ledger.sqlite.schema import MIGRATIONS, SCHEMA_VERSION
from edgeclient.failpoint import VARIABLE
from edgeclient.wire.messages import Refusal

DATA = Path(__file__).parents[1] / "data"
EPOCH = 2**64 - 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / "ledger-1.db", tmp_path / "ledger.db"))


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def schema(path: Path) -> int:
    db = sqlite3.connect(path)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(version)


def entry(sequence: int) -> Entry:
    body = f"har/pi-1/{sequence}".encode()
    return Entry("har", "pi-1", EPOCH, sequence, sha256(body).digest()[:8], sequence, 0, 1, 2, 100, 25600, None, body)


def test_every_old_schema_has_its_file() -> None:
    assert {schema(DATA / f"ledger-{number}.db") for number in range(1, SCHEMA_VERSION)} == set(
        range(1, len(MIGRATIONS))
    )


def test_an_old_ledger_keeps_everything(ledger: Ledger, path: Path) -> None:
    assert [name for name, _, _ in ledger.tasks()] == ["har", "voice"]
    assert [(each.number, each.updates, each.total_weight) for each in ledger.versions("har")] == [
        (0, 0, 0), (1, 2, 51200), (2, 2, 38400),
    ]  # fmt: skip
    assert ledger.versions("har")[1].metrics == {"accuracy": 0.2}
    assert ledger.frame_counts("har") == {"pi-1": (4, 1, 0), "pi-2": (2, 1, 0)}
    pending = ledger.pending("har")
    assert (pending.updates, pending.frames) == (1, 2)
    receipt = ledger.receipt("har", "pi-1", EPOCH)
    assert (receipt.watermark, receipt.seen, receipt.refused) == (5, 5, ())
    receipt = ledger.receipt("har", "pi-2", 5)
    assert (receipt.watermark, receipt.seen, receipt.refused) == (2, 4, ((3, Refusal.FUTURE),))
    assert ledger.admit([entry(4), entry(5)], 1.0) == [Admission(Verdict.DUPLICATE), Admission(Verdict.APPLIED)]
    assert schema(path) == SCHEMA_VERSION
    assert check(path) == []


def test_batches_closed_before_get_their_record(ledger: Ledger) -> None:
    (written,) = ledger._db.execute("SELECT record FROM version WHERE task = 'har' AND number = 2").fetchone()
    members, terms = record.decode(written)
    assert [(each.device, each.sequence, each.weight, each.leads) for each in members] == [
        ("pi-1", 2, 25600, True), ("pi-2", 1, 12800, True),
    ]  # fmt: skip
    assert members[0].epoch == -3
    assert terms == {}


@pytest.mark.parametrize("point", ["ledger.before-migration", "ledger.after-migration"])
def test_killed_in_the_middle_it_is_old_or_new(path: Path, point: str) -> None:
    code = "import sys, pathlib; from broker.ledger.sqlite.ledger import Ledger; Ledger(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, VARIABLE: f"{point}=kill"}
    child = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert schema(path) == (1 if "before" in point else SCHEMA_VERSION)
    with Ledger(path) as ledger:
        assert ledger.frame_counts("har") == {"pi-1": (4, 1, 0), "pi-2": (2, 1, 0)}
    assert check(path) == []


def test_a_reader_does_not_migrate(path: Path) -> None:
    with pytest.raises(LedgerError, match="has schema 1, this program reads 2: start edgebroker serve"):
        Ledger(path, read_only=True)
    assert schema(path) == 1
