"""`edgeclient compile` as a user runs it: what it makes, and one clear line for each mistake."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_lines import edgeclient
from native_operators import model, node
from onnx import TensorProto, helper, numpy_helper

from broker.demo import data as demo_data
from edgeclient.bundle import archive
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import generate
from edgeclient.compile.artifacts import read
from edgeclient.compile.checkpoint import read as read_checkpoint
from edgeclient.compile.errors import CompileError
from edgeclient.compile.loss import Loss, with_loss
from edgeclient.wire.errors import WireError
from tools.bundles import demo_model
from tools.zoo import ZOO


def refused(*arguments: str | Path) -> str:
    """The one line that a mistake gets."""
    done = edgeclient("compile", *arguments)
    assert done.returncode in {1, 2}, done.stdout
    lines = done.stderr.strip().splitlines()
    if done.returncode == 1:
        assert len(lines) == 1, done.stderr
    return lines[-1]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "watch-har.onnx"
    onnx.save(demo_model(), path)
    return path


def saved(made: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(made, folder / "m.onnx")
    return folder / "m.onnx"


def test_the_committed_bundle_is_made_again_bit_for_bit(classifier: Path, tmp_path: Path) -> None:
    done = edgeclient("compile", classifier, "--licence", "Apache-2.0", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b").read_bytes() == demo_data.bundle_bytes()
    assert "38919 trained parameters" in done.stdout
    assert "gradients agree with finite differences" in done.stdout


def test_json_and_options(tmp_path: Path) -> None:
    path = saved(ZOO["lora"].build(), tmp_path)
    arguments = ["--trainable", "*lora*", "--optimizer", "adamw", "--weight-decay", "0.01", "--native", "--json"]
    done = edgeclient("compile", path, *arguments, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["gradient_error"] < 1e-6
    assert told["native_error"] < 1e-6
    assert told["score_error"] < 1e-6
    opened = archive.decode((tmp_path / "b").read_bytes())
    assert all("lora" in each.name for each in opened.manifest.layout.parameters)
    assert opened.manifest.optimiser == Optimiser("adamw", weight_decay=0.01)
    assert {"native/checkpoint", "frozen.safetensors"} <= opened.files.keys()
    assert told["forward"]
    assert "forward.onnx" in opened.manifest.files
    assert told["bytes"] == (tmp_path / "b").stat().st_size
    # The base model is in the bundle once, not once a graph.
    assert len(opened.files["training.onnx"]) + len(opened.files["eval.onnx"]) < len(opened.files["frozen.safetensors"])


def test_artifacts_that_exist_already(tmp_path: Path) -> None:
    """Made as ONNX Runtime's documentation says, with its own loss; nodes without names, frozen inputs."""
    code = """
import sys, onnx
from edgeclient.train.native import import_training
import_training()
from onnxruntime.training import artifacts
from tools.bundles import demo_model
model = demo_model()
artifacts.generate_artifacts(model, requires_grad=["hidden.weight", "hidden.bias", "output.weight"],
    frozen_params=["output.bias"], loss=artifacts.LossType.CrossEntropyLoss, optimizer=artifacts.OptimType.AdamW,
    artifact_directory=sys.argv[1])
"""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True, timeout=60)
    done = edgeclient("compile", "--artifacts", folder, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    opened = archive.decode((tmp_path / "b").read_bytes())
    assert [each.name for each in opened.manifest.layout.parameters] == [
        "hidden.weight",
        "hidden.bias",
        "output.weight",
    ]
    assert (opened.manifest.optimiser.name, opened.manifest.classes, opened.manifest.loss) == ("adamw", 7, "custom")
    assert json.loads(done.stdout)["gradient_error"] < 1e-6
    assert not json.loads(done.stdout)["forward"]
    assert "forward.onnx" not in opened.manifest.files
    told = edgeclient("compile", "--artifacts", folder, "--out", tmp_path / "b").stdout.splitlines()
    assert told[-1] == (
        "no forward graph in the bundle, so no export of what is learnt: it began with training artifacts"
    )
    # The checkpoint is read bit for bit, without the training package.
    trainable, frozen = read_checkpoint((folder / "checkpoint").read_bytes())
    for tensor in demo_model().graph.initializer:
        values = trainable if tensor.name != "output.bias" else frozen
        assert np.array_equal(values[tensor.name], numpy_helper.to_array(tensor))
    for name in ("training_model.onnx", "checkpoint"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        assert f"{name} is missing: generate_artifacts" in refused("--artifacts", folder, "--out", tmp_path / "c")
        (folder / name).write_bytes(b"junk")
        refused("--artifacts", folder, "--out", tmp_path / "c")
        (folder / name).write_bytes(content)
    assert not (tmp_path / "c").exists()


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    prepared = with_loss(model([node("Tanh", ["xp"], ["y"])], (3,)), Loss("mse"))
    data = generate.generate(prepared, ["p"], Optimiser()).files["checkpoint"]
    assert read_checkpoint(data)[0]["p"].shape == (3,)
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            try:
                read_checkpoint(changed)
            except CompileError:
                continue


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "l1", "bce_with_logits"])
def test_losses(name: str, classifier: Path, tmp_path: Path) -> None:
    done = edgeclient("compile", classifier, "--loss", name, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    manifest = archive.decode((tmp_path / "b").read_bytes()).manifest
    assert manifest.loss == name
    assert manifest.labels.dtype == ("int64" if name == "cross_entropy" else "float32")
    assert json.loads(done.stdout)["gradient_error"] < 1e-5


def test_class_weights_and_an_ignored_label(classifier: Path, tmp_path: Path) -> None:
    weights = ["--class-weights", "1,2,1,0.5,1,1,1", "--ignore-label", "-100"]
    done = edgeclient("compile", classifier, *weights, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    assert archive.decode((tmp_path / "b").read_bytes()).manifest.ignored == -100
    assert json.loads(done.stdout)["gradient_error"] < 1e-5
    said = refused(classifier, "--class-weights", "1,2", "--out", tmp_path / "c")
    assert said == "edgeclient: 2 class weights for 7 classes"
    assert "numbers separated by commas" in refused(classifier, "--class-weights", "a", "--out", tmp_path / "c")


@pytest.mark.parametrize("policy", ["shared", "local", "frozen"])
def test_running_statistics(policy: str, tmp_path: Path) -> None:
    path = saved(ZOO["cnn"].build(), tmp_path)
    done = edgeclient("compile", path, "--batch-norm", policy, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    opened = archive.decode((tmp_path / "b").read_bytes())
    assert {each.policy for each in opened.manifest.buffers} == (set() if policy == "frozen" else {policy})
    statistics = [each for each in opened.manifest.layout.parameters if "running" in each.name]
    assert bool(statistics) == (policy == "shared")
    for each in statistics:
        assert each.bounds == (Bounds(low=0.0) if "var" in each.name else Bounds())
    assert json.loads(done.stdout)["gradient_error"] < 1e-6


def test_bounds_of_further_tensors(classifier: Path, tmp_path: Path) -> None:
    given = ["--bounds", "*.bias=-1.001:", "--bounds", "output.bias=:0.3"]
    done = edgeclient("compile", classifier, *given, "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    layout = archive.decode((tmp_path / "b").read_bytes()).manifest.layout
    assert {each.name: each.bounds for each in layout.parameters} == {
        "hidden.weight": None,
        "hidden.bias": Bounds(low=-1.0),  # inwards to a bfloat16 number
        "output.weight": None,
        "output.bias": Bounds(high=0.298828125),
    }
    for wrong, said in [
        ("output.bias", "PATTERN=LOW:HIGH is wanted"),
        ("output.bias=1:0", "nothing lies between 1.0 and 0.0"),
        ("output.bias=1e30:", "no bound: bfloat16 numbers of at most 2^36 are"),
        ("nothing*=0:1", "--bounds nothing*: no tensor is called so: there are hidden.weight, "),
        ("output.bias=0.5:1", "the model begins outside its bounds: output.bias has 0.0, outside 0.5 to 1.0"),
    ]:
        assert said in refused(classifier, "--bounds", wrong, "--out", tmp_path / "c")


def test_one_of_several_outputs_or_a_value_inside(classifier: Path, tmp_path: Path) -> None:
    made = onnx.load(classifier)
    made.graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    made.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 7]))
    path = saved(made, tmp_path)
    assert "2 outputs (logits, probabilities): name the one to train with --output" in refused(
        path, "--out", tmp_path / "b"
    )
    assert "did you mean probabilities" in refused(path, "--output", "probabilitys", "--out", tmp_path / "b")
    done = edgeclient("compile", path, "--output", "logits", "--licence", "Apache-2.0", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    del made.graph.output[0]
    done = edgeclient("compile", saved(made, tmp_path), "--output", "logits", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr


def sized(dims: Sequence[int | str | None]) -> onnx.ModelProto:
    made = demo_model()
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims)))
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--loss", "hinge"), "unknown loss 'hinge': known are cross_entropy, mse, l1, bce_with_logits"),
        (("--frozen", "*"), "no parameter is left to train"),
        (("--trainable", "nothing*"), "pattern 'nothing*' matches none of the model's parameters (hidden.weight, "),
        (("--dim", "sequence=3"), "no input has a dimension named 'sequence': there are batch"),
        (("--dim", "sequence"), "NAME=SIZE is wanted"),
        (("--shape", "y=-1,3"), "the model has no input 'y': there are x"),
        (("--shape", "x=a"), "INPUT=D,D,… is wanted"),
        (("--optimizer", "adamw", "--momentum", "0.9"), "--momentum belongs to sgd"),
        (("--loss", "mse", "--ignore-label", "1"), "belong to cross_entropy, not to mse"),
    ],
)
def test_mistaken_options(arguments: tuple[str, ...], said: str, classifier: Path, tmp_path: Path) -> None:
    assert said in refused(classifier, *arguments, "--out", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_models_that_cannot_be_compiled(tmp_path: Path) -> None:
    def said(made: onnx.ModelProto) -> str:
        return refused(saved(made, tmp_path), "--out", tmp_path / "b")

    (tmp_path / "junk").write_bytes(b"\x08junk that is no model at all")
    assert "junk is not an ONNX model" in refused(tmp_path / "junk", "--out", tmp_path / "b")
    (tmp_path / "empty").write_bytes(b"")
    assert "empty is not an ONNX model, or an empty one" in refused(tmp_path / "empty", "--out", tmp_path / "b")
    assert "does not exist" in refused(tmp_path / "none.onnx", "--out", tmp_path / "b")

    made = demo_model()
    made.opset_import[0].version = 6
    assert "opset 6 is too old" in said(made)
    made.opset_import[0].version = 99
    assert "opset 99 is too new" in said(made)

    without = demo_model()
    del without.graph.initializer[:]
    assert "not valid" in said(without) or "no float32 initializers" in said(without)

    assert "the first dimension must be free" in said(sized([16, 600]))
    assert "--shape x=-1,600" in said(sized([16, 600]))
    unresolved = model([node("Relu", ["xp"], ["y"])], (3,))
    unresolved.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", 3]))
    del unresolved.graph.value_info[:]
    unresolved.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 3]))
    assert "--dim NAME=SIZE" in refused(saved(unresolved, tmp_path), "--loss", "mse", "--out", tmp_path / "b")
    done = edgeclient("compile", tmp_path / "m.onnx", "--loss", "mse", "--dim", "sequence=5", "--out", tmp_path / "ok")
    assert done.returncode == 0, done.stderr

    custom = demo_model()
    custom.opset_import.append(helper.make_opsetid("my.domain", 1))
    custom.graph.node[-1].domain = "my.domain"
    assert "Gemm" in said(custom)
    assert "my.domain" in said(custom)

    loop = model([node("NonZero", ["xp"], ["z"]), node("Cast", ["z"], ["y"], to=1)], (3,))
    assert "edgeclient: " in refused(saved(loop, tmp_path), "--loss", "mse", "--out", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_batch_that_is_in_the_graph_is_told_as_such(tmp_path: Path) -> None:
    made = sized([16, 600])
    (output,) = made.graph.output
    made.graph.node.append(node("Reshape", [output.name, "flat"], ["scores"]))
    made.graph.initializer.append(numpy_helper.from_array(np.array([16, 7]), "flat"))
    output.CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [16, 7]))
    said = refused(saved(made, tmp_path), "--shape", "x=-1,600", "--out", tmp_path / "b")
    assert "the output has 16 examples whatever the batch" in said
    assert "export the model with a free batch" in said


def test_external_data(classifier: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(classifier), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0
    )
    done = edgeclient("compile", tmp_path / "m.onnx", "--licence", "Apache-2.0", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    (tmp_path / "m.bin").unlink()
    assert "keeps weights in another file, which is missing" in refused(tmp_path / "m.onnx", "--out", tmp_path / "c")


def test_a_bundle_with_a_changed_byte() -> None:
    data = bytearray(demo_data.bundle_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(WireError, match=r"is not what the manifest says|not a bundle"):
        archive.decode(bytes(data))


def test_reading_artifacts_needs_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"training_model\.onnx is missing"):
        read(tmp_path)
