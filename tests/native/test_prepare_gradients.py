"""What is rewritten before gradients are generated has a right gradient then, and had none before."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import prepared
import pytest
from decomposed import ARRANGEMENTS, CASES, MISSING, node
from onnx import numpy_helper
from recurrent import layer

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile.errors import CompileError
from edgeclient.compile.forward import in_training_form, parameters
from edgeclient.compile.generate import generate
from edgeclient.compile.loss import Loss, with_loss
from edgeclient.compile.lower.walk import lower
from edgeclient.compile.prepare.decompose import decompose
from edgeclient.compile.prepare.unroll import unroll
from edgeclient.compile.reference.differences import gradient_error
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import F64


def same(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def error_of(model: onnx.ModelProto, change: prepared.Pass) -> float:
    """Of the gradients that the changed model trains with, against its own differences in float64."""
    model = change(model)
    forward = with_loss(in_training_form(model, batch_norm="shared"), Loss("mse"))
    made = generate(forward, parameters(forward, ["*"], []), Optimiser())
    training = lower(made.training, made.evaluation).model
    values: dict[str, Any] = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    values |= prepared.fed(model, 2)
    near = Reference(model).around(values)
    (output,) = near({}).values()
    labels = np.random.default_rng(0).normal(0, 1, output.shape).astype(np.float32)
    found = prepared.run(training, {**values, "labels": labels})
    named = dict(zip((each.name for each in training.graph.output), found, strict=True))

    def loss(changed: Mapping[str, F64]) -> float:
        (y,) = near(changed).values()
        return float(((y - labels) ** 2).mean())

    gradients = {name: named[f"{name}_grad"] for name in made.trainable}
    error = gradient_error(loss, {name: values[name] for name in gradients}, gradients, np.random.default_rng(1), 2)
    assert not error.unchecked
    return error.relative


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_what_was_decomposed(name: str) -> None:
    assert error_of(CASES[name], decompose) <= 1e-5


@pytest.mark.parametrize("kind", ["Softplus", "Mish", "Softsign", "HardSwish", "HardSigmoid", "Elu", "Celu", "Asinh"])
def test_the_slope_at_zero(kind: str) -> None:
    """Where new biases are, and what a ReLU often gives."""
    nodes = [node(kind, ["p"], ["z"]), node("Mul", ["x", "z"], ["y"])]
    zeros = {"p": np.zeros(4, np.float32)}
    model = prepared.model(nodes, {"x": ["batch", 4]}, {"y": ["batch", 4]}, zeros, opset=18)
    assert error_of(model, decompose) <= 1e-5


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "has", "more"),
    [
        ("RNN", "BH", {}),
        ("GRU", "B", {}),
        ("GRU", "BH", {"linear_before_reset": 1}),
        ("GRU", "B", {"linear_before_reset": 1, "outputs": "H"}),
        ("GRU", "", {"linear_before_reset": 1, "steps": 1}),
        ("LSTM", "B", {}),
        ("LSTM", "BHC", {"outputs": "H"}),
        ("LSTM", "BP", {}),
        ("LSTM", "", {"steps": 1}),
    ],
)
def test_gradients_of_what_was_unrolled(kind: str, has: str, more: dict[str, Any], direction: str) -> None:
    model = layer(kind, has=has, direction=direction, **{"outputs": "Y", **more})
    assert error_of(model, unroll) <= 1e-5


@pytest.mark.parametrize("kind", sorted(MISSING))
def test_the_gradient_is_missing(kind: str) -> None:
    """If one of these gets a builder, its rule can go."""
    cases = [each for each in CASES.values() if any(node.op_type == kind for node in each.graph.node)]
    assert cases
    with pytest.raises(CompileError, match=f"gradient builder has not been registered: {kind}"):
        error_of(cases[0], same)


HARMLESS = {"MatMul of a vector", "Where with a number"}


@pytest.mark.parametrize("name", sorted(ARRANGEMENTS.keys() - HARMLESS))
def test_the_gradient_is_refused_or_wrong(name: str) -> None:
    try:
        error = error_of(CASES[name], same)
    except Exception:  # noqa: BLE001 (however it fails)
        return
    assert error > 1e-2
