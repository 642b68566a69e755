"""`edgeclient store check`: sound stores are sound, and every damage is named."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeclient.cli import cli
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.durable.check import check_store
from edgeclient.durable.store import Store
from edgeclient.wire import frame

SIZE = 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path / "data/store/t", layout="ab" * 32, size=SIZE) as store:
        for number in range(4):
            delta = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
            update, residual = compress_with_feedback(delta, store.residual(), 8)
            origin = frame.Origin("t", "d", bytes.fromhex("ab" * 8), number, number, 5)
            frames = [frame.encode_update(update, origin, 65_536)]
            store.commit_round(frames, residual, token=str(number), base_version=number)
        store.mark_sent([1, 2, 3])
        store.withdraw([2])
        store.settle(refused=[2])
    (tmp_path / "d.toml").write_text('device = "d"\ntask = "t"\ndirectory = "data"\n[data]\nsource = "x.npz"\n')
    return tmp_path


def told(folder: Path) -> tuple[int, dict[str, object]]:
    result = CliRunner().invoke(cli, ["store", "check", str(folder / "d.toml"), "--json"])
    return result.exit_code, json.loads(result.output)


def test_a_sound_store(folder: Path) -> None:
    code, report = told(folder)
    assert (code, report["sound"], report["running"], report["size"]) == (0, True, False, SIZE)
    assert report["frames"] == {"queued": 1, "sent": 1, "withdrawing": 1, "returned": 1}
    said = CliRunner().invoke(cli, ["store", "check", str(folder / "d.toml")])
    assert "sound" in said.output
    assert said.exit_code == 0


def test_a_store_in_use_can_be_checked(folder: Path) -> None:
    with Store(folder / "data/store/t", layout="ab" * 32, size=SIZE):
        assert told(folder)[1]["running"] is True


def _row(sql: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        with sqlite3.connect(store / "store.db") as db:
            db.execute(sql)
        db.close()

    return change


def _slot(store: Path, how: Callable[[Path], None]) -> None:
    for slot in (0, 1):
        how(store / f"residual.{slot}")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_row("UPDATE frame SET sequence = NULL WHERE id = 1"), "frame 1 is sent with sequence None"),
        (_row("UPDATE frame SET sequence = 77 WHERE id = 1"), "has sequence 77, and the next one is 3"),
        (_row("UPDATE frame SET body = x'0102' WHERE id = 4"), "frame 4 cannot be read"),
        (_row("DELETE FROM account"), "0 accounts"),
        (_row("PRAGMA user_version = 99"), "schema 99"),
        (lambda store: _slot(store, _flip), "is not what was committed"),
        (lambda store: _slot(store, lambda path: os.truncate(path, 7)), "is not what was committed"),
        (lambda store: _slot(store, Path.unlink), "No such file"),
        (lambda store: (store / "store.db").write_bytes(b"junk" * 5000), "cannot be read"),
        (lambda store: os.truncate(store / "store.db", 8192), "store.db"),
        (lambda store: (store / "store.db").unlink(), "there is no store.db"),
    ],
)  # fmt: skip
def test_every_damage_is_named(folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder / "data/store/t")
    code, report = told(folder)
    assert (code, report["sound"]) == (1, False)
    assert said in json.dumps(report["faults"])
    human = CliRunner().invoke(cli, ["store", "check", str(folder / "d.toml")])
    assert human.exit_code == 1
    assert said in human.output
    assert "Traceback" not in human.output


def test_nothing_is_changed(folder: Path) -> None:
    shutil.copytree(folder / "data", folder / "before")
    check_store(folder / "data/store/t", lambda _: None)
    for path in (folder / "before/store/t").iterdir():
        assert (folder / "data/store/t" / path.name).read_bytes() == path.read_bytes()
