"""Training against a NumPy definition, and local data that does not fit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from broker import demo_data
from edgeclient.train.data import DataError, Dataset, check_source, open_data
from edgeclient.train.native import NativeTrainer, check_runtimes, import_training
from edgeclient.train.trainer import Plan, TrainingError
from edgeclient.wire import bundle
from edgeclient.wire.bundle import Bundle
from tools.make_demo_task import MEAN, SPREAD

F64 = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def opened() -> Bundle:
    return bundle.decode(demo_data.bundle_bytes())


@pytest.fixture(scope="module")
def trainer(opened: Bundle, tmp_path_factory: pytest.TempPathFactory) -> NativeTrainer:
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in opened.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return NativeTrainer(folder)


@pytest.fixture(scope="module")
def windows(opened: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    x, labels = demo_data.device_windows(1, 0)
    path = tmp_path_factory.mktemp("data") / "windows.npz"
    np.savez(path, x=x, labels=labels)
    return open_data(str(path), {}, opened.manifest)


def _forward(p: dict[str, F64], x: npt.NDArray[np.float32]) -> tuple[F64, F64, F64]:
    inputs = (x - np.tile(MEAN, 100)) / np.tile(SPREAD, 100)
    hidden = inputs @ p["hidden.weight"] + p["hidden.bias"]
    logits = np.maximum(hidden, 0) @ p["output.weight"] + p["output.bias"]
    return inputs, hidden, logits


def _softmax(logits: F64) -> F64:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    made: F64 = powers / powers.sum(axis=1, keepdims=True)
    return made


def _sgd_step(p: dict[str, F64], x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], rate: float) -> None:
    inputs, hidden, logits = _forward(p, x)
    g = _softmax(logits)
    g[np.arange(len(labels)), labels] -= 1
    g /= len(labels)
    back = (g @ p["output.weight"].T) * (hidden > 0)
    steps = {
        "output.weight": np.maximum(hidden, 0).T @ g,
        "output.bias": g.sum(0),
        "hidden.weight": inputs.T @ back,
        "hidden.bias": back.sum(0),
    }
    for name, step in steps.items():
        p[name] = p[name] - rate * step


def test_delta_equals_the_numpy_definition(trainer: NativeTrainer, opened: Bundle, windows: Dataset) -> None:
    made = trainer.train(opened.parameters, windows, Plan(0.02, 2, 16), np.random.default_rng(5))
    layout = opened.manifest.layout
    p = {name: value.astype(np.float64) for name, value in layout.split(opened.parameters).items()}
    rng = np.random.default_rng(5)
    steps = 0
    for _ in range(2):
        for x, labels in windows.batches(16, rng):
            _sgd_step(p, x, labels, 0.02)
            steps += 1
    expected = np.concatenate([p[each.name].ravel() for each in layout.parameters]) - opened.parameters
    assert made.steps == steps
    assert made.num_examples == len(demo_data.device_windows(1, 0)[1])
    assert np.linalg.norm(made.delta - expected) <= 1e-4 * np.linalg.norm(expected)


def test_the_same_seed_gives_the_same_bits(trainer: NativeTrainer, opened: Bundle, windows: Dataset) -> None:
    plan = Plan(0.02, 1, 16)
    first, second, other = (
        trainer.train(opened.parameters, windows, plan, np.random.default_rng(seed)).delta for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_evaluation_equals_a_numpy_forward_pass(trainer: NativeTrainer, opened: Bundle, windows: Dataset) -> None:
    x, labels = demo_data.device_windows(1, 0)
    p = {name: value.astype(np.float64) for name, value in opened.manifest.layout.split(opened.parameters).items()}
    _, _, logits = _forward(p, x)
    found = trainer.evaluate(opened.parameters, windows)
    assert found.num_examples == len(labels)
    assert found.accuracy == (logits.argmax(1) == labels).mean()
    assert found.loss == pytest.approx(-np.log(_softmax(logits)[np.arange(len(labels)), labels]).mean(), rel=1e-4)
    assert found.majority == np.bincount(labels).max() / len(labels)


def test_training_lowers_the_loss(trainer: NativeTrainer, opened: Bundle, windows: Dataset) -> None:
    made = trainer.train(opened.parameters, windows, Plan(0.02, 5, 16), np.random.default_rng(0))
    after = trainer.evaluate(opened.parameters + made.delta, windows)
    assert after.loss < 0.5 * trainer.evaluate(opened.parameters, windows).loss


def test_divergence_is_an_error(trainer: NativeTrainer, opened: Bundle, windows: Dataset) -> None:
    with pytest.raises(TrainingError, match="smaller learning rate"):
        trainer.train(opened.parameters, windows, Plan(1e6, 2, 16), np.random.default_rng(0))


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


def test_runtimes() -> None:
    check_runtimes({"onnxruntime-training-cpu", "numpy"})
    with pytest.raises(TrainingError, match="overwrite each other"):
        check_runtimes({"onnxruntime-training-cpu", "onnxruntime"})
    with pytest.raises(TrainingError, match="not installed"):
        check_runtimes({"onnxruntime"})


def test_the_runtime_is_loaded_late_and_stays_silent() -> None:
    code = "import edgeclient.cli, sys; print('onnxruntime' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_one_thread_is_one_thread(opened: Bundle, tmp_path: Path) -> None:
    """Each of the three sessions (training, evaluation, optimiser) would start a pool of its own."""
    for name, content in opened.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    code = (
        "import os, sys, pathlib, numpy, edgeclient.train.native as native\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count()\n"
        "trainer = native.NativeTrainer(pathlib.Path(sys.argv[1]), int(sys.argv[2]))\n"
        "print(count() - before)"
    )

    def started(threads: int) -> int:
        command = [sys.executable, "-c", code, str(tmp_path), str(threads)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert started(1) == 0
    assert started(3) == 3 * 2


def test_a_broken_installation_elsewhere_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    import_training()


def test_the_committed_bundle_is_what_the_tool_makes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.make_demo_task", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
