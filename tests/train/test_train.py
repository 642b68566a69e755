"""The compiled trainer on the plain runtime: the exam, limits of a round, running statistics, the runtime itself."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainer_exam import PLAN, TrainerExam, unpack, windows

import tools
from broker.demo import data as demo_data
from edgeclient.bundle import archive
from edgeclient.bundle.archive import Bundle
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout
from edgeclient.bundle.manifest import MANIFEST
from edgeclient.train.compiled import Statistics, compiled_trainer
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.runtime import check_runtimes
from edgeclient.train.trainer import Interrupted, TrainingError
from edgeclient.train.trainers import open_trainer


@pytest.fixture(scope="module")
def opened() -> Bundle:
    return archive.decode(demo_data.bundle_bytes())


class TestCompiled(TrainerExam):
    runtime = "compiled"


def test_training_rests_as_long_as_it_is_told(opened: Bundle, tmp_path: Path) -> None:
    trainer = compiled_trainer(unpack(opened, tmp_path))
    now, rested = iter(range(1000)), list[float]()
    calm = RoundTrainer(
        opened.manifest, trainer.engine, trainer.initial, clock=lambda: float(next(now)), sleep=rested.append
    )
    plan = replace(PLAN, max_steps=3, duty=0.25)
    assert calm.train(opened.parameters, windows(opened, tmp_path), plan, np.random.default_rng(0)).steps == 3
    assert rested == [3.0, 3.0, 3.0]  # a step took one second by this clock


@pytest.mark.parametrize("steps", [0, 2])
def test_a_round_stops_when_it_may_not_go_on(opened: Bundle, tmp_path: Path, steps: int) -> None:
    trainer = compiled_trainer(unpack(opened, tmp_path))
    left = iter([True] * steps)
    plan = replace(PLAN, proceed=lambda: next(left, False))
    data, rng = windows(opened, tmp_path), np.random.default_rng(0)
    if not steps:
        with pytest.raises(Interrupted):
            trainer.train(opened.parameters, data, plan, rng)
        return
    made = trainer.train(opened.parameters, data, plan, rng)
    assert (made.steps, made.share < 1) == (2, True)
    whole = trainer.train(opened.parameters, data, replace(PLAN, max_steps=2), np.random.default_rng(0))
    assert made.delta.tobytes() == whole.delta.tobytes()  # what was learnt is what two steps teach


def test_bounded_parameters_stay_between_their_bounds_and_are_no_part_of_the_delta(
    opened: Bundle, tmp_path: Path
) -> None:
    bounds = {"output.bias": Bounds(-0.0078125, 0.0078125), "hidden.bias": Bounds()}
    layout = Layout(tuple(replace(each, bounds=bounds.get(each.name)) for each in opened.manifest.layout.parameters))
    files = {name: content for name, content in opened.files.items() if name != MANIFEST}
    bounded = archive.decode(archive.encode(replace(opened.manifest, layout=layout), files))
    data = windows(opened, tmp_path)
    made = compiled_trainer(unpack(bounded, tmp_path / "b")).train(
        bounded.parameters, data, PLAN, np.random.default_rng(0)
    )
    free = compiled_trainer(unpack(opened, tmp_path / "f")).train(
        opened.parameters, data, PLAN, np.random.default_rng(0)
    )
    biases = layout.slices["output.bias"]
    assert np.abs(free.delta[biases]).max() > 0.01  # without bounds it goes further
    assert made.places.tolist() == layout.domain.places.tolist()
    assert not made.delta[made.places].any()
    assert np.abs(made.delta).max() > 0
    after = made.applied_to(bounded.parameters)
    assert layout.fault(after) == ""
    assert np.abs(after[biases]).max() == np.float32(0.0078125)
    assert np.abs(after[layout.slices["hidden.bias"]]).max() > 0


def test_running_statistics_leave_the_round_as_they_are(tmp_path: Path) -> None:
    normalised = archive.decode((Path(tools.__file__).parent / "bench/statistics.bundle").read_bytes())
    layout = normalised.manifest.layout
    trainer = compiled_trainer(unpack(normalised, tmp_path))
    data, plan = windows(normalised, tmp_path), replace(PLAN, epochs=1, max_steps=3)
    made = trainer.train(normalised.parameters, data, plan, np.random.default_rng(0))
    assert made.places.tolist() == list(range(normalised.manifest.trained_size, layout.size))
    assert not made.delta[made.places].any()
    assert (made.absolute != normalised.parameters[made.places]).all()
    after = layout.split(made.applied_to(normalised.parameters))
    assert (after["norm1.running_var"] > 0).all()
    # Batch statistics train, running ones judge: what was applied is what the device has.
    assert trainer.evaluate(made.applied_to(normalised.parameters), data).loss < 3


def test_a_round_ends_when_its_time_is_over(opened: Bundle, tmp_path: Path) -> None:
    trainer = compiled_trainer(unpack(opened, tmp_path))
    now = iter(range(1000))
    limited = RoundTrainer(opened.manifest, trainer.engine, trainer.initial, clock=lambda: float(next(now)))
    made = limited.train(
        opened.parameters, windows(opened, tmp_path), replace(PLAN, max_seconds=3.5), np.random.default_rng(0)
    )
    assert (made.steps, made.num_examples) == (4, 64)


def test_a_step_is_taken_however_short_the_time(opened: Bundle, tmp_path: Path) -> None:
    trainer = compiled_trainer(unpack(opened, tmp_path))
    data = windows(opened, tmp_path)
    made = trainer.train(opened.parameters, data, replace(PLAN, max_seconds=1e-9), np.random.default_rng(0))
    assert made.steps == 1


def test_a_damaged_graph_is_one_line(opened: Bundle, tmp_path: Path) -> None:
    folder = unpack(opened, tmp_path)
    (folder / archive.TRAINING).write_bytes(b"junk")
    trainer = compiled_trainer(folder)
    with pytest.raises(TrainingError, match=r"^ONNX Runtime refuses .*training\.onnx"):
        trainer.train(opened.parameters, windows(opened, tmp_path), PLAN, np.random.default_rng(0))


def test_native_needs_its_package_or_artifacts(opened: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--native"):
        open_trainer(unpack(opened, tmp_path), "native")


def test_statistics_of_bundles_without_any(opened: Bundle, tmp_path: Path) -> None:
    kept = Statistics(unpack(opened, tmp_path))
    kept.save(kept.load())
    assert kept.load().shape == (0,)
    assert not (tmp_path / "local.f32").exists()


def test_runtimes() -> None:
    check_runtimes({"onnxruntime-training-cpu": "1.19.2", "numpy": "2.0"})
    check_runtimes({"onnxruntime": "1.24.0", "numpy": "2.0"})
    check_runtimes({"onnxruntime": "2.0"})
    with pytest.raises(TrainingError, match="overwrite each other"):
        check_runtimes({"onnxruntime-training-cpu": "1.19.2", "onnxruntime": "1.32.0"})
    with pytest.raises(TrainingError, match=r"1\.23\.2 lets a model read any file of this device"):
        check_runtimes({"onnxruntime": "1.23.2"})


@pytest.mark.parametrize("absolute", [False, True])
def test_a_bundle_cannot_read_the_devices_files(absolute: bool, opened: Bundle, tmp_path: Path) -> None:
    """A stranger's graph takes a file beside the bundle for a weight, which training would then send."""
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = unpack(opened, tmp_path / "bundle")
    where = str(tmp_path / "secret") if absolute else "../secret"
    (folder / archive.TRAINING).write_bytes(graph_that_reads(where))
    with pytest.raises(TrainingError, match="External data path"):
        compiled_trainer(folder).train(opened.parameters, windows(opened, tmp_path), PLAN, np.random.default_rng(0))


def graph_that_reads(location: str) -> bytes:
    """An ONNX model y = w whose w is external, in protobuf by hand: devices have no onnx package."""

    def field(number: int, content: bytes | int) -> bytes:
        if isinstance(content, int):
            return bytes([number << 3, content])
        return bytes([number << 3 | 2, len(content)]) + content

    def pair(key: str, value: str) -> bytes:
        return field(13, field(1, key.encode()) + field(2, value.encode()))

    weight = field(1, 4) + field(2, 1) + field(8, b"w") + pair("location", location) + field(14, 1)
    node = field(1, b"w") + field(2, b"y") + field(4, b"Identity")
    tensor = field(1, field(1, 1) + field(2, field(1, field(1, 4))))
    output = field(1, b"y") + field(2, tensor)
    graph = field(1, node) + field(2, b"g") + field(5, weight) + field(12, output)
    body = bytes([7 << 3 | 2, len(graph) & 0x7F | 0x80, len(graph) >> 7]) + graph
    return field(1, 8) + body + field(8, field(2, 17))


def test_a_broken_installation_elsewhere_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    check_runtimes()


def test_two_runtimes_are_noticed_at_the_start(tmp_path: Path) -> None:
    """As pip leaves them: the metadata of both."""
    for name in ("onnxruntime", "onnxruntime_training_cpu"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (tmp_path / "d.npz").write_bytes(b"")
    (tmp_path / "d.toml").write_text('device = "d"\ntask = "t"\ndirectory = "d"\n[data]\nsource = "d.npz"\n')
    command = [sys.executable, "-m", "edgeclient.cli", "run", str(tmp_path / "d.toml")]
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}, timeout=60
    )
    assert done.returncode == 1
    assert "overwrite each other" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_runtime_is_loaded_late_and_stays_silent() -> None:
    code = "import edgeclient.cli, sys; print(*(name in sys.modules for name in ('onnxruntime', 'onnx', 'numba')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False False\n"


def test_no_telemetry(opened: Bundle, tmp_path: Path) -> None:
    """onnxruntime >= 1.29 queues events under the cache folder unless it is told not to before its first import."""
    folder = unpack(opened, tmp_path / "bundle")
    code = (
        "import pathlib, sys\n"
        "from edgeclient.train.compiled import compiled_trainer\n"
        "compiled_trainer(pathlib.Path(sys.argv[1])).engine._session('training.onnx')\n"
    )
    quiet = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY"}
    }

    def left_behind(code: str, home: Path) -> list[Path]:
        home.mkdir()
        changed = {**quiet, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
        subprocess.run([sys.executable, "-c", code, str(folder)], env=changed, check=True, timeout=60)
        return [path for path in home.rglob("*") if path.is_file()]

    assert left_behind(code, tmp_path / "ours") == []
    # The control: without the setting, the newest runtime does leave something.
    from importlib.metadata import version  # noqa: PLC0415

    if tuple(int(part) for part in version("onnxruntime").split(".")[:2]) >= (1, 29):
        bare = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1] + '/training.onnx')"
        assert left_behind(bare, tmp_path / "control") != []


def test_one_thread_is_one_thread(opened: Bundle, tmp_path: Path) -> None:
    """Training and evaluation would each start a pool of its own."""
    folder = unpack(opened, tmp_path)
    code = (
        "import os, sys, pathlib, edgeclient.train.runtime as runtime\n"
        "from edgeclient.train.compiled import compiled_trainer\n"
        "runtime.load()\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count()\n"
        "engine = compiled_trainer(pathlib.Path(sys.argv[1]), int(sys.argv[2])).engine\n"
        "sessions = [engine._session(name) for name in ('training.onnx', 'eval.onnx')]\n"
        "print(count() - before)"
    )

    def started(threads: int) -> int:
        command = [sys.executable, "-c", code, str(folder), str(threads)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert started(1) == 0
    assert started(3) == 2 * 2
