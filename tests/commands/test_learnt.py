"""The result can be taken out: exported as the model that its user began with, and asked about a file."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from command_lines import edgebroker
from held_models import holding

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Version
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Embedded, Task
from broker.task.new import add_task
from edgeclient.bundle import archive, forward
from edgeclient.bundle.archive import FORWARD
from edgeclient.cli import cli
from edgeclient.compress.arrays import F32
from edgeclient.settings import Source
from edgeclient.train import runtime
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.errors import WireError

# x (batch, 3, 32) → 3 classes, in PyTorch's names.
BUNDLE: Final = (resources.files("edgeclient.commands.new") / "classifier/model.bundle").read_bytes()
OPENED: Final = archive.decode(BUNDLE)
LEARNT: Final = OPENED.parameters + np.random.default_rng(3).normal(0, 0.1, OPENED.parameters.size).astype(np.float32)
WINDOWS: Final = np.random.default_rng(4).normal(size=(6, 3, 32)).astype(np.float32)
CLASSES: Final = "classes = ['rest', 'walk', 'run']"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that holds version 7, an aggregator that has made 0 to 2, and files to ask about."""
    made = tmp_path_factory.mktemp("learnt")
    np.save(made / "windows.npy", WINDOWS)
    np.savez(made / "windows.npz", x=WINDOWS)
    np.savez(made / "labelled.npz", x=WINDOWS, labels=np.arange(6) % 3)
    holding(made, BUNDLE, LEARNT, source="labelled.npz")
    settings = Aggregator(made / "data", embedded=Embedded())
    (made / "broker.toml").write_text('directory = "data"\n[embedded]\n')
    add_task(settings, "mine", BUNDLE, Task())
    registry = Blobs(settings.registry)
    with open_ledger(settings.ledger) as ledger:
        for number, loss in enumerate((1.0, 0.4, 0.6)):
            if number:
                ledger.close_batch("mine", [], Version(number, registry.put_parameters(LEARNT * number), number, 1.0))
            ledger.add_metrics("mine", number, {"loss": loss})
    return made


def edgeclient(*words: str | Path, code: int = 0) -> str:
    """What the command prints."""
    done = CliRunner().invoke(cli, [str(each) for each in words])
    assert done.exit_code == code, done.exception or done.output
    return done.output


def answers(model: Path) -> F32:
    session = runtime.load().InferenceSession(str(model), runtime.session_options(1))
    (made,) = session.run(None, {"x": WINDOWS})
    return made  # type: ignore[no-any-return]


def test_a_device_s_model_is_its_user_s_with_what_was_learnt(folder: Path, tmp_path: Path) -> None:
    said = edgeclient("export", folder / "device.toml", "--onnx", tmp_path / "model.onnx")
    assert "mine version 7" in said
    assert "takes x [batch, 3, 32]" in said
    assert f"checked on {folder / 'labelled.npz'}" in said
    made, begun = onnx.load(tmp_path / "model.onnx"), onnx.load_model_from_string(OPENED.files[FORWARD])
    onnx.checker.check_model(made, full_check=True)
    for one, other in ((made.graph.input, begun.graph.input), (made.graph.output, begun.graph.output)):
        assert list(one) == list(other)
    assert made.opset_import == begun.opset_import
    assert list(made.graph.node) == list(begun.graph.node)
    found = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    for name, value in OPENED.manifest.layout.split(LEARNT).items():
        assert (found[name] == value).all()
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_numpy_alone_exports_and_says_that_it_did_not_check(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = edgeclient("export", folder / "device.toml", "--onnx", tmp_path / "checked.onnx", "--json")
    assert json.loads(whole)["error"] < 1e-6

    def missing() -> Any:
        raise TrainingError("ONNX Runtime cannot be imported (No module named 'onnxruntime'): pip install it")

    monkeypatch.setattr(runtime, "load", missing)
    said = edgeclient("export", folder / "device.toml", "--onnx", tmp_path / "model.onnx")
    assert said.endswith("not checked against the bundle: ONNX Runtime cannot be imported\n")
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "checked.onnx").read_bytes()


def test_a_model_that_answers_otherwise_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the graph had been put together wrongly."""
    put_back, wrong = forward.with_parameters, {"dense.bias": np.ones(3, np.float32)}
    monkeypatch.setattr(forward, "with_parameters", lambda graph, *rest: put_back(graph, {**rest[0], **wrong}))
    (tmp_path / "model.onnx").write_bytes(b"older")
    done = CliRunner().invoke(cli, ["export", str(folder / "device.toml"), "--onnx", str(tmp_path / "model.onnx")])
    assert isinstance(done.exception, TrainingError)
    assert "differ from the bundle's by" in str(done.exception)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("model.onnx", b"older")]


def test_a_value_inside_the_graph_is_compared_too() -> None:
    """With --output, the loss lies on a value that the user's model does not give out."""
    inside = onnx.load_model_from_string(OPENED.files[FORWARD]).graph.node[0].output[0]
    named = OPENED.manifest.layout.split(LEARNT)
    model = forward.with_output(forward.with_parameters(OPENED.files[FORWARD], named), inside)
    session = runtime.load().InferenceSession(model, runtime.session_options(1))
    (found,) = session.run([inside], {"x": WINDOWS})
    assert found.shape[0] == len(WINDOWS)


def test_a_bundle_of_artifacts_has_no_model_to_export() -> None:
    files = {name: content for name, content in OPENED.files.items() if name != FORWARD}
    with pytest.raises(WireError, match=r"no forward graph.*training artifacts have none"):
        forward.exported(files, OPENED.manifest, LEARNT, np.zeros(0, np.float32))


def test_a_device_without_a_model_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text((folder / "device.toml").read_text())
    done = CliRunner().invoke(cli, ["export", str(tmp_path / "device.toml"), "--onnx", str(tmp_path / "m.onnx")])
    assert "holds no model yet: start edgeclient run" in str(done.exception)


@pytest.mark.parametrize(("wanted", "number"), [("latest", 2), ("best", 1), ("0", 0)])
def test_an_aggregator_exports_a_version(folder: Path, tmp_path: Path, wanted: str, number: int) -> None:
    done = edgebroker("export", "mine", "--version", wanted, "--onnx", str(tmp_path / "m.onnx"), folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"mine version {number}, " in done.stdout
    assert "checked on random numbers: answers differ by" in done.stdout
    assert ("version 1 has the best evaluation: --version best takes that" in done.stdout) == (number != 1)
    expected = onnx.numpy_helper.to_array(
        next(each for each in onnx.load(tmp_path / "m.onnx").graph.initializer if each.name == "dense.bias")
    )
    parameters = LEARNT * number if number else OPENED.parameters
    assert (expected == OPENED.manifest.layout.split(parameters.astype(np.float32))["dense.bias"]).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "mien", "--onnx", "m.onnx"), "edgebroker: no task mien: did you mean mine?"),
        (("export", "mine", "--version", "9", "--onnx", "m.onnx"), "version 9 of mine is not kept: of 0 to 2"),
        (("predict", "mine", "nothing.npz"), "edgebroker: nothing.npz does not exist"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = edgebroker(*words, folder=folder)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_predictions_are_the_model_s(folder: Path, tmp_path: Path) -> None:
    edgeclient("export", folder / "device.toml", "--onnx", tmp_path / "model.onnx")
    scores = answers(tmp_path / "model.onnx")
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for file in ("windows.npy", "windows.npz", "labelled.npz"):
        said = json.loads(edgeclient("predict", folder / "device.toml", folder / file, "--json"))
        assert (said["version"], len(said["rows"])) == (7, 6)
        for row, sure in zip(said["rows"], expected, strict=True):
            assert (row["class"], len(row["top"])) == (int(sure.argmax()), 3)
            np.testing.assert_allclose(
                [row["confidence"], row["top"][2]["confidence"]], [sure.max(), sure.min()], atol=1e-5
            )
        assert ("accuracy" in said) == (file == "labelled.npz")


def test_predictions_for_people(folder: Path) -> None:
    lines = edgeclient("predict", folder / "device.toml", folder / "labelled.npz").splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith("6 examples by mine version 7, ")
    assert lines[-1].endswith(" of 6 as labelled")


def test_a_version_answers_in_the_words_of_the_classes(folder: Path) -> None:
    done = edgebroker("predict", "mine", "windows.npy", "--option", CLASSES.replace(" = ", "="), folder=folder)
    assert done.returncode == 0, done.stderr
    *rows, last = done.stdout.splitlines()
    assert last == "6 examples by mine version 2"
    assert all(each.split()[1] in {"rest", "walk", "run"} for each in rows)
    plain = edgebroker("predict", "mine", "windows.npy", "--option", "classes=rest, walk, run", folder=folder)
    assert plain.stdout == done.stdout


def test_files_are_read_as_the_task_s_evaluation_is(folder: Path, tmp_path: Path) -> None:
    lines = [f"{at},{at % 7},{at % 5},{at % 3},run" for at in range(160)]
    (tmp_path / "new.csv").write_text("\n".join(["t,ax,ay,az,activity", *lines]) + "\n")
    options = {"labels": "activity", "columns": ["ax", "ay", "az"], "classes": ["rest", "walk", "run"], "window": 32}
    settings = Aggregator(tmp_path / "data", embedded=Embedded())
    (tmp_path / "broker.toml").write_text('directory = "data"\n[embedded]\n')
    add_task(settings, "mine", BUNDLE, Task(evaluation=Source(f"{tmp_path}/new.csv"), evaluation_options=options))
    done = edgebroker("predict", "mine", "new.csv", "--json", "--option", "stride=64", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(each["example"], each["rows"]) for each in rows] == [(1, [1, 32]), (2, [65, 96]), (3, [129, 160])]
    assert {each["name"] for each in rows} <= {"rest", "walk", "run"}
    assert edgebroker("status", folder=tmp_path).stdout.startswith("task mine: version 0, 0 updates for the next\n")
    people = edgebroker("predict", "mine", "new.csv", folder=tmp_path).stdout
    assert people.splitlines()[1].startswith("     2  rows 33 to 64  ")
    wrong = edgebroker("predict", "mine", str(folder / "windows.npy"), "--option", "classes=rest", folder=tmp_path)
    assert wrong.stderr.startswith("edgebroker: classes has 1 names, the model has 3")


def test_tables_with_labels_and_without(folder: Path, tmp_path: Path) -> None:
    """As boards write them: a header or none, words as labels, windows over rows."""
    flat = WINDOWS.swapaxes(1, 2).reshape(-1, 3)  # one row a sample
    words = ["rest", "walk", "run"]
    lines = [",".join(f"{each:.9g}" for each in row) for row in flat]
    (tmp_path / "bare.csv").write_text("\n".join(["ax,ay,az", *lines]) + "\n")
    (tmp_path / "plain.csv").write_text("\n".join(lines) + "\n")
    labelled = [f"{line},{words[at // 32 % 3]}" for at, line in enumerate(lines)]
    (tmp_path / "labelled.csv").write_text("\n".join(["ax,ay,az,labels", *labelled]) + "\n")
    expected = json.loads(edgeclient("predict", folder / "device.toml", folder / "labelled.npz", "--json"))
    for file, more in (("bare.csv", ""), ("plain.csv", "header=false"), ("labelled.csv", f"classes={words}")):
        options = ["--option", "window=32", *(["--option", more] if more else [])]
        found = json.loads(edgeclient("predict", folder / "device.toml", tmp_path / file, *options, "--json"))
        assert [each["class"] for each in found["rows"]] == [each["class"] for each in expected["rows"]]
        assert found.get("accuracy") == (expected["accuracy"] if more.startswith("classes") else None)
    wrong = CliRunner().invoke(cli, ["predict", str(folder / "device.toml"), str(tmp_path / "bare.csv")])
    assert "wants 3 x 32: window = 32 in [data.options] takes so many rows; --option KEY=VALUE gives" in str(
        wrong.exception
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "has no column 'labels': did you mean 'label'? ([data.options] labels and columns name them); --option "),
        (["labels=label"], "line 2, column 'label': is 'rest', no number: words need classes = [...]"),
        (["labels=label", "classes=rest,run"], "classes has 2 names, the model has 3 classes"),
        (
            ["labels=label", "classes=rest,walk,ran", "window=32"],
            "is 'run', [data.options] classes has rest, walk, ran",
        ),
        (
            ["labels=label", "classes=rest,walk,run", "window=32"],
            "gives 32 x 4 numbers for x, the model wants 3 x 32: see",
        ),
        (
            ["labels=label", "classes=rest,walk,run", "columns=ax,ay,az", "window=99"],
            "has no examples: no window of 99",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_one_message(folder: Path, tmp_path: Path, options: list[str], said: str) -> None:
    rows = [f"{at},{at % 7},{at % 5},{at % 3},{['rest', 'walk', 'run'][at // 32]}" for at in range(96)]
    (tmp_path / "recorded.csv").write_text("\n".join(["t,ax,ay,az,label", *rows]) + "\n")
    words = [each for option in options for each in ("--option", option)]
    done = edgebroker("predict", "mine", str(tmp_path / "recorded.csv"), *words, folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "without labels" not in done.stderr
    assert (done.stderr.count("no window"), done.stderr.count("\n")) == ("window=99" in options, 1)


def test_the_device_s_own_options_hold_where_they_mean_something(folder: Path, tmp_path: Path) -> None:
    """Its source is a table of words; the file to ask about is an array."""
    holding(tmp_path, BUNDLE, LEARNT, source="recordings.csv")
    with (tmp_path / "device.toml").open("a") as file:
        file.write('[data.options]\nwindow = 32\nlabels = "activity"\nclasses = ["rest", "walk", "run"]\n')
    for name in ("windows.npy", "windows.npz"):
        said = json.loads(edgeclient("predict", tmp_path / "device.toml", folder / name, "--json"))
        assert {each["name"] for each in said["rows"]} <= {"rest", "walk", "run"}
