"""Tables and arrays as boards write them: read by the doctor as by a round, or one line that says what to do."""

import gzip
import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import pytest

from edgeclient.bundle import archive
from edgeclient.bundle.archive import Bundle
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Manifest, Optimiser, Tensor
from edgeclient.commands.doctor.data import data as looked_at
from edgeclient.commands.doctor.findings import worst
from edgeclient.compress.arrays import F32, I64, Array
from edgeclient.models.slots import Models
from edgeclient.settings import Data, Device
from edgeclient.settings.keys import Source
from edgeclient.train import mixing
from edgeclient.train.batches import Batch, DataError, NoExamplesError
from edgeclient.train.data import open_source
from edgeclient.train.holdout import Examples
from edgeclient.train.local import open_local
from edgeclient.train.sources import arrays, table
from edgeclient.train.trainer import Plan
from edgeclient.train.trainers import open_trainer
from edgeclient.wire.announcement import Announcement, Blob

ROOT: Final = Path(__file__).parents[2]
CASES: Final = ROOT / "tests" / "cases" / "data"
AXES: Final = ["ax", "ay", "az", "gx", "gy", "gz"]
WORDS: Final = {"labels": "activity", "classes": ["idle", "run", "walk"]}
NUMBERS: Final = {"query": "SELECT * FROM r"}
HASS: Final = {"query": "SELECT metadata_id, metadata_id, metadata_id, metadata_id, state, 0, 1 AS label FROM states"}
# What the files have in common: six columns, and the number of the largest of the first three.
COUNTS: Final = (33, 37, 20)


@pytest.fixture(scope="module")
def opened() -> Bundle:
    """A model of six inputs and three classes."""
    return archive.decode((CASES / "functions.bundle").read_bytes())


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, opened: Bundle) -> Device:
    """A device that has fetched it."""
    folder = tmp_path_factory.mktemp("device")
    content = (CASES / "functions.bundle").read_bytes()
    made = Device("d", "t", folder / "state", Data(Source("x.npz")))
    models = Models(made.models)
    models.install_bundle(sha256(content).hexdigest(), content)
    numbers = opened.parameters.astype("<f4").tobytes()
    parameters, bundle = (Blob(sha256(each).hexdigest(), len(each), 1 << 14) for each in (numbers, content))
    layout = opened.manifest.layout
    announced = Announcement("t", 0, "00" * 8, "00" * 8, 1, parameters, bundle, layout.digest, layout.size)
    models.activate(announced, numbers)
    return made


def read(device: Device, source: Path | str, options: dict[str, Any] | None = None) -> tuple[Batch, list[str]]:
    """What a round learns, and what its owner is told: the same by the doctor."""
    given = Data(Source(str(source)), options or {})
    model = Models(device.models).active()
    assert model is not None
    local = open_local(given, model.manifest, directory=device.directory, device="d")
    batches = list(local.batches(16, np.random.default_rng(0)))
    made = open_trainer(model.bundle_directory).train(
        model.parameters, local, Plan(0.05, 1, 16), np.random.default_rng(0)
    )
    assert made.num_examples == sum(len(batch[-1]) for batch in batches)
    notes = list(local.notes.values())
    findings = list(looked_at(attrs.evolve(device, data=given)))
    assert f" {made.num_examples} examples fit the model" in findings[0].what
    assert [each.what for each in findings[1:]] == notes
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True)), notes


def refused(device: Device, source: Path | str, options: dict[str, Any] | None = None) -> str:
    """The one line that a round and the doctor say."""
    given = Data(Source(str(source)), options or {})
    (finding,) = looked_at(attrs.evolve(device, data=given))
    with pytest.raises(DataError) as caught:
        read(device, source, options)
    assert finding.level == "fail"
    assert finding.what == str(caught.value)
    assert "\n" not in finding.what
    return finding.what


def counts(batch: Batch) -> tuple[int, ...]:
    return tuple(np.bincount(batch[-1]).tolist())


def case(name: str, *arguments: Any) -> Any:
    return pytest.param(*arguments, marks=pytest.mark.case(f"onnx {name}"), id=f"{name} {arguments[0]}")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.csv", {}),
        ("bom_crlf.csv", {}),
        ("words.csv", WORDS),
        ("plain.db", NUMBERS),
        case("D02", "csvs", {}),
        case("D05", "deccomma.csv", {"delimiter": ";", "decimal": ","}),
        case("D06", "semicolon.csv", {}),
        case("D06", "quoted_semicolon.csv", {}),
        case("D07", "airquality_dot.csv", {"columns": AXES}),
        case("D07", "airquality.csv", {"columns": AXES, "decimal": ","}),
        case("D08", "occupancy.csv", {"columns": AXES, "labels": "Occupancy"}),
        case("D09", "noheader.csv", {"header": False}),
        case("D11", "spaces_words.csv", WORDS),
        case("D12", "UPPER.CSV", {}),
        case("D14", "missing_empty.csv", {"missing": 0}),
        case("D14", "missing_nan.csv", {"missing": 0}),
        case("D18", "text.db", NUMBERS | {"classes": ["idle", "run", "walk"]}),
        case("D19", "nulls.db", NUMBERS | {"missing": 0.5}),
        case("D21", "onehot.npz", {}),
        case("D22", "col.npz", {}),
        case("D22", "flabels.npz", {}),
        case("D23", "strlabels.npz", {"classes": ["idle", "run", "walk"]}),
        case("D25", "csvs", {}),
        ("fn.py:arrays", {}),
        ("fn.py:batches", {}),
    ],
)
def test_what_boards_write_is_read(name: str, options: dict[str, Any], device: Device) -> None:
    found, notes = read(device, CASES / name, options)
    assert found[0].shape == (90, 6)
    wanted = (33, 20, 37) if "classes" in options else COUNTS
    assert counts(found) == wanted
    if "missing" not in options:
        largest = found[0][:, :3].argmax(axis=1)
        assert np.array_equal(found[1], np.array([0, 2, 1])[largest] if "classes" in options else largest)
    assert notes == []


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        case("D01", "dup.csv", {}, "has two columns 'ax': rename one"),
        case("D05", "deccomma.csv", {"delimiter": ";"}, "line 2, column 'ax': is '0,1257', no number: decimal = "),
        case("D06", "semicolon.csv", {"delimiter": ","}, "has no column 'labels'"),
        case("D07", "airquality_dot.csv", {}, "line 2, column 'Date': is '10/03/2004', no number:"),
        case("D08", "occupancy.csv", {"labels": "Occupancy"}, "column 'date': is '2015-02-04 17:51:00', no number"),
        case("D09", "wisdm.csv", {}, "line 1 looks like data: header = false in [data.options]"),
        case("D09", "noheader.csv", {}, 'they are called 1 to 7 then, labels = "7" is the last'),
        case("D14", "missing_empty.csv", {}, "line 42, column 'ax': is '', no number: missing = \"skip\" in"),
        case("D14", "missing_nan.csv", {}, "line 42, column 'ax': is 'NaN', no number: missing = \"skip\""),
        case("D15", "influx.csv", {}, "it has result, table, _value, _field"),
        case("D18", "hass.db", HASS, "WHERE ... in the query (CAST(... AS REAL) makes 0 of them), or with skip_bad"),
        case("D18", "text.db", NUMBERS, "row 1 of the query, column 'label': is 'run', no number: words need classes"),
        case("D19", "nulls.db", NUMBERS, "row 41 of the query, column 'ax': is None, no number: missing = \"skip\""),
        case("D23", "strlabels.npz", {}, "labels has 'idle', 'run', 'walk': classes = [...] in [data.options] numbers"),
        case("D26", "wisdm.csv", {"header": False, "labels": "2", "window": 0}, "window is 0: a number of rows"),
        case("D27", "fn.py:aslist", {}, "returns list of 2: a tuple (x, labels), or batches of such, is wanted"),
        case("D27", "fn.py:asdict", {}, "returns dict: a tuple (x, labels), or batches of such, is wanted"),
        ("fn.py:dictbatches", {}, "gives dict: 2 arrays are wanted, a tuple (x, labels)"),
        case("D29", "fn.py:typeerr", {}, "TypeError: object of type 'int' has no len() (FN, line 39)"),
        ("fn.py:raises", {}, "RuntimeError: sensor is not connected second line (FN, line 43)"),
        ("fn.py:late", {}, "OSError: bus error (FN, line 48)"),
        ("fn.py:exits", {}, "SystemExit: 3 (FN, line 52)"),
        ("fn.py:withargs", {}, "missing 1 required positional argument: 'path': see [data.options]"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(name: str, options: dict[str, Any], said: str, device: Device) -> None:
    assert said.replace("FN", f"{CASES}/fn.py") in refused(device, CASES / name, options)


@pytest.mark.parametrize(
    ("name", "options", "rows", "said"),
    [
        case("D03", "truncated.csv", {}, 89, "the last line of truncated.csv is not finished: it waits"),
        case("D14", "missing_empty.csv", {"missing": "skip"}, 89, "1 rows without a value skipped, such as "),
        case("D14", "missing_nan.csv", {"missing": "skip"}, 89, "missing_nan.csv, line 42"),
        case("D18", "hass.db", HASS | {"missing": "skip"}, 529, "11 rows without a value skipped, such as "),
        case("D19", "nulls.db", NUMBERS | {"missing": "skip"}, 89, "nulls.db, row 41 of the query"),
        ("missing_empty.csv", {"skip_bad": True}, 89, "missing_empty.csv, line 42, column 'ax': is ''"),
    ],
)
def test_what_is_skipped_or_waits_is_told(
    name: str, options: dict[str, Any], rows: int, said: str, device: Device
) -> None:
    found, notes = read(device, CASES / name, options)
    assert len(found[1]) == rows
    assert said in notes[0]


@pytest.mark.case("onnx D15")
def test_comments_of_influx(device: Device) -> None:
    options = {"labels": "_field", "columns": ["_value"], "classes": ["ax"]}
    found = pieces(CASES / "influx.csv", options, model((1,)))
    assert found[0].shape == (90, 1)
    assert "1 numbers for x, the model wants 6" in refused(device, CASES / "influx.csv", options)


def test_encodings_and_packed_files(device: Device, tmp_path: Path) -> None:
    text = (CASES / "plain.csv").read_text().replace("labels", "größe")
    options = {"labels": "größe"}
    for name, content in [
        ("utf16.csv", text.encode("utf-16")),
        ("packed.csv.gz", gzip.compress(text.encode())),
        ("tabs.tsv", text.replace(",", "\t").encode()),
        ("blanks.TXT", text.replace(",", "   ").encode()),
    ]:
        (tmp_path / name).write_bytes(content)
        found, notes = read(device, tmp_path / name, options)
        assert counts(found) == COUNTS, name
        assert notes == []
    (tmp_path / "latin.csv").write_bytes(text.encode("latin-1"))
    assert 'encoding = "latin-1"' in refused(device, tmp_path / "latin.csv", options)
    assert counts(read(device, tmp_path / "latin.csv", options | {"encoding": "latin-1"})[0]) == COUNTS
    assert "encoding is 'runes'" in refused(device, tmp_path / "latin.csv", options | {"encoding": "runes"})
    (tmp_path / "le.csv").write_bytes(text.encode("utf-16-le"))
    assert 'encoding = "utf-16-le"' in refused(device, tmp_path / "le.csv", options)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode())[:-50])
    assert "cannot be read" in refused(device, tmp_path / "cut.csv.gz", options)
    (tmp_path / "endless.csv").write_bytes(b"1" * (1 << 21))
    assert "a line of more than 1 MB" in refused(device, tmp_path / "endless.csv")


def test_bad_rows_are_skipped_when_asked_to(device: Device, tmp_path: Path) -> None:
    rows = (CASES / "plain.csv").read_text().splitlines()
    bad = ["1,2,3", 'boom,"x', '"' + "1" * 200_000, "1,2,3,4,5,6,seven", "1,2,inf,4,5,6,0", ",,,,,,", "1,2,3,4,5,6,7,8"]
    text = "\n".join([*rows[:50], *bad, "GARBAGE", *rows[50:]]) + "\n"
    # What a power cut leaves on a card: zeros where a block was not written, and what stood there before.
    garbage = bytes(3 << 20) + b"\n\xff\xfe\x80,1,2"
    (tmp_path / "d.csv").write_text(text)
    assert "d.csv, line 51: 3 cells, the header has 7" in refused(device, tmp_path / "d.csv")
    (tmp_path / "d.csv").write_bytes(text.encode().replace(b"GARBAGE", garbage))
    found, (note,) = read(device, tmp_path / "d.csv", {"skip_bad": True})
    assert counts(found) == COUNTS
    assert re.match(r"\d+ bad rows skipped, such as .*d.csv, line \d+", note)


@pytest.mark.case("onnx D03")
def test_a_line_that_a_logger_still_writes_waits(device: Device, tmp_path: Path) -> None:
    content = (CASES / "plain.csv").read_bytes()
    path = tmp_path / "log.csv"
    for size in (*range(500, 1012, 85), len(content)):
        path.write_bytes(content[:size])
        whole = content[:size].count(b"\n") - 1
        (x, _), notes = read(device, path)
        assert len(x) in {whole, whole + (content[size : size + 1] == b"\n")}
        waits = ["the last line of log.csv is not finished: it waits"]
        assert notes == (waits if len(x) == whole and not content[:size].endswith(b"\n") else [])


@pytest.mark.case("onnx D03")
def test_a_whole_number_without_an_end_of_line_may_be_half_of_one(device: Device, tmp_path: Path) -> None:
    """A label 1 may become 12; in a file that nobody has written for a minute it is 1."""
    path = tmp_path / "log.csv"
    path.write_bytes((CASES / "plain.csv").read_bytes().rstrip(b"\n"))
    whole = len((CASES / "plain.csv").read_bytes().splitlines()) - 1
    (x, _), notes = read(device, path)
    assert (len(x), notes) == (whole - 1, ["the last line of log.csv is not finished: it waits"])
    for age_s in (61, -3600):
        os.utime(path, (0, time.time() - age_s))
        (x, _), notes = read(device, path)
        assert (len(x), notes) == (whole, [])


def test_an_empty_file_is_one_line_and_an_empty_recording_of_a_folder_waits(device: Device, tmp_path: Path) -> None:
    for name in ("d.csv", "d.npz", "d.db"):
        (tmp_path / name).touch()
        assert name in refused(device, tmp_path / name, NUMBERS if name == "d.db" else {})
        (tmp_path / name).unlink()
    for begun in ("", "# a logger", "ax,ay,az,gx,gy,gz,lab"):  # run starts, and waits for the first line
        (tmp_path / "d.csv").write_text(begun)
        with pytest.raises(NoExamplesError, match=r"d\.csv is empty: a header line comes first"):
            read(device, tmp_path / "d.csv")
    shutil.copytree(CASES / "recordings_by_class", tmp_path / "npz")
    (tmp_path / "npz" / "recording-9.npz").write_bytes((CASES / "onehot.npz").read_bytes()[:999])
    assert read(device, tmp_path / "npz")[1] == ["recording-9.npz is not finished: it waits"]
    shutil.copytree(CASES / "csvs", tmp_path / "csvs")
    (tmp_path / "csvs" / "rec9.csv").touch()
    found, (note,) = read(device, tmp_path / "csvs")
    assert counts(found) == COUNTS
    assert note.startswith("rec9.csv is empty")


@pytest.mark.case("fleet 59")
def test_a_data_file_finds_modules_beside_it_and_hides_none(device: Device, tmp_path: Path) -> None:
    (tmp_path / "own_sensor.py").write_text("import numpy as np\nX = np.eye(6)[[0, 1, 2, 1]]\n")
    (tmp_path / "edgeclient.py").write_text("raise SystemExit('shadowed')\n")
    lazily = "def f():\n    import edgeclient.wire, own_sensor\n    yield own_sensor.X, own_sensor.X[:, :3].argmax(1)\n"
    (tmp_path / "d.py").write_text(f"import own_sensor, edgeclient\n{lazily}")
    before = list(sys.path)
    try:
        assert counts(read(device, f"{tmp_path}/d.py:f")[0]) == (1, 2, 1)
    finally:
        sys.modules.pop("own_sensor", None)
    assert sys.path == before
    (tmp_path / "e.py").write_text("\nimport missing_sensor\n")
    assert f"No module named 'missing_sensor' ({tmp_path}/e.py, line 2)" in refused(device, f"{tmp_path}/e.py:f")


@pytest.mark.case("fleet 50")
def test_data_larger_than_memory_is_one_line_and_doctor_says_so(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, dtype, shape in (("x", "f4", (16_000_000, 6)), ("labels", "i8", (16_000_000,))):
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(
                    entry, {"descr": f"<{dtype}", "fortran_order": False, "shape": shape}
                )
                for _ in range(10):
                    entry.write(bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize // 10))
    (tmp_path / "d.toml").write_text(
        f'device = "d"\ntask = "t"\ndirectory = "{device.directory}"\n[data]\nsource = "{path}"\n[mqtt]\nport = 9\n'
    )
    for command in ("evaluate", "doctor"):
        done = subprocess.run(
            [sys.executable, "-m", "edgeclient.cli", command, str(tmp_path / "d.toml")], cwd=tmp_path,
            env={"PATH": "", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=100,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)),
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        (line,) = [each for each in (done.stdout + done.stderr).splitlines() if "is too large" in each]
        assert line.endswith("a folder of .npy files, a CSV file and SQLite are read in parts")
        assert "Traceback" not in done.stderr


def test_memory_is_asked_for_before_it_is_taken(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "available_bytes", lambda: 1000)
    assert "onehot.npz is too large: it takes 0 MB of memory, 0 MB are free" in refused(device, CASES / "onehot.npz")


# Mixing


@pytest.mark.case("onnx D02")
def test_recordings_of_one_class_each_are_mixed(device: Device) -> None:
    (_, labels), notes = read(device, CASES / "recordings_by_class")
    assert notes == []
    runs = 1 + sum(a != b for a, b in pairwise(labels.tolist()))
    assert runs > 300  # 600 examples in three files: 400 are expected of an even mixture


def ordered(folder: Path, count: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """The same rows, ordered by class, in every kind of source; and mixed in one .npz."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    np.savez(folder / "mixed.npz", x=x, labels=y)
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    for name in ("npy", "npz"):
        (folder / name).mkdir()
    np.save(folder / "npy" / "x.npy", x)
    np.save(folder / "npy" / "labels.npy", y)
    for label in range(3):
        np.savez(folder / "npz" / f"{label}.npz", x=x[y == label], labels=y[y == label])
    rows = [(*map(float, row), int(label)) for row, label in zip(x, y, strict=True)]
    (folder / "d.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in [(*AXES, "labels"), *rows]))
    with closing(sqlite3.connect(folder / "d.db")) as connection, connection:
        connection.execute("CREATE TABLE r (ax, ay, az, gx, gy, gz, label)")
        connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    names = ("mixed.npz", "npy", "npz", "d.csv", "d.db")
    return {name: (str(folder / name), NUMBERS if name == "d.db" else {}) for name in names}


@pytest.mark.case("onnx D02")
@pytest.mark.parametrize("pool_bytes", [mixing.POOL_BYTES, 1 << 15])
def test_rows_ordered_by_class_are_learnt_as_mixed_ones(
    pool_bytes: int, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12,000 rows, 384 kB: all in the pool, or twelve times as much as it holds."""
    small = pool_bytes < mixing.POOL_BYTES
    monkeypatch.setattr(mixing, "POOL_BYTES", pool_bytes)
    for module in ("arrays", "delimited", "query", "table") if small else ():
        monkeypatch.setattr(f"edgeclient.train.sources.{module}.BLOCK_BYTES", 1 << 13)
    model_ = Models(device.models).active()
    assert model_ is not None
    trainer = open_trainer(model_.bundle_directory)
    losses = {}
    sources = ordered(tmp_path, 12_000)
    measured = Examples(open_source(*sources["mixed.npz"], model_.manifest))
    for name, (source, options) in sources.items():
        data = Examples(open_source(source, options, model_.manifest))
        made = trainer.train(model_.parameters, data, Plan(0.2, 1, 16), np.random.default_rng(0))
        assert made.num_examples == 12_000
        losses[name] = trainer.evaluate(model_.parameters + made.delta, measured).loss
        # Three files that are each larger than the pool cannot be mixed, and that is told.
        assert ("order" in data.source.notes) == (small and name == "npz")
    told = losses.pop("npz") if small else 0.0
    assert told == 0.0 or told > 0.5
    assert max(losses.values()) < 0.2, losses


def test_the_same_seed_gives_the_same_batches(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "POOL_BYTES", 1 << 12)
    monkeypatch.setattr(table, "BLOCK_BYTES", 1 << 10)
    source, options = ordered(tmp_path, 600)["d.csv"]
    model_ = Models(device.models).active()
    assert model_ is not None
    passes = [
        [batch[0] for batch in Examples(open_source(source, options, model_.manifest)).batches(32, rng)]
        for rng in map(np.random.default_rng, (5, 5, 6))
    ]
    assert [len(batch) for batch in passes[0]] == [32] * 18 + [24]
    assert all(np.array_equal(*pair) for pair in zip(*passes[:2], strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(*passes[1:], strict=True))


def test_labels_that_never_vary_and_batches_in_order_are_told(device: Device, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 6), np.float32), labels=np.full(50, 2))
    assert read(device, tmp_path / "d.npz")[1] == ["all 50 labels are 2: nothing to learn"]
    (note,) = read(device, f"{CASES}/fn.py:ordered")[1]
    assert note.startswith("examples are ordered by label, and learnt in that order; the function decides")


# Windows


def model(shape: tuple[int, ...], classes: int | None = 3, labels: Tensor | None = None) -> Manifest:
    tensors = (Tensor("x", "float32", (-1, *shape)),), labels or Tensor("labels", "int64", (-1,))
    return Manifest(Layout((Parameter("w", (1,)),)), *tensors, classes, "custom", Optimiser(), "", "")


def pieces(source: Path, options: dict[str, Any], manifest: Manifest) -> tuple[F32, I64]:
    batches = list(Examples(open_source(str(source), options, manifest)).batches(7, None))
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return x, y


def expected(rows: Array, groups: Array, size: int, stride: int) -> list[Array]:
    """Windows by the book."""
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(rows)]
    return [rows[at : at + size] for first, end in pairwise(edges) for at in range(first, end - size + 1, stride)]


@pytest.mark.case("onnx D26")
@pytest.mark.parametrize(("size", "stride"), [(16, 8), (16, 16), (5, 9), (40, 1), (1, 1)])
@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 20])
def test_windows_over_rows(
    size: int, stride: int, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("delimited", "query", "table"):
        monkeypatch.setattr(f"edgeclient.train.sources.{module}.BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(size)
    rows, user = rng.normal(size=(300, 2)).astype(np.float32), np.repeat([3, 5, 3, 4], [90, 100, 70, 40])
    label = np.repeat([0, 1, 2], 100)
    lines = [f"{u},{a},{b},{'abc'[k]}" for u, (a, b), k in zip(user, rows, label, strict=True)]
    (tmp_path / "d.csv").write_text("\n".join(["user,a,b,what", *lines]) + "\n")
    options = {
        "labels": "what",
        "classes": ["a", "b", "c"],
        "window": size,
        "stride": stride,
        "group": ["user", "what"],
    }
    groups = 10 * user + label
    wanted = expected(np.column_stack([rows, label]), groups, size, stride)
    x, y = pieces(tmp_path / "d.csv", options, model((size, 2)))
    assert np.array_equal(x, np.array([each[:, :2] for each in wanted], np.float32))
    assert y.tolist() == [int(each[-1, 2]) for each in wanted]
    with closing(sqlite3.connect(tmp_path / "d.db")) as connection, connection:
        connection.execute("CREATE TABLE r (user, a, b, what)")
        every = zip(user.tolist(), *map(list, rows.astype(float).T), ["abc"[k] for k in label], strict=True)
        connection.executemany("INSERT INTO r VALUES (?, ?, ?, ?)", every)
    found = pieces(tmp_path / "d.db", options | NUMBERS, model((2, size)))
    if size != 2:
        assert np.array_equal(found[0], x.swapaxes(1, 2))
    flat = pieces(tmp_path / "d.db", options | NUMBERS, model((2 * size,)))
    assert np.array_equal(flat[0], x.reshape(len(x), -1))


@pytest.mark.case("onnx D26")
def test_a_recording_of_one_sample_a_row(device: Device) -> None:
    options = {"header": False, "labels": "2", "columns": list("456789"), "classes": ["idle", "run", "walk"]}
    said = refused(device, CASES / "wisdm.csv", options | {"window": 16})
    assert "a window gives 16 x 6 numbers for x, the model wants 6" in said
    source = CASES / "wisdm.csv"
    with pytest.raises(DataError, match=r"a row gives 6 numbers for x, the model wants 16 x 6: window = 16"):
        pieces(source, options, model((16, 6)))
    x, y = pieces(source, options | {"window": 16, "stride": 8}, model((16, 6)))
    assert x.shape == (10, 16, 6)
    words = [line.split(",")[1] for line in source.read_text().splitlines()]
    for at, label in enumerate(y):
        inside = words[8 * at : 8 * at + 16]
        assert inside.count(["idle", "run", "walk"][label]) == max(map(inside.count, inside))  # the most common
    numbers = model((16, 5), None, Tensor("y", "float32", (-1, 1)))
    columns = {"header": False, "labels": "9", "columns": list("45678"), "window": 16}
    last = pieces(source, columns, numbers)[1]
    assert last[0, 0] == pytest.approx(float(source.read_text().splitlines()[15].rstrip(";").split(",")[-1]))
    with pytest.raises(DataError, match="no window of 16 rows: the group changes, or the file ends"):
        pieces(source, options | {"window": 16, "group": "1"}, model((16, 6)))


def test_windows_are_missed_only_by_a_pass_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("\n".join(["x,labels", *(f"{at},0" for at in range(24)), "24,run"]) + "\n")
    for window in (25, 10):
        source = open_source(str(path), {"window": window}, model((10,)))
        with pytest.raises(DataError, match="line 26, column 'labels': is 'run', no number"):
            list(source.blocks(None))
        assert not source.notes
    path.write_text(path.read_text().replace("run", "0"))
    source = open_source(str(path), {"window": 26}, model((26,)))
    assert not list(source.blocks(None))
    assert source.notes == {"windows": "no window of 26 rows: the group changes, or the file ends, before"}
    path.write_text(path.read_text() + "25,0\n")
    assert len(list(source.blocks(None))) == 1
    assert not source.notes


@pytest.mark.parametrize(
    ("window", "columns", "shape", "way"),
    [
        (16, 3, (3, 32), "window = 32 in"),
        (16, 3, (96,), "window = 32 in"),
        (32, 4, (3, 32), "see [data.options] columns"),
        (16, 4, (3, 32), "see [data.options] window and columns"),
        (None, 3, (3, 32), "window = 32 in"),
        (None, 3, (6,), "see [data.options] columns"),
    ],
)
def test_what_is_wrong_about_a_window_is_named(
    tmp_path: Path, window: int | None, columns: int, shape: tuple[int, ...], way: str
) -> None:
    names = [f"c{at}" for at in range(columns)]
    rows = [",".join(["1"] * columns + ["0"])] * 64
    (tmp_path / "d.csv").write_text("\n".join([",".join([*names, "labels"]), *rows]) + "\n")
    with pytest.raises(DataError) as refused:
        pieces(tmp_path / "d.csv", {"window": window} if window else {}, model(shape))
    assert way in str(refused.value)


def test_windows_never_cross_files_and_a_kind_holdout_is_told(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 100)):
        rows = [f"{value},{value % 3}" for value in range(first, first + 25)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,labels", *rows]) + "\n")
    options = {"window": 10, "stride": 5}
    x, _ = pieces(tmp_path, options, model((10,)))
    assert x[:, 0].tolist() == [0, 5, 10, 15, 100, 105, 110, 115]
    given = Data(Source(str(tmp_path)), options, holdout=0.3)
    notes = open_local(given, model((10,)), directory=tmp_path, device="d").notes
    assert "stride = window" in notes["holdout"]
    with pytest.raises(DataError, match="stride needs window"):
        pieces(tmp_path, {"stride": 5}, model((10,)))


def test_windows_of_a_growing_table_go_on_where_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeclient.train.sources.query.BLOCK_BYTES", 200)
    options = {"query": "SELECT rowid AS n, x, label FROM r", "since": "n", "window": 10, "stride": 4}
    path, given, cursor = tmp_path / "d.db", Data(Source(str(tmp_path / "d.db"))), None
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE r (x, label)")
    starts: list[float] = []
    total = 0
    for more in (3, 9, 1, 30, 4, 18):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO r VALUES (?, 0)", [(total + at,) for at in range(more)])
        total += more
        source = open_source(given.source, options, model((10,)))
        for block, behind in source.blocks(None, cursor):
            starts += block[0][:, 0].tolist()
            cursor = behind
    assert starts == list(range(0, total - 9, 4))


def test_levels_of_what_doctor_says(device: Device) -> None:
    given = attrs.evolve(device, data=Data(Source(str(CASES / "truncated.csv"))))
    findings = list(looked_at(given))
    assert worst(findings) == "warn"
    assert findings[0].what.endswith("89 examples fit the model, labels 0: 32, 1: 37, 2: 20")
    new = attrs.evolve(given, directory=Path("/nowhere"))
    assert "compared with the model once that has come" in next(looked_at(new)).what
    assert "truncated.csv, 89 rows can be read: compared" in next(looked_at(new)).what
    for name, options, said in [
        ("missing_nan.csv", {}, "line 42, column 'ax'"),
        ("plain.db", {"query": "SELECT x FROM r"}, "no such column: x"),
        ("words.csv", {}, "has no column 'labels'"),
    ]:
        finding = next(looked_at(attrs.evolve(new, data=Data(Source(str(CASES / name)), options))))
        assert (finding.level, said in finding.what) == ("fail", True)
    arrays_ = attrs.evolve(new, data=Data(Source(str(CASES / "col.npz"))))
    assert "arrays of (90, 6) (90, 1)" in next(looked_at(arrays_)).what
    growing = attrs.evolve(new, data=Data(Source(f"{CASES}/fn.py:batches"), replay_examples=5))
    assert "not called" in next(looked_at(growing)).what
    assert json.dumps([each.what for each in findings])
