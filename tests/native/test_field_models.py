"""Models that people brought (tests/cases/onnx): what is trained, what is said, and that gradients are right."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
import pytest
from click.testing import CliRunner
from held_models import holding, write_random_examples

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Manifest
from edgeclient.cli import cli
from edgeclient.commands.doctor.learning import learning
from edgeclient.compile import compiler, trial, verify
from edgeclient.compile.compiler import Options
from edgeclient.compile.errors import CompileError
from edgeclient.compile.loss import Loss

MODELS: Final = Path(__file__).parents[1] / "cases/onnx"
# Right when they came, and to stay so; how they are compiled beside that.
RIGHT: Final[dict[str, dict[str, Any]]] = {
    **{name: {} for name in ("functions", "init_inputs", "tied", "shared", "einsum", "reducemin", "dynq", "seg")},
    **{name: {} for name in ("lstm_keras", "qdq_weightonly", "bn1d")},
    "reg_op10": {"loss": Loss("mse")},
    "two_out": {"output": "cls"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_models_that_were_right_stay_so(name: str) -> None:
    made = compiler.compile_model(compiler.load_model(MODELS / f"{name}.onnx"), Options(**RIGHT[name]))
    report = verify.verify(made)
    assert report.gradient_error < 1e-6
    assert not [note for note in made.notes if "Softmax" in note]


def compiled(name: str, folder: Path, *options: str) -> tuple[dict[str, Any], Manifest]:
    out = folder / f"{name}.bundle"
    words = ["compile", str(MODELS / f"{name}.onnx"), "--out", str(out), "--json", *options]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    return json.loads(done.output), archive.decode(out.read_bytes()).manifest


def trained(manifest: Manifest) -> set[str]:
    return {each.name for each in manifest.trained}


@pytest.mark.case("onnx C13")
@pytest.mark.parametrize("name", ["buffers", "prenorm"])
def test_constants_of_a_formula_are_not_trained_and_said(name: str, tmp_path: Path) -> None:
    """What the inputs are divided by is no weight; a table that is added might be one, and is listed as trained."""
    said, manifest = compiled(name, tmp_path)
    assert not trained(manifest) & {"mean", "std"}
    assert said["notes"] == [
        "not trained, as constants: mean 6, std 6; --trainable '*' --trainable 'mean' would train that too"
    ]
    if name == "buffers":
        told = CliRunner().invoke(cli, ["compile", str(MODELS / "buffers.onnx"), "--out", str(tmp_path / "b")]).output
        assert "\ntrained: pe 1x9x16, i.bias 16, " in told
        assert "\nnote: not trained, as constants: mean 6, std 6" in told
    _, manifest = compiled(name, tmp_path, "--trainable", "*", "--trainable", "mean")
    assert trained(manifest) & {"mean", "std"} == {"mean"}


@pytest.mark.case("onnx C15")
def test_a_lone_offset_is_what_is_trained(tmp_path: Path) -> None:
    said, manifest = compiled("cdist", tmp_path, "--loss", "l1")
    assert (said["trained"], trained(manifest)) == (3, {"delta"})


def test_batch_normalisation_that_pytorch_has_put_into_other_weights_is_told(tmp_path: Path) -> None:
    """Exports of one model as compile/README.md says, and without `optimize=False` (PyTorch 2.14.1, opset 18)."""
    said, manifest = compiled("torch_batchnorm", tmp_path)
    assert (said["trained"], said["notes"]) == (171, [])
    assert [each.name for each in manifest.buffers if "running" in each.name] == ["1.running_mean", "1.running_var"]
    said, manifest = compiled("torch_batchnorm_folded", tmp_path)
    assert (said["trained"], len(manifest.buffers)) == (155, 0)
    (note,) = said["notes"]
    assert note.startswith("the exporter has put batch normalisation (layers: 1) into other weights")
    assert note.endswith("torch.onnx.export(model.eval(), ..., optimize=False) keeps it")


@pytest.mark.case("onnx C24")
def test_a_softmax_under_cross_entropy_is_said(tmp_path: Path) -> None:
    said, _ = compiled("end_softmax", tmp_path)
    (note,) = said["notes"]
    assert note.startswith("the output y is a Softmax already, and cross_entropy applies one itself")
    assert note.endswith("--output z takes what goes into it")
    said, _ = compiled("end_softmax", tmp_path, "--output", "z")
    assert said["notes"] == []


def test_a_sigmoid_under_binary_cross_entropy_is_said(tmp_path: Path) -> None:
    """The doctor finds it in the bundle, too: there is no ONNX package on a device."""
    words = ("end_softmax", "bce_with_logits")
    said, _ = compiled(words[0], tmp_path, "--loss", words[1])
    assert "the output y is a Softmax already, and bce_with_logits applies one itself" in said["notes"][0]
    for options, found in (((), "Softmax"), (("--output", "z"), "")):
        compiled("end_softmax", tmp_path, *options)
        bundle = (tmp_path / "end_softmax.bundle").read_bytes()
        write_random_examples(tmp_path / "data.npz", bundle, 64)
        told = list(learning(holding(tmp_path, bundle)))
        assert [each.level for each in told] == (["warn", "ok"] if found else ["ok"])
        assert found in told[0].what


@pytest.mark.parametrize(
    ("name", "options", "outputs"),
    [
        ("bn1d", ["--batch-norm", "local"], ["logits"]),
        ("bn1d", ["--batch-norm", "shared"], ["logits"]),
        ("end_softmax", ["--output", "z"], ["y"]),
        ("two_out", ["--output", "cls"], ["cls", "reg"]),
        ("const_w", [], ["logits"]),
    ],
)
def test_what_is_exported_is_the_user_s_model(
    name: str, options: list[str], outputs: list[str], tmp_path: Path
) -> None:
    """Running statistics, values inside that the loss lies on, outputs that nothing was learnt for, and all."""
    compiled(name, tmp_path, *options)
    out = tmp_path / "learnt.onnx"
    words = ["export", str(tmp_path / f"{name}.bundle"), "--onnx", str(out), "--json"]
    said = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).output)
    assert said["error"] < 1e-5
    made = onnx.load(out)
    onnx.checker.check_model(made, full_check=True)
    assert [each.name for each in made.graph.output] == outputs


@pytest.mark.case("onnx C26")
def test_one_class_is_refused() -> None:
    with pytest.raises(CompileError, match=r"needs two classes or more, the output z has 1.*--loss bce_with_logits is"):
        compiler.compile_model(compiler.load_model(MODELS / "one_class.onnx"), Options())
    made = compiler.compile_model(compiler.load_model(MODELS / "one_class.onnx"), Options(loss=Loss("bce_with_logits")))
    assert made.notes == ()


@pytest.mark.case("onnx C49")
def test_weights_that_are_constants_of_the_graph_are_trained(tmp_path: Path) -> None:
    said, manifest = compiled("const_w", tmp_path)
    assert trained(manifest) == {"w1", "b1", "w2"}
    assert (said["trained"], said["forward"], said["notes"]) == (6 * 8 + 8 + 8 * 3, True, [])


def test_a_learning_rate_that_kills_is_said() -> None:
    made = compiler.compile_model(compiler.load_model(MODELS / "functions.onnx"), Options(loss=Loss("mse")))
    assert trial.killing_rate(made) == ""
    wild = replace(made, parameters={name: 30 * value for name, value in made.parameters.items()})
    assert "with the default learning rate of 0.02 the loss on random numbers goes from" in trial.killing_rate(wild)
