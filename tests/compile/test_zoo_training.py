"""The whole zoo on the plain runtime: gradients against float64, at batch sizes that change from call to call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeclient.bundle import safetensors
from edgeclient.bundle.archive import EVAL, FORWARD, FROZEN, PARAMETERS, TRAINING
from edgeclient.bundle.forward import with_parameters
from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.compile import verify
from edgeclient.compile.loss import Loss, with_loss
from edgeclient.compile.reference.differences import gradient_error
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import F32, F64
from edgeclient.train.batches import Batch, Dataset
from edgeclient.train.compiled import CompiledEngine, compiled_trainer
from edgeclient.train.data import open_data
from edgeclient.train.trainer import Plan
from tools.zoo import ZOO

SIZES = (1, 3, 17)
pytestmark = pytest.mark.timeout(300)  # the first of them compiles the zoo, on a machine that may be busy


class Case:
    """A model of the zoo: its bundle, its initial values, its oracle."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.manifest: Manifest = read_manifest(self.folder)
        self.values = safetensors.decode((self.folder / PARAMETERS).read_bytes())
        self.training = onnx.load(self.folder / TRAINING)

    def flat(self) -> tuple[F32, F32]:
        """Trained parameters and running statistics."""
        statistics = [self.values[each.name].ravel() for each in self.manifest.buffers]
        trained = np.concatenate([self.values[each.name].ravel() for each in self.manifest.trained])
        return trained, np.concatenate(statistics or [np.zeros(0, np.float32)])

    def batch(self, size: int) -> Batch:
        """Inputs and labels."""
        return ZOO[self.name].batch(size, np.random.default_rng(size))

    def feeds(self, size: int) -> dict[str, Any]:
        """The batch and all values, by name."""
        tensors = (*self.manifest.inputs, self.manifest.labels)
        return {**self.values, **{each.name: array for each, array in zip(tensors, self.batch(size), strict=True)}}


@pytest.fixture(scope="module", params=list(ZOO))
def case(request: pytest.FixtureRequest, zoo_folder: Path) -> Case:
    return Case(request.param, zoo_folder)


def test_only_standard_operators(case: Case) -> None:
    for name in (TRAINING, EVAL):
        model = onnx.load(case.folder / name)
        assert {each.domain for each in model.opset_import} == {""}
        assert all(node.domain == "" and onnx.defs.has(node.op_type) for node in model.graph.node)
        onnx.checker.check_model(str(case.folder / name), full_check=True)


def test_the_forward_graph_with_weights_put_back_is_the_model(case: Case) -> None:
    frozen = case.folder / FROZEN
    content = (case.folder / FORWARD).read_bytes()
    made = with_parameters(content, case.values, frozen.read_bytes() if frozen.exists() else None)
    inputs = {each.name: array for each, array in zip(case.manifest.inputs, case.batch(3), strict=False)}
    given, again = (verify.run(model, inputs) for model in (ZOO[case.name].build(), onnx.load_model_from_string(made)))
    assert np.array_equal(given["logits"], again["logits"])
    assert len(content) < len(made) // 2


def test_gradients_at_several_batch_sizes(case: Case) -> None:
    """float32 on the plain runtime against the same graph in float64."""
    engine = CompiledEngine(case.folder, case.manifest, threads=1)
    trained, statistics = case.flat()
    gradients = np.zeros_like(trained)
    engine.begin(trained, statistics, gradients)
    exact = Reference(case.training)
    for size in (*SIZES, 3):
        statistics[:] = case.flat()[1]
        loss = engine.learn(case.batch(size))
        found = exact.run(case.feeds(size))
        expected = np.concatenate([found[f"{each.name}_grad"].ravel() for each in case.manifest.trained])
        assert loss == pytest.approx(float(found["loss"]), rel=1e-5)
        assert np.linalg.norm(gradients - expected) <= 1e-5 * np.linalg.norm(expected), size
        for each, now in zip(case.manifest.buffers, _split(statistics, case.manifest), strict=True):
            np.testing.assert_allclose(now, found[f"{each.name}_next"].ravel(), rtol=1e-5, atol=1e-6)


def test_what_one_value_leaves_as_it_is_need_not_be_computed_again(case: Case) -> None:
    """Bit for bit, whichever value differs."""
    exact, feeds = Reference(case.training), case.feeds(3)
    near = exact.around(feeds)
    for name in [each.name for each in case.manifest.trained][:: max(1, len(case.manifest.trained) // 4)]:
        other = {name: case.values[name] + 0.01}
        for _ in range(2):
            found, expected = near(other), exact.run({**feeds, **other})
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[each], expected[each]) for each in expected)
    unchanged = exact.run(feeds)
    assert all(np.array_equal(value, unchanged[each]) for each, value in near({}).items())


def test_the_graph_in_float64_against_finite_differences_of_the_model(case: Case) -> None:
    """The oracle is the model as it was exported, with its GRU, LSTM and normalisation ops."""
    exact = Reference(case.training)
    feeds = case.feeds(3)
    near = Reference(_in_batch_mode(with_loss(ZOO[case.name].build(), Loss())), ["loss"]).around(feeds)
    found = exact.run(feeds)
    names = [each.name for each in case.manifest.trained]

    def loss(values: Mapping[str, F64]) -> float:
        return float(near(values)["loss"])

    assert float(found["loss"]) == pytest.approx(loss({}), rel=1e-6)
    error = gradient_error(
        loss,
        {name: case.values[name] for name in names},
        {name: found[f"{name}_grad"] for name in names},
        np.random.default_rng(0),
        coordinates=4,
    )
    assert not error.unchecked
    # Constants of the graph, such as 1/√2, are float32.
    assert error.relative <= 1e-6, error.worst


def test_training_learns_and_evaluation_sees_it(case: Case, tmp_path: Path) -> None:
    trainer = compiled_trainer(case.folder)
    trained, statistics = case.flat()
    parameters = np.concatenate([trained, statistics])
    data = _dataset(case, tmp_path)
    before = trainer.evaluate(parameters, data)
    made = trainer.train(parameters, data, Plan(0.003, 15, 16), np.random.default_rng(0))
    after = trainer.evaluate(parameters + made.delta, data)
    assert made.loss < 0.9 * before.loss
    assert after.loss < before.loss
    assert made.num_examples == 48


def _dataset(case: Case, folder: Path) -> Dataset:
    names = [each.name for each in (*case.manifest.inputs, case.manifest.labels)]
    np.savez(folder / "d.npz", **dict(zip(names, case.batch(48), strict=True)))  # type: ignore[arg-type]  # a flag to mypy
    return open_data(str(folder / "d.npz"), {}, case.manifest)


def _split(statistics: F32, manifest: Manifest) -> list[F32]:
    ends = np.cumsum([int(np.prod(each.shape)) for each in manifest.buffers])
    return list(np.split(statistics, ends[:-1])) if manifest.buffers else []


def _in_batch_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """Normalised by the batch, as it is trained."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.output[0]}/mean", f"{node.output[0]}/var"])
    return model
