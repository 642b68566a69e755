"""Lowering by hand-made training graphs: what the generator here does not produce, refusals, and the walk itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.lower.walk import lower
from edgeclient.compile.reference.differences import gradient_error
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import Array

node = helper.make_node
MS = "com.microsoft"


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    constants: dict[str, Any] | None = None,
    integers: Sequence[str] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "training",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, list(shape)
            )
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)], ir_version=8
    )


def run(model: onnx.ModelProto, **feeds: Array) -> dict[str, Array]:
    return Reference(lower(model).model).run(feeds)


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (2, 3)), ((1, 3), (2, 1)), ((2, 3), (2, 3)), ((1,), (4, 2, 3))],
)
def test_axes_of_broadcast_gradients(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    made = graph_of(
        [
            node("Shape", ["a"], ["sa"]),
            node("Shape", ["b"], ["sb"]),
            node("BroadcastGradientArgs", ["sa", "sb"], ["xa", "xb"], domain=MS),
            node("ReduceSum", ["g", "xa"], ["ra"], noop_with_empty_axes=1),
            node("Reshape", ["ra", "sa"], ["ga"]),
            node("ReduceSum", ["g", "xb"], ["rb"], noop_with_empty_axes=1),
            node("Reshape", ["rb", "sb"], ["gb"]),
        ],
        {"a": [f"a{i}" for i in range(len(left))], "b": [f"b{i}" for i in range(len(right))], "g": ["x", "y"]},
        ["ga", "gb"],
    )
    a, b = np.ones(left), np.ones(right)
    g = np.random.default_rng(0).normal(size=np.broadcast_shapes(left, right))
    found = run(made, a=a, b=b, g=g)

    def summed(shape: tuple[int, ...]) -> Array:
        axes = tuple(range(g.ndim - len(shape)))
        kept = tuple(i + len(axes) for i, each in enumerate(shape) if each == 1)
        total: Array = g.sum(axis=axes + kept, keepdims=True).reshape(shape)
        return total

    np.testing.assert_allclose(found["ga"], summed(left))
    np.testing.assert_allclose(found["gb"], summed(right))


@pytest.mark.parametrize("kind", ["FusedMatMul", "TransposeMatMul"])
@pytest.mark.parametrize(("flip_a", "flip_b"), [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("lead", [(), (5,), (2, 5)])
def test_fused_matmul(kind: str, flip_a: int, flip_b: int, lead: tuple[int, ...]) -> None:
    a_shape = (*lead, 4, 3) if flip_a else (*lead, 3, 4)
    b_shape = (*lead, 2, 4) if flip_b else (*lead, 4, 2)
    nodes = [node(kind, ["a", "b"], ["y"], domain=MS, transA=flip_a, transB=flip_b, alpha=0.5)]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=a_shape), rng.normal(size=b_shape)
    found = run(graph_of(nodes, {"a": a_shape, "b": b_shape}, ["y"]), a=a, b=b)["y"]
    np.testing.assert_allclose(
        found, 0.5 * np.matmul(a.swapaxes(-1, -2) if flip_a else a, b.swapaxes(-1, -2) if flip_b else b)
    )


def test_fused_matmul_with_transposed_batches_is_refused() -> None:
    made = graph_of(
        [node("FusedMatMul", ["a", "b"], ["y"], domain=MS, transBatchA=1)], {"a": [2, 3], "b": [3, 2]}, ["y"]
    )
    with pytest.raises(CompileError, match=r"^FusedMatMul \(node 'y'\): transposed batches"):
        lower(made)


@pytest.mark.parametrize("with_bias", [False, True])
def test_fast_gelu(with_bias: bool) -> None:
    inputs = ["x", "b"] if with_bias else ["x"]
    made = graph_of([node("FastGelu", inputs, ["y"], domain=MS)], {"x": [2, 4], "b": [4]}, ["y"])
    x, b = np.linspace(-3, 3, 8).reshape(2, 4), np.arange(4.0) * with_bias
    z = x + b
    expected = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    np.testing.assert_allclose(run(made, x=x, b=b)["y"], expected, rtol=1e-6)


def test_the_gradient_of_fast_gelu() -> None:
    nodes = [
        node("FastGelu", ["x"], ["y"], domain=MS),
        node("FastGeluGrad", ["dy", "x"], ["dx"], domain=MS),
        node("Mul", ["y", "dy"], ["product"]),
        node("ReduceSum", ["product"], ["loss"], keepdims=0),
    ]
    made = graph_of(nodes, {"x": [2, 4], "dy": [2, 4]}, ["loss", "dx"])
    x, dy = np.linspace(-3, 3, 8).reshape(2, 4), np.random.default_rng(0).normal(size=(2, 4))
    found, oracle = run(made, x=x, dy=dy), Reference(lower(made).model, ["loss"])
    error = gradient_error(
        lambda values: float(oracle.run({**values, "dy": dy})["loss"]),
        {"x": x},
        {"x": found["dx"]},
        np.random.default_rng(0),
    )
    assert error.relative <= 1e-7


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, -100, 1])
@pytest.mark.parametrize("internal", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("extra", [(), (3,)])
def test_cross_entropy(
    weighted: bool, ignore: int | None, internal: bool, reduction: str, extra: tuple[int, ...]
) -> None:
    """Loss by its definition, gradient by differences of the lowered loss."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 4, *extra))
    labels = rng.integers(0, 4, (5, *extra))
    if ignore is not None:
        labels.ravel()[::3] = ignore
    class_weights = np.array([0.5, 1, 2, 3])
    weights = "w" if weighted else ""
    ignored = np.int64(0 if ignore is None else ignore)
    if internal:
        last = ["i"] if ignore is not None else []
        forward = node(
            "SoftmaxCrossEntropyLossInternal",
            ["z", "t", weights, *last],
            ["loss", "p"],
            domain=MS,
            reduction=reduction,
            output_type=1,
        )
        back = node(
            "SoftmaxCrossEntropyLossInternalGrad",
            ["one", "p", "t", weights, *last],
            ["z_grad"],
            domain=MS,
            reduction=reduction,
        )
    else:
        attributes = {} if ignore is None else {"ignore_index": ignore}
        forward = node("SoftmaxCrossEntropyLoss", ["z", "t", weights], ["loss", "p"], reduction=reduction, **attributes)
        back = node(
            "SoftmaxCrossEntropyLossGrad",
            ["one", "p", "t", weights],
            ["z_grad"],
            domain=MS,
            reduction=reduction,
            **attributes,
        )
    made = graph_of(
        [forward, back],
        {"z": [5, 4, *extra], "t": [5, *extra]},
        ["loss", "z_grad"],
        {"one": np.float32(1), "w": class_weights.astype(np.float32), "i": ignored},
        ["t"],
    )
    found = run(made, z=z, t=labels)
    probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    counts = np.ones(labels.shape) if ignore is None else (labels != ignore).astype(float)
    safe = np.where(counts > 0, labels, 0)
    counts *= class_weights[safe] if weighted else 1
    picked = np.take_along_axis(probabilities, np.expand_dims(safe, 1), 1).squeeze(1)
    expected = -(counts * np.log(picked)).sum() / (counts.sum() if reduction == "mean" else 1)
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    oracle = Reference(lower(made).model, ["loss"])
    error = gradient_error(
        lambda values: float(oracle.run({**values, "t": labels})["loss"]), {"z": z}, {"z": found["z_grad"]}, rng
    )
    assert error.relative <= 1e-6


def test_unknown_ops_are_all_named() -> None:
    made = graph_of(
        [node("FooGrad", ["x"], ["y"], domain=MS, name="one"), node("BarGrad", ["y"], ["z"], domain=MS)],
        {"x": [2]},
        ["z"],
    )
    with pytest.raises(CompileError, match=r"no rule to lower FooGrad \(node 'one'\), BarGrad \(node 'z'\): write"):
        lower(made)


def test_an_old_opset_is_refused() -> None:
    made = graph_of([node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"])
    made.opset_import[0].version = 12
    with pytest.raises(CompileError, match="opset 12 is too old"):
        lower(made)


def test_a_shape_that_cannot_be_known_is_refused() -> None:
    made = graph_of(
        [
            node("Reshape", ["x", "s"], ["r"]),
            node("LayerNormalizationGrad", ["r", "r", "g", "m", "i"], ["a", "b", "c"], domain=MS),
        ],
        {"x": ["n"], "s": ["k"], "g": [2], "m": [2, 1], "i": [2, 1]},
        ["a"],
        integers=["s"],
    )
    with pytest.raises(CompileError, match="the shape of r cannot be resolved: export the model with fixed dimensions"):
        lower(made)


def test_nameless_pools_cannot_be_told_apart() -> None:
    pool = {"kernel_shape": [2], "strides": [2]}
    made = graph_of(
        [
            node("AveragePool", ["x"], ["a"], **pool),
            node("AveragePool", ["a"], ["b"], **pool),
            node("AveragePoolGrad", ["b"], ["g"], **pool),
        ],
        {"x": [1, 1, 8]},
        ["g"],
    )
    with pytest.raises(CompileError, match="several AveragePool nodes have no name of their own"):
        lower(made)


def test_what_nobody_needs_is_gone_and_names_are_short() -> None:
    nodes = [
        node("Relu", ["x"], ["a rather long name of a value"]),
        node("Exp", ["x"], ["unused"]),
        node("Identity", ["a rather long name of a value"], ["another"]),
        node("Neg", ["another"], ["y"]),
    ]
    lowered = lower(graph_of(nodes, {"x": [2], "unread": [3]}, ["y"])).model
    assert [each.op_type for each in lowered.graph.node] == ["Relu", "Neg"]
    assert [each.name for each in lowered.graph.input] == ["x"]
    assert all(len(name) <= 3 for each in lowered.graph.node for name in (*each.input, *each.output))
    assert lowered.graph.output[0].name == "y"
