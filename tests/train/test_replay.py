"""The replay buffer: bounded, fair, the same after a crash; and what a round is worth on the holdout."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer_exam import unpack

from edgeclient import failpoint
from edgeclient.bundle import archive
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Manifest, Optimiser, Tensor
from edgeclient.commands.new.command import write
from edgeclient.compress.arrays import F32
from edgeclient.settings import Data, Source
from edgeclient.train import batches
from edgeclient.train.batches import Batch, Blocks, Cursor, DataError, Dataset, NoExamplesError
from edgeclient.train.compiled import Statistics
from edgeclient.train.holdout import held_out
from edgeclient.train.local import Local, gain, open_local, open_measured
from edgeclient.train.replay.buffer import Replay
from edgeclient.train.replay.records import Records
from edgeclient.train.replay.reservoir import places
from edgeclient.train.trainer import Plan
from edgeclient.train.trainers import open_trainer

MANIFEST = Manifest(
    Layout((Parameter("w", (1,)),)), (Tensor("x", "float32", (-1, 2)),), Tensor("y", "int64", (-1,)), None, "custom",
    Optimiser(), "", "",
)  # fmt: skip


def example(first: int, count: int) -> Batch:
    numbers = np.arange(first, first + count)
    return np.stack([numbers, -numbers], 1).astype(np.float32), numbers


class Counting(batches.Source):
    """A source that grows: the numbers up to `total`, in blocks."""

    def __init__(self, total: int, block: int = 7) -> None:
        self.total = total
        self.block = block

    def blocks(self, rng: object, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (one order)
        done = int(cursor or 0)
        while done < self.total:
            count = min(self.block, self.total - done)
            yield example(done, count), done + count
            done += count


def buffer(folder: Path, capacity: int = 20, holdout: float = 0.25, **about: Any) -> Replay:
    return Replay(folder / "replay", MANIFEST, capacity, holdout, seed=5, about=about, name="numbers")


def numbers(dataset: Dataset) -> list[int]:
    found: list[int] = []
    for x, y in dataset.batches(8, None):
        assert np.array_equal(x, example(0, 10_000)[0][y])
        found += y.tolist()
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "replay").iterdir())}


@given(st.integers(0, 2**40), st.lists(st.integers(0, 50), max_size=12), st.integers(1, 30), st.integers(0, 2**33))
def test_places_do_not_depend_on_how_examples_come(seed: int, parts: list[int], capacity: int, first: int) -> None:
    whole = places(seed, first, sum(parts), capacity)
    split, at = [], first
    for part in parts:
        split.append(places(seed, at, part, capacity))
        at += part
    assert np.array_equal(np.concatenate([*split, np.empty(0, np.int64)]), whole)
    assert ((whole >= -1) & (whole < capacity)).all()
    assert np.array_equal(places(seed, 0, capacity, capacity), np.arange(capacity))


def test_every_example_has_the_same_chance() -> None:
    kept: Counter[int] = Counter()
    for seed in range(3000):
        slots = dict(zip(places(seed, 0, 50, 10).tolist(), range(50), strict=True))
        kept.update(number for place, number in slots.items() if place >= 0)
    expected = 3000 * 10 / 50
    chi_squared = sum((kept[number] - expected) ** 2 / expected for number in range(50))
    assert chi_squared < 85  # 49 degrees of freedom: 1 in 1000 is over


@given(st.integers(1, 30), st.floats(0, 0.9), st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, capacity: int, holdout: float, grown: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    kept, total = buffer(folder, capacity, holdout), 0
    for more in grown:
        total += min(more, 10 * capacity)
        assert kept.take(Counting(total, block=1)) == min(more, 10 * capacity)
    mask = held_out(example(0, total), holdout)
    trained, held = np.flatnonzero(~mask), np.flatnonzero(mask)
    if len(trained):
        found = numbers(kept.side("train"))
        assert len(found) == len(set(found)) <= 2 * capacity
        assert set(found) <= set(trained)
        assert set(trained[-capacity:]) <= set(found)
        assert len(found) >= min(len(trained), capacity)
    if len(held):
        assert len(numbers(kept.side("holdout"))) == min(len(held), math.ceil(capacity * holdout))
        assert set(numbers(kept.side("holdout"))) <= set(held)
    assert (folder / "replay" / "examples").stat().st_size == 28 * (2 * capacity + math.ceil(capacity * holdout))


CRASH = """
import sys
from pathlib import Path
from test_replay import Counting, buffer
folder = Path(sys.argv[1])
for total in (60, 90, 150):
    buffer(folder).take(Counting(total))
"""


@pytest.mark.parametrize(
    "failpoints",
    [f"replay.before-record=kill@{nth}" for nth in (1, 2, 50, 100, 130, 170)]
    + [f"replay.before-state=kill@{nth}" for nth in (1, 2, 3)]
    + [f"files.before-rename=kill@{nth}" for nth in (1, 2, 3)],
)
def test_killed_anywhere_nothing_is_lost_or_twice(failpoints: str, tmp_path: Path) -> None:
    def run(folder: Path, failpoints: str) -> int:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), failpoint.VARIABLE: failpoints}
        return subprocess.run([sys.executable, "-c", CRASH, str(folder)], env=environment, check=False).returncode

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert run(killed, failpoints) == -signal.SIGKILL
    assert run(killed, "") == 0
    for total in (60, 90, 150):
        buffer(whole).take(Counting(total))
    (killed / "replay" / "state.json.new").unlink(missing_ok=True)
    assert content(killed) == content(whole)


def test_a_half_written_record_is_never_read(tmp_path: Path) -> None:
    records = Records(tmp_path / "examples", MANIFEST, 4)
    records.create()
    assert records.numbers().tolist() == [-1] * 4
    records.write([1, 2], np.array([8, 9]), example(8, 2))
    before, size = (tmp_path / "examples").read_bytes(), records.record_bytes
    records.write([1], np.array([3]), example(3, 1))
    after = (tmp_path / "examples").read_bytes()
    for cut in range(size, 2 * size + 1):
        for torn in (after[:cut] + before[cut:], before[:cut] + after[cut:], after[:cut]):
            (tmp_path / "examples").write_bytes(torn)
            found = records.numbers().tolist()
            assert found[1] in {8, 3, -1}
            for x, y in zip(*records.read(np.array([0, 1, 2, 3])), strict=True):
                assert np.array_equal(x, example(int(y), 1)[0][0])
                assert int(y) in {8, 3, 9}
    for at in range(size, 2 * size):
        (tmp_path / "examples").write_bytes(after[:at] + bytes([after[at] ^ 1]) + after[at + 1 :])
        assert records.numbers().tolist() == [-1, -1, 9, -1]


def test_damage_is_left_out(tmp_path: Path) -> None:
    kept = buffer(tmp_path)
    kept.take(Counting(100))
    there = numbers(kept.side("train"))
    side = kept.side("train")
    path = tmp_path / "replay" / "examples"
    damaged = bytearray(path.read_bytes())
    damaged[20:60] = bytes(40)  # the first two records
    path.write_bytes(damaged)
    assert 1 <= len(there) - len(numbers(side)) <= 2
    assert set(numbers(kept.side("train"))) == set(numbers(side))


def test_another_model_source_or_size_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer(tmp_path, query="a").take(Counting(100))
    assert len(numbers(buffer(tmp_path, query="a").side("train"))) >= 20
    with pytest.raises(NoExamplesError, match="no example to train on yet"):
        numbers(buffer(tmp_path, query="b").side("train"))
    assert buffer(tmp_path, query="b").take(Counting(9)) == 9
    assert "begins anew" in caplog.text
    assert max(numbers(buffer(tmp_path, query="b").side("train"))) < 9
    (tmp_path / "replay" / "examples").write_bytes(b"")
    assert buffer(tmp_path, query="b").take(Counting(9)) == 9
    state = tmp_path / "replay" / "state.json"
    state.write_text("[]")
    assert buffer(tmp_path, query="b").take(Counting(9)) == 9
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 2, "other": 1}))
    with pytest.raises(DataError, match=r"state\.json is of a newer edgeclient: update this one, or delete"):
        buffer(tmp_path, query="b").take(Counting(9))


def test_a_full_disk_shows_at_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            buffer(tmp_path).take(Counting(9))
    assert not (tmp_path / "replay" / "examples").exists()
    assert buffer(tmp_path).take(Counting(9)) == 9


MODULE = """
import itertools, numpy as np
def example(first, count):
    n = np.arange(first, first + count)
    return np.stack([n, -n], 1).astype(np.float32), n
def endless():
    for first in itertools.count(0, 10): yield example(first, 10)
rounds = itertools.count()
def new(count=12):
    at = next(rounds)
    return [example(at * count, count)]
def breaks():
    yield example(0, 5)
    raise RuntimeError("sensor unplugged")
def whole(): return example(0, 9)
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path / "mine.py"


def local(folder: Path, source: str, **data: Any) -> Local:
    made = Data(Source(source), **{"replay_examples": 20, **data})
    return open_local(made, MANIFEST, directory=folder, device="pi-7")


def test_functions_feed_the_buffer(module: Path, tmp_path: Path) -> None:
    made = local(tmp_path, f"{module}:new")
    for turn in range(1, 4):
        assert made.refresh() == 12
        assert max(numbers(made)) == 12 * turn - 1
    assert set(numbers(made)) >= set(range(16, 36))
    assert min(numbers(made)) < 12
    endless = local(tmp_path, f"{module}:endless")
    assert endless.refresh() == 200
    assert endless.refresh(lambda: False) == 10
    breaking = local(tmp_path, f"{module}:breaks")
    with pytest.raises(DataError, match="RuntimeError: sensor unplugged"):
        breaking.refresh()
    assert numbers(breaking) == [0, 1, 2, 3, 4]
    for source in (f"{module}:whole", str(tmp_path / "d.npz")):
        np.savez(tmp_path / "d.npz", x=example(0, 5)[0], y=np.arange(5))
        with pytest.raises(DataError, match="is read whole in every round"):
            local(tmp_path, source)


def test_tables_feed_the_buffer_with_new_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "sensor.db"

    def grow(first: int, count: int) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS readings (a, b, y)")
            x, y = example(first, count)
            rows = [(*map(float, row), int(label)) for row, label in zip(x, y, strict=True)]
            connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)

    grow(0, 30)
    options = {"query": "SELECT rowid, a, b, y FROM readings", "since": "rowid"}
    made = local(tmp_path, str(path), options=options, holdout=0.2)
    assert (made.refresh(), made.refresh()) == (30, 0)
    grow(30, 15)
    again = local(tmp_path, str(path), options=options, holdout=0.2)
    assert (again.refresh(), again.refresh()) == (15, 0)
    assert again.holdout is not None
    assert set(numbers(again)) & set(numbers(again.holdout)) == set()
    before = content(tmp_path)
    data = Data(Source(str(path)), options=options, holdout=0.2, replay_examples=20)
    measured = open_measured(data, MANIFEST, directory=tmp_path, device="pi-7")
    assert numbers(measured) == numbers(again.holdout)
    assert content(tmp_path) == before
    assert len(before["examples"]) == 44 * 28
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM readings")
    grow(100, 3)  # rowids from 1 again
    assert (again.refresh(), again.refresh()) == (3, 0)
    with pytest.raises(DataError, match="that grow: a function that yields what is new, or a SQLite query with since"):
        local(tmp_path, str(path), options={"query": "SELECT a, b, y FROM readings"})


def test_devices_keep_different_examples(tmp_path: Path, module: Path) -> None:
    kept: list[list[int]] = []
    for device in ("pi-7", "pi-8", "pi-7"):
        data = Data(Source(f"{module}:endless"), replay_examples=20)
        made = open_local(data, MANIFEST, directory=tmp_path / f"{len(kept)}", device=device)
        made.refresh()
        kept.append(sorted(numbers(made)))
    assert kept[0] == kept[2] != kept[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "demo"
    list(write(folder))
    return folder


def test_a_round_is_measured_on_the_holdout(project: Path, tmp_path: Path) -> None:
    opened = archive.decode((project / "model.bundle").read_bytes())
    trainer = open_trainer(unpack(opened, tmp_path))
    source, start = Source(f"{project / 'my_data.py'}:examples"), Statistics(tmp_path).load()
    data = open_local(Data(source, holdout=0.3), opened.manifest, directory=tmp_path, device="pi")
    made = trainer.train(opened.parameters, data, Plan(0.1, 6, 16), np.random.default_rng(0), start)

    def measured(holdout: Dataset | None, proceed: Callable[[], bool] = lambda: True) -> Any:
        return gain(trainer, holdout, version=4, parameters=opened.parameters, made=made, local=start, proceed=proceed)

    found = measured(data.holdout)
    assert data.holdout is not None
    expected = trainer.evaluate(opened.parameters + made.delta, data.holdout)
    assert (found.version, found.num_examples, found.loss_after) == (4, expected.num_examples, expected.loss)
    assert found.num_examples + made.num_examples == 300
    assert found.loss_after < 0.8 * found.loss_before
    assert found.accuracy_after > found.accuracy_before
    assert measured(None) is None
    assert measured(data.holdout, lambda: False) is None
    few = open_local(Data(source, {"count": 3}, holdout=0.001), opened.manifest, directory=tmp_path, device="pi")
    assert measured(few.holdout) is None
    many = open_local(Data(source, {"count": 2000}, holdout=0.9), opened.manifest, directory=tmp_path, device="pi")
    assert measured(many.holdout).num_examples == 1024


def test_a_round_learns_from_a_stream(project: Path, tmp_path: Path) -> None:
    opened = archive.decode((project / "model.bundle").read_bytes())
    trainer = open_trainer(unpack(opened, tmp_path))
    source = Source(f"{project / 'my_data.py'}:stream")
    data = open_local(Data(source, holdout=0.2, replay_examples=50), opened.manifest, directory=tmp_path, device="pi")
    parameters: F32 = opened.parameters
    with pytest.raises(NoExamplesError):
        trainer.train(parameters, data, Plan(0.05, 1, 16), np.random.default_rng(0))
    losses = []
    for turn in range(15):
        assert data.refresh() == 20
        made = trainer.train(parameters, data, Plan(0.2, 2, 16), np.random.default_rng(turn))
        parameters = parameters + made.delta
        losses.append(made.loss)
        assert made.num_examples <= 100
    assert losses[-1] < 0.5 * losses[0]
