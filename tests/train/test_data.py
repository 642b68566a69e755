"""Local data that does and does not fit the model."""

import sqlite3
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.demo import data as demo_data
from edgeclient.bundle import archive
from edgeclient.bundle.archive import Bundle
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Manifest, Optimiser, Tensor
from edgeclient.compress.arrays import Array
from edgeclient.settings import Data, Source
from edgeclient.train import mixing
from edgeclient.train.batches import Batch, DataError, NoExamplesError
from edgeclient.train.data import check_source, open_data
from edgeclient.train.holdout import held_out
from edgeclient.train.local import open_local, open_measured
from edgeclient.train.sources import arrays, delimited, query, table


@pytest.fixture(scope="module")
def opened() -> Bundle:
    return archive.decode(demo_data.bundle_bytes())


def _good() -> dict[str, Array]:
    return {"x": np.zeros((4, 600), np.float32), "labels": np.zeros(4, np.int64)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((4, 599))}, "the model wants"),
        ({"x": np.zeros((4, 600, 1))}, "the model wants"),
        ({"x": np.full((4, 600), np.nan)}, "NaN or infinite"),
        ({"x": np.full((4, 600), 1e300)}, "NaN or infinite"),
        ({"x": np.array([["a"] * 600] * 4)}, "the model wants float32"),
        ({"labels": np.zeros(3, np.int64)}, "different lengths"),
        ({"labels": np.full(4, 7)}, "labels go from 7 to 7, the model has 0 to 6"),
        ({"labels": np.full(4, -1)}, "labels go from -1"),
        ({"labels": np.full(4, 0.5)}, "labels has 0.5, the model wants whole numbers"),
        ({"x": np.zeros((0, 600)), "labels": np.zeros(0, np.int64)}, "no examples"),
        ({"x": None}, "has no array 'x'"),
    ],
)
def test_data_that_does_not_fit(change: dict[str, Any], said: str, opened: Bundle, tmp_path: Path) -> None:
    arrays = {name: value for name, value in (_good() | change).items() if value is not None}
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=said):
        open_data(str(tmp_path / "d.npz"), {}, opened.manifest)


def test_arrays_may_have_other_names(opened: Bundle, tmp_path: Path) -> None:
    good = _good()
    np.savez(tmp_path / "d.npz", windows=good["x"], what=good["labels"])
    options = {"x": "windows", "labels": "what"}
    (batch,) = open_data(str(tmp_path / "d.npz"), options, opened.manifest).batches(8, None)
    assert batch[0].shape == (4, 600)


def test_files_that_are_no_npz(opened: Bundle, tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        open_data(str(tmp_path / "junk.npz"), {}, opened.manifest)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], object), labels=np.zeros(1, np.int64))
    with pytest.raises(DataError, match="allow_pickle=False"):
        open_data(str(tmp_path / "pickled.npz"), {}, opened.manifest)
    with pytest.raises(DataError, match="does not exist"):
        open_data(str(tmp_path / "missing.npz"), {}, opened.manifest)


def test_damaged_files_and_mistaken_options(opened: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((9, 600)), labels=np.zeros(9, np.int64))
    content = path.read_bytes()
    for at in range(0, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            open_data(str(path), {}, opened.manifest)
        except DataError:
            continue
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"\[data\.options\] y is no array of the model, which wants x, labels"):
        open_data(str(path), {"y": "labels"}, opened.manifest)
    np.save(tmp_path / "lone.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"numpy\.savez writes such"):
        open_data(str((tmp_path / "lone.npy").rename(path)), {}, opened.manifest)


def test_functions(opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n"
        "def whole(n): return np.zeros((n, 600), np.float32), np.zeros(n, np.int64)\n"
        "def batches(n):\n    for i in range(n): yield whole(i + 1)\n"
        "def bad(): yield 1, 2\n"
        "def nothing(): pass\n"
        "def ragged(): return [[1], [1, 2]], [0, 1]\n"
        "value = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    whole = open_data("my_data:whole", {"n": 5}, opened.manifest)
    assert [len(batch[-1]) for batch in whole.batches(2, np.random.default_rng(0))] == [2, 2, 1]
    stream = open_data("my_data:batches", {"n": 3}, opened.manifest)
    assert [[len(batch[-1]) for batch in stream.batches(2, None)] for _ in range(2)] == [[1, 2, 3], [1, 2, 3]]
    with pytest.raises(DataError, match="yielded no batch"):
        list(open_data("my_data:batches", {"n": 0}, opened.manifest).batches(2, None))
    with pytest.raises(DataError, match=r"see \[data\.options\]"):
        open_data("my_data:whole", {"m": 5}, opened.manifest)
    with pytest.raises(DataError, match="the model wants"):
        list(open_data("my_data:bad", {}, opened.manifest).batches(2, None))
    for source, said in [("my_data:nothing", "returns NoneType"), ("my_data:ragged", "x is no array")]:
        with pytest.raises(DataError, match=said):
            open_data(source, {}, opened.manifest)
    for source, said in [
        (".my_data:whole", "installed here"),
        ("my_data:none", "installed here"),
        ("nowhere:f", "installed here"),
        ("x", "neither"),
        ("my_data:value", "no function"),
    ]:
        with pytest.raises(DataError, match=said):
            check_source(source)


# What follows uses a small model: x float32 (batch, 3), three classes


X = np.arange(60, dtype=np.float32).reshape(20, 3) / 7
Y = np.arange(20) % 3


LABELS = Tensor("labels", "int64", (-1,))


def small(labels: Tensor = LABELS, classes: int | None = 3) -> Manifest:
    layout = Layout((Parameter("w", (1,)),))
    return Manifest(layout, (Tensor("x", "float32", (-1, 3)),), labels, classes, "custom", Optimiser(), "", "")


def everything(source: str, options: dict[str, Any] | None = None, manifest: Manifest | None = None) -> Batch:
    batches = list(open_data(source, options or {}, manifest or small()).batches(7, None))
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def is_the_data(found: Batch) -> None:
    assert np.array_equal(found[0], X)
    assert np.array_equal(found[1], Y)
    assert found[0].dtype == np.float32
    assert found[1].dtype == np.int64


def csv_text(header: str = "a,b,c,labels", end: str = "\n") -> str:
    rows = [",".join([*(repr(float(value)) for value in row), str(label)]) for row, label in zip(X, Y, strict=True)]
    return end.join([header, *rows]) + end


def written(path: Path, text: str) -> str:
    path.write_text(text, newline="")
    return str(path)


def database(path: Path, *, blobs: bool = False) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE readings (a, b, c, window BLOB, label, word TEXT)")
        add(connection, X, Y, blobs=blobs)
    return str(path)


def add(connection: sqlite3.Connection, x: Array, y: Array, *, blobs: bool = False) -> None:
    connection.executemany(
        "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)",
        [
            (*map(float, row), row.astype("<f4").tobytes() if blobs else None, int(label), "abc"[label])
            for row, label in zip(x, y, strict=True)
        ],
    )


NUMBERS = {"query": "SELECT a, b, c, label FROM readings"}
GROWING = {"query": "SELECT rowid, a, b, c, label FROM readings", "since": "rowid"}


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 20])
def test_every_source_gives_the_same_examples(
    block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (arrays, delimited, query, table):
        monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    for folder in ("packed", "single"):
        (tmp_path / folder).mkdir()
    for at in range(0, 20, 6):
        np.savez(tmp_path / "packed" / f"{at:02}.npz", x=X[at : at + 6], labels=Y[at : at + 6])
    np.save(tmp_path / "single" / "x.npy", X.astype(np.float64))
    np.save(tmp_path / "single" / "what.npy", Y)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef batches(path):\n    with np.load(path) as f:\n        yield f['x'], f['labels']\n"
    )
    for source, options in [
        ("d.npz", {}),
        ("packed", {}),
        ("single", {"labels": "what"}),
        ("mine.py:batches", {"path": str(tmp_path / "d.npz")}),
    ]:
        is_the_data(everything(str(tmp_path / source), options))
    is_the_data(everything(written(tmp_path / "d.csv", csv_text())))
    is_the_data(
        everything(written(tmp_path / "e.csv", "\ufeff" + csv_text("a,b, c ,kind", "\r\n")), {"labels": "kind"})
    )
    semicolons = csv_text("a;b;c;labels").replace(",", ";")
    is_the_data(everything(written(tmp_path / "f.csv", semicolons), {"delimiter": ";"}))
    source = database(tmp_path / "sensor.db", blobs=True)
    is_the_data(everything(source, NUMBERS))
    is_the_data(everything(source, GROWING))
    is_the_data(everything(source, {"query": "SELECT label, window FROM readings;", "labels": "label"}))
    is_the_data(everything(source, {"query": "SELECT a, b, c, word FROM readings", "classes": ["a", "b", "c"]}))


def test_a_pass_is_shuffled_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 100)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "labels.npy", Y)
    for source in (str(tmp_path), written(tmp_path / "d.csv", csv_text())):
        batches = list(open_data(source, {}, small()).batches(4, np.random.default_rng(0)))
        x = np.concatenate([batch[0] for batch in batches])
        assert not np.array_equal(x, X)
        assert np.array_equal(x[np.argsort(x[:, 0])], X)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a,b,c,labels\n1,2,3,0\n1,x,3,0\n", {}, r"line 3, column 'b': is 'x', no number"),
        ("a,b,c,labels\n1,2,3,0\n1,,3,0\n", {}, r"line 3, column 'b': is '', no number"),
        ("a,b,c,labels\n\n1,2,nan,0\n", {}, r"line 3, column 'c': is 'nan', no number: missing = "),
        ("a,b,c,labels\n1,2,3,walk\n", {}, r"line 2, column 'labels': is 'walk', no number: words need classes"),
        ("a,b,c,labels\n1,2,3,walk\n", {"classes": ["walk", "walk"]}, "classes has a name twice: walk, walk"),
        ("a,b,c,labels\n1,2,3,walk\n", {"classes": ["rest"]}, r"column 'labels': is 'walk', .* classes has rest"),
        ("a,b,c,labels\n1,2,3\n", {}, "line 2: 3 cells, the header has 4"),
        ("a,b,c,labels\n1,2,3,0.5\n", {}, "labels has 0.5, the model wants whole numbers"),
        ("a,b,c,labels\n1,2,3,5\n", {}, "labels go from 5 to 5"),
        ("a,b,labels\n1,2,0\n", {}, "a row gives 2 numbers for x, the model wants 3: see"),
        ("a,b,c,labels\n1,2,1e300,0\n", {}, "NaN or infinite"),
        ("a,b,c,Labels\n", {}, "has no column 'labels': did you mean 'Labels'"),
        ("a,b,c,labels\n", {"columns": ["a", "q"]}, "has no column 'q': it has a, b, c, labels"),
        ("a,b,c,labels\n", {"columns": ["a", "labels"]}, "both a label and an input"),
        ("a,b,c,labels\n", {"columns": 3}, "columns is 3: a name or a list of names"),
        ("a,b,c,labels\n", {"delimeter": ";"}, "delimeter means nothing for a CSV file: did you mean delimiter"),
        ("a,b,c,labels\n", {"delimiter": ";;"}, "one character is wanted"),
        ("a,b,c,labels\n", {}, "has no examples"),
        ("labels\n1\n", {}, "has no column beside labels"),
        ("", {}, "is empty: a header line"),
        ("a,b,c,labels\n\udcff", {}, "cannot be read as CSV"),
        ('a,b,c,labels\n"' + "1" * 200_000, {}, "cannot be read as CSV: field larger"),
    ],
)
def test_tables_with_mistakes(text: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said) as caught:
        everything(str(path), options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "query is missing"),
        ({"query": 3}, "query is 3: text is wanted"),
        ({"query": "SELECT a FROM nowhere"}, "no such table: nowhere: see"),
        ({"query": "DELETE FROM readings"}, "syntax error"),
        ({"query": "SELECT a, b, c, label FROM readings; DELETE FROM readings"}, "d.db: "),
        ({"query": "SELECT a, b, label FROM readings"}, "a row gives 2 numbers for x"),
        (
            {"query": "SELECT a, b, word, label FROM readings"},
            r"row 1 of the query, column 'word': is 'a', no number: leave such rows out",
        ),
        ({"query": "SELECT a, b, NULL AS n, label FROM readings"}, r"column 'n': is None"),
        ({"query": "SELECT a, b, c, NULL AS label FROM readings"}, r"column 'label': is None, no number"),
        ({"query": "SELECT a, b, c, word FROM readings", "classes": ["a"]}, "row 2 .* column 'word': is 'b'"),
        ({"query": "SELECT a, b, 9e999 AS big, label FROM readings"}, "NaN or infinite"),
        ({"query": "SELECT x'00', label FROM readings"}, "BLOB of 1 bytes"),
        ({"query": "SELECT a, b, c, label FROM readings WHERE 0"}, "has no examples"),
        ({"query": "SELECT a, b, c, label FROM readings", "since": "rowid"}, "SELECT rowid, ..."),
        ({"query": "SELECT a, b, c, label FROM readings", "label": "c"}, "did you mean labels"),
    ],
)
def test_queries_with_mistakes(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = database(tmp_path / "d.db")
    before = Path(source).read_bytes()
    with pytest.raises(DataError, match=said) as caught:
        everything(source, options)
    assert "\n" not in str(caught.value)
    assert Path(source).read_bytes() == before


def test_a_writer_never_waits_for_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "BLOCK_BYTES", 100)
    source = database(tmp_path / "d.db")
    for options in (NUMBERS, GROWING):
        passing = open_data(source, options, small()).batches(2, None)
        next(passing)
        with closing(sqlite3.connect(source, timeout=0)) as connection, connection:
            add(connection, X[:1], Y[:1])
        assert sum(len(batch[-1]) for batch in passing) >= 18


def test_files_that_are_no_database_and_folders_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_bytes(b"junk" * 999)
    with pytest.raises(DataError, match="file is not a database"):
        everything(str(tmp_path / "d.db"), NUMBERS)
    for name in ("none.db", "none.csv", "none.py:f"):
        with pytest.raises(DataError, match="does not exist"):
            check_source(str(tmp_path / name))
    with pytest.raises(DataError, match=r"neither an \.npz, text \(\.csv"):
        check_source(str(tmp_path / "my_data.batches"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no \.npz, \.npy or \.csv files"):
        check_source(str(tmp_path / "empty"))
    np.save(tmp_path / "empty" / "x.npy", X)
    with pytest.raises(DataError, match=r"labels\.npy does not exist"):
        everything(str(tmp_path / "empty"))
    np.save(tmp_path / "empty" / "labels.npy", Y[:9])
    with pytest.raises(DataError, match=r"different lengths: x\.npy 20, labels\.npy 9"):
        everything(str(tmp_path / "empty"))
    (tmp_path / "empty" / "labels.npy").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"cannot be read as \.npy"):
        everything(str(tmp_path / "empty"))
    np.savez(tmp_path / "empty" / "d.npz", x=X)
    with pytest.raises(DataError, match="has both"):
        check_source(str(tmp_path / "empty"))
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        check_source(str(tmp_path / "wrong.py:f"))


def test_models_of_several_inputs_and_of_several_numbers(tmp_path: Path) -> None:
    source = written(tmp_path / "d.csv", "t,a,b,c,u,v\nnoon,1,2,3,4,5\n")
    regression = small(Tensor("y", "float32", (-1, 2)), None)
    found = everything(source, {"columns": ["a", "b", "c"], "labels": ["u", "v"]}, regression)
    assert found[0].tolist() == [[1, 2, 3]]
    assert found[1].tolist() == [[4, 5]]
    two = replace(regression, inputs=(*regression.inputs, Tensor("z", "float32", (-1, 1))))
    with pytest.raises(DataError, match="this one has x, z: use a function"):
        everything(source, {}, two)


def test_a_large_table_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(mixing, "POOL_BYTES", 1 << 16)
    source = written(tmp_path / "d.csv", "a,b,c,labels\n" + "0.123456789,1.5,2.5,1\n" * 100_000)
    data = open_data(source, {}, small())
    tracemalloc.start()
    try:
        count = sum(len(batch[-1]) for batch in data.batches(32, np.random.default_rng(0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 1 << 20  # the file has 2.2 MB


@given(st.integers(1, 300), st.floats(0, 0.9), st.randoms(use_true_random=False))
def test_the_holdout_is_the_same_for_ever(count: int, fraction: float, random: Random) -> None:
    x = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    y = np.arange(count) % 3
    mask = held_out((x, y), fraction)
    order = np.array(random.sample(range(count), count))
    assert np.array_equal(held_out((x[order], y[order]), fraction), mask[order])
    assert np.array_equal(held_out((x[: count // 2], y[: count // 2]), fraction), mask[: count // 2])
    assert (mask <= held_out((x, y), min(0.9, 2 * fraction))).all()


def test_the_holdout_is_the_same_in_every_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, labels=Y)
    sides = []
    for source in (str(tmp_path / "d.npz"), written(tmp_path / "d.csv", csv_text())):
        local = open_local(Data(Source(source), holdout=0.3), small(), directory=tmp_path, device="pi")
        assert local.holdout is not None
        parts = [np.concatenate([batch[0] for batch in each.batches(4, None)]) for each in (local, local.holdout)]
        assert sorted(np.concatenate(parts)[:, 0]) == sorted(X[:, 0])
        sides.append(parts[1].tolist())
        measured = open_measured(Data(Source(source), holdout=0.3), small(), directory=tmp_path, device="pi")
        assert [row for batch in measured.batches(4, None) for row in batch[0].tolist()] == sides[-1]
        assert local.refresh() == 0
    assert sides[0] == sides[1]
    assert 2 <= len(sides[0]) <= 10
    one = Data(Source(written(tmp_path / "one.csv", "".join(csv_text().splitlines(keepends=True)[:2]))), holdout=0.001)
    local = open_local(one, small(), directory=tmp_path, device="pi")
    assert local.holdout is not None
    with pytest.raises(NoExamplesError, match="no example has fallen into the holdout yet"):
        list(local.holdout.batches(4, None))
