"""Local data that does and does not fit the model."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from broker import demo_data
from edgeclient.train.data import DataError, check_source, open_data
from edgeclient.wire import bundle
from edgeclient.wire.bundle import Bundle


@pytest.fixture(scope="module")
def opened() -> Bundle:
    return bundle.decode(demo_data.bundle_bytes())


def _good() -> dict[str, npt.NDArray[Any]]:
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
        ({"labels": np.zeros(4)}, "the model wants int64"),
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
