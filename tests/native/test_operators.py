"""Every training-only op that ONNX Runtime generates, lowered and compared with float64 finite differences."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from native_operators import OPERATORS

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import bundle, compiler, forward, generate
from edgeclient.compile.bundle import Compiled
from edgeclient.compile.compiler import Options
from edgeclient.compile.loss import Loss, with_loss
from edgeclient.compile.lower.registry import RULES
from edgeclient.compile.native_gradients import native_gradients
from edgeclient.compile.reference.differences import gradient_error
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compile.verify import run, without_dropout
from edgeclient.compress.arrays import F64, Array
from tools.zoo import ZOO

Arrays = dict[str, Array]
# Ops that only appear in graphs that ONNX Runtime optimised or that users bring, not in those generated here.
# tests/compile/test_lower.py has them.
ELSEWHERE = {"FastGelu", "FastGeluGrad", "BroadcastGradientArgs", "TransposeMatMul", "SoftmaxCrossEntropyLossInternal",
             "SoftmaxCrossEntropyLossInternalGrad"}  # fmt: skip


def made_of(name: str) -> tuple[Compiled, onnx.ModelProto, onnx.ModelProto]:
    """(bundle, prepared forward model with its loss, training graph as generated)."""
    prepared = with_loss(compiler.prepare(OPERATORS[name](), Options()), Loss("mse"))
    artifacts = generate.generate(prepared, forward.parameters(prepared, ["*"], []), Optimiser())
    return bundle.compiled(artifacts, "mse", "", ""), prepared, artifacts.training


def batch_of(made: Compiled, size: int) -> Arrays:
    rng = np.random.default_rng(size)
    feeds: Arrays = {**made.parameters}
    feeds["x"] = rng.normal(size=(size, *made.manifest.inputs[0].shape[1:])).astype(np.float32)
    scores = made.evaluation.graph.output[1].name
    # The labels have the shape of the scores.
    feeds["labels"] = np.zeros((), np.float32)
    shape = Reference(made.evaluation, [scores]).run(feeds)[scores].shape
    return {**feeds, "labels": rng.normal(size=shape).astype(np.float32)}


def in_batch_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    """The forward model as it is trained: normalised by the batch."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for index, node in enumerate(made.graph.node):
        if node.op_type == "BatchNormalization":
            del node.attribute[:]
            node.attribute.extend(each for each in model.graph.node[index].attribute if each.name != "training_mode")
            node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.output[0]}/mean", f"{node.output[0]}/var"])
    return made


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_those_of_finite_differences(name: str, size: int) -> None:
    if name.startswith("BatchNormalization flat") and size == 1:
        size = 2  # one example has no variance
    made, prepared, _ = made_of(name)
    feeds = batch_of(made, size)
    training = without_dropout(made.training)
    found = run(training, feeds)
    names = [each.name for each in made.manifest.trained]
    # Independent of the lowering: the forward model itself, in float64.
    near = Reference(without_dropout(in_batch_mode(prepared)), ["loss"]).around(feeds)

    def loss(values: Mapping[str, F64]) -> float:
        return float(near(values)["loss"])

    assert found["loss"] == pytest.approx(loss({}), rel=1e-5)
    gradients = {each: found[f"{each}_grad"] for each in names}
    error = gradient_error(loss, {each: made.parameters[each] for each in names}, gradients, np.random.default_rng(1))
    assert not error.unchecked
    assert error.relative <= 1e-5, (error.worst, error.relative)


def test_every_rule_is_exercised() -> None:
    seen = {node.op_type for name in OPERATORS for node in made_of(name)[2].graph.node} | {"SoftmaxCrossEntropyLoss"}
    seen |= {"SoftmaxCrossEntropyLossGrad"}  # test_losses
    assert RULES.keys() - seen == ELSEWHERE


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    """With its real mask: y = x p m / (1 − r), so that ∂/∂p = Σ 2 (y − t) x m / ((1 − r) size)."""
    made, _, _ = made_of("Dropout")
    feeds = batch_of(made, 3)
    graph = onnx.ModelProto()
    graph.CopyFrom(made.training)
    (dropout,) = (each for each in graph.graph.node if each.op_type == "Dropout")
    y, mask = dropout.output
    graph.graph.output.append(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None))
    graph.graph.output.append(onnx.helper.make_tensor_value_info(mask, onnx.TensorProto.BOOL, None))
    found = run(graph, feeds)
    kept = found[mask]
    assert 0.5 < kept.mean() < 0.95  # a quarter of 120 is dropped
    np.testing.assert_allclose(found[y], feeds["x"] * feeds["p"] * kept / 0.75, rtol=1e-6)
    slope = 2 * (found[y] - feeds["labels"]) / found[y].size
    expected = (slope * feeds["x"] * kept / 0.75).sum(axis=0)
    np.testing.assert_allclose(found["p_grad"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["AveragePool", "ConvTranspose", "Resize nearest"])
def test_what_the_native_runtime_cannot_do(name: str) -> None:
    """It refuses, or ends its process with a signal; the compiled graph is right, as the test above shows."""
    made, _, _ = made_of(name)
    feeds = batch_of(made, 3)
    assert native_gradients(made.artifacts, [feeds["x"], feeds["labels"]]) is None


@pytest.mark.parametrize(("name", "wrong_by"), [("Gelu 20 tanh", 1e-4), ("Conv SAME_UPPER", 0.1)])
def test_where_the_native_runtime_is_wrong(name: str, wrong_by: float) -> None:
    made, _, _ = made_of(name)
    feeds = batch_of(made, 3)
    native = native_gradients(made.artifacts, [feeds["x"], feeds["labels"]])
    assert native is not None
    ours = run(made.training, feeds)
    off = np.sqrt(sum(np.sum((ours[f"{each}_grad"] - native[each]) ** 2) for each in native))
    assert off > wrong_by * np.sqrt(sum(np.sum(native[each] ** 2) for each in native))


def native_and_our_error(name: str, size: int) -> tuple[float, float]:
    """Of a model of the zoo, against float64, relative to the gradient's norm."""
    made = compiler.compile_model(ZOO[name].build(), Options())
    batch = ZOO[name].batch(size, np.random.default_rng(size))
    feeds = {**made.parameters, "x": batch[0], "labels": batch[1]}
    exact = Reference(made.training).run(feeds)
    native, ours = native_gradients(made.artifacts, batch), run(made.training, feeds)
    assert native is not None

    def error(gradients: Mapping[str, Array]) -> float:
        expected = {each.name: exact[f"{each.name}_grad"] for each in made.manifest.trained}
        off = sum(float(np.sum((gradients[each] - expected[each]) ** 2)) for each in expected)
        return float(np.sqrt(off / sum(float(np.sum(each**2)) for each in expected.values())))

    return error(native), error({each.name: ours[f"{each.name}_grad"] for each in made.manifest.trained})


@pytest.mark.parametrize("size", [1, 16, 17])
def test_the_native_runtime_is_wrong_for_grouped_convolutions_in_one_dimension(size: int) -> None:
    """Silently, by tens of percent; the control has grouped convolutions in two dimensions."""
    native, ours = native_and_our_error("cnn1d", size)
    assert native > 0.05
    assert ours <= 1e-5
    control, _ = native_and_our_error("stress", size)
    assert control <= 1e-5
