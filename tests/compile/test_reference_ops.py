"""Each op of the oracle against ONNX Runtime in float32, over many combinations of attributes."""

from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import Array
from edgeclient.train import runtime

ort = runtime.load()
# 1.19, which comes with the training package, lets a pool's window begin behind the input under ceil_mode.
CURRENT = tuple(map(int, ort.__version__.split(".")[:2])) > (1, 19)
TYPES = {"float32": 1, "int32": 6, "int64": 7}


def model(kind: str, inputs: Sequence[Array | None], outputs: int, opset: int, **a: Any) -> onnx.ModelProto:
    """One node; values are i0, i1, … and o0, o1, …."""
    while inputs[-1] is None:
        inputs = inputs[:-1]
    names = [f"i{k}" if value is not None else "" for k, value in enumerate(inputs)]
    node = helper.make_node(kind, names, [f"o{k}" for k in range(outputs)], **a)
    given = [
        helper.make_tensor_value_info(name, TYPES[value.dtype.name], value.shape)
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    graph = helper.make_graph([node], "g", given, [onnx.ValueInfoProto(name=name) for name in node.output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def feeds(inputs: Sequence[Array | None]) -> dict[str, Array]:
    return {f"i{k}": value for k, value in enumerate(inputs) if value is not None}


def exact(kind: str, *inputs: Array | None, outputs: int = 1, opset: int = 17, **a: Any) -> list[Array]:
    return list(Reference(model(kind, inputs, outputs, opset, **a)).run(feeds(inputs)).values())


def check(kind: str, *inputs: Array | None, outputs: int = 1, opset: int = 17, **a: Any) -> None:
    """The same shapes; floats agree to 1e-6 of their norm, integers exactly."""
    made = model(kind, inputs, outputs, opset, **a).SerializeToString()
    found = ort.InferenceSession(made, runtime.session_options(1)).run(None, feeds(inputs))
    for ours, theirs in zip(exact(kind, *inputs, outputs=outputs, opset=opset, **a), found, strict=True):
        what = f"{kind} {[None if each is None else each.shape for each in inputs]} {a}"
        assert ours.shape == theirs.shape, what
        if theirs.dtype == np.float32:
            assert ours.dtype == np.float64, what
            assert np.linalg.norm(ours - theirs) <= 1e-6 * np.linalg.norm(ours), what
        else:
            assert np.array_equal(ours, theirs), what


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def floats(values: list[float]) -> Array:
    return np.array(values, np.float32)


def windows(rng: np.random.Generator, rank: int) -> list[dict[str, Any]]:
    """Attributes of kernels: random sizes, strides, dilations, and every way to pad.

    SAME pads are compared where ONNX Runtime follows the specification: no dilation, no kernel below the stride.
    """
    found: list[dict[str, Any]] = []
    for kernel, stride, dilation in product((2, 3), (2, 3), (1, 2)):
        a: dict[str, Any] = {
            "kernel_shape": rng.integers(1, kernel + 1, rank).tolist(),
            "strides": rng.integers(1, stride + 1, rank).tolist(),
            "dilations": rng.integers(1, dilation + 1, rank).tolist(),
        }
        pads = [int(rng.integers(0, k)) for k in a["kernel_shape"] * 2]
        same = {**a, "strides": list(map(min, a["strides"], a["kernel_shape"])), "dilations": [1] * rank}
        found += [a, {**a, "pads": pads}, {**a, "auto_pad": "VALID"}]
        found += [{**same, "auto_pad": "SAME_UPPER"}, {**same, "auto_pad": "SAME_LOWER"}]
    return found


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(rng: np.random.Generator, rank: int) -> None:
    for a, group in zip(windows(rng, rank), cycle((1, 2, 4)), strict=False):
        x, w = normal(rng, 2, 4, *rng.integers(7, 11, rank)), normal(rng, 8, 4 // group, *a["kernel_shape"])
        check("Conv", x, w, normal(rng, 8) if group > 1 else None, group=group, **a)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rng: np.random.Generator, rank: int) -> None:
    for a, group in zip(windows(rng, rank), cycle((1, 2, 4)), strict=False):
        x, w = normal(rng, 2, 4, *rng.integers(4, 7, rank)), normal(rng, 4, 2, *a["kernel_shape"])
        # 1.19 computes nonsense for kernels of one element with padding at the output.
        padding = [int(rng.integers(0, s)) if min(a["kernel_shape"]) > 1 else 0 for s in a["strides"]]
        bias = normal(rng, 2 * group) if group > 1 else None
        check("ConvTranspose", x, w, bias, group=group, output_padding=padding, **a)


def test_conv_transpose_to_a_given_shape(rng: np.random.Generator) -> None:
    for shape in ([9, 11], [8, 10], [7, 11]):
        check("ConvTranspose", normal(rng, 2, 3, 4, 5), normal(rng, 3, 2, 3, 3), strides=[2, 2], output_shape=shape)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ceil", [0, pytest.param(1, marks=pytest.mark.skipif(not CURRENT, reason="wrong in 1.19"))])
def test_pools(rng: np.random.Generator, rank: int, ceil: int) -> None:
    for a in windows(rng, rank):
        x = normal(rng, 2, 3, *rng.integers(7, 11, rank))
        check("MaxPool", x, outputs=2, ceil_mode=ceil, **a)
        check("AveragePool", x, opset=19, ceil_mode=ceil, count_include_pad=int(rng.integers(2)), **a)


def test_equal_maxima_are_the_first(rng: np.random.Generator) -> None:
    x = rng.integers(0, 3, (2, 3, 9, 9)).astype(np.float32)
    check("MaxPool", x, outputs=2, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def test_average_pool_before_dilations(rng: np.random.Generator) -> None:
    check("AveragePool", normal(rng, 2, 3, 9, 7), opset=11, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1])


@pytest.mark.parametrize("given", [False, True])
def test_max_unpool(rng: np.random.Generator, *, given: bool) -> None:
    x = normal(rng, 2, 3, 8, 6)
    a: dict[str, Any] = {"kernel_shape": [2, 3], "strides": [2, 3]}
    y, places = exact("MaxPool", x, outputs=2, **a)
    check("MaxUnpool", y.astype(np.float32), places, np.array(x.shape) if given else None, **a)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
def test_batch_normalization(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    scale, variance = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    values = normal(rng, *shape), scale, normal(rng, 3), normal(rng, 3), variance
    for opset in (9, 14, 17):
        check("BatchNormalization", *values, opset=opset, epsilon=1e-3)
    check("BatchNormalization", *values, outputs=3, training_mode=1, momentum=0.7)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_normalization(rng: np.random.Generator, groups: int) -> None:
    for size, opset in ((groups, 18), (6, 21)):
        x, gamma, beta = normal(rng, 2, 6, 4, 5), normal(rng, size), normal(rng, size)
        check("GroupNormalization", x, gamma, beta, opset=opset, num_groups=groups, epsilon=1e-3)


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_layer_normalization(rng: np.random.Generator, axis: int) -> None:
    x = normal(rng, 2, 3, 4)
    gamma, beta = normal(rng, *x.shape[axis:]), normal(rng, *x.shape[axis:])
    check("LayerNormalization", x, gamma, beta, outputs=3, axis=axis)


def test_functions(rng: np.random.Generator) -> None:
    x = 3 * normal(rng, 5, 7, 3)
    check("Sigmoid", x)
    check("Sigmoid", floats([-1e4, -80, -0.0, 0, 80, 1e4]))
    check("Erf", x)
    for approximate in ("none", "tanh"):
        check("Gelu", x, opset=20, approximate=approximate)
    for axis in (-1, 0, 1):
        check("Softmax", x, axis=axis)
        check("LogSoftmax", x, axis=axis)
    far = np.array([[0, 2000]], np.float32)
    assert np.array_equal(exact("LogSoftmax", far)[0], [[-2000, 0]])


@pytest.mark.parametrize("trailing", [(), (3,), (3, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(rng: np.random.Generator, trailing: tuple[int, ...], reduction: str) -> None:
    scores, labels = normal(rng, 6, 5, *trailing), rng.integers(0, 5, (6, *trailing))
    outside = np.where(labels == 2, -100, labels)
    for weight in (None, rng.uniform(0.5, 2, 5).astype(np.float32)):
        check("SoftmaxCrossEntropyLoss", scores, labels, weight, outputs=2, reduction=reduction)
        for ignored, given in ((2, labels), (-100, outside)):
            a: dict[str, Any] = {"reduction": reduction, "ignore_index": ignored}
            check("SoftmaxCrossEntropyLoss", scores, given, weight, outputs=2, **a)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_elements(rng: np.random.Generator, axis: int) -> None:
    # More rows than numpy.choose, which the evaluator of onnx uses, can tell apart.
    data, updates = normal(rng, 40, 41, 42), normal(rng, 5, 6, 7)
    places = rng.integers(-40, 40, updates.shape)
    check("GatherElements", data, places, axis=axis)
    order = np.argsort(updates, axis)
    check("ScatterElements", data, order, updates, opset=18, axis=axis)
    for reduction in ("add", "mul", "max", "min"):
        check("ScatterElements", data, places, updates, opset=18, axis=axis, reduction=reduction)


def test_nd(rng: np.random.Generator) -> None:
    data = normal(rng, 4, 5, 6)
    for batch, shape in ((0, (3, 2)), (0, (3, 5, 1)), (0, (3, 3)), (1, (4, 2)), (1, (4, 7, 1)), (2, (4, 5, 1))):
        check("GatherND", data, rng.integers(-4, 4, shape), batch_dims=batch)
    # No place twice: ONNX Runtime's ScatterND(add) races then.
    places, updates = np.array([[0, 1], [3, 2], [1, -1]]), normal(rng, 3, 6)
    for reduction in ("none", "add", "mul", "max", "min"):
        check("ScatterND", data, places, updates, opset=18, reduction=reduction)
    twice = exact("ScatterND", np.zeros(3, np.float32), np.array([[1], [1]]), np.ones(2, np.float32), reduction="add")
    assert np.array_equal(twice[0], [0, 2, 0])


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_one_hot(rng: np.random.Generator, axis: int) -> None:
    places, values = rng.integers(-4, 4, (4, 3)), np.array([-1, 2], np.float32)
    check("OneHot", places, np.array([5]), values, axis=axis)
    check("OneHot", places, np.array(5), values.astype(np.int64), axis=axis)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent(rng: np.random.Generator, kind: str, direction: str) -> None:
    gates, d = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind], 1 + (direction == "bidirectional")
    x, w, r = normal(rng, 5, 3, 4), normal(rng, d, gates * 6, 4), normal(rng, d, gates * 6, 6)
    outputs = 3 if kind == "LSTM" else 2
    a: dict[str, Any] = {"hidden_size": 6, "direction": direction}
    variants = [a] if kind != "GRU" else [{**a, "linear_before_reset": each} for each in (0, 1)]
    for biased, limited, started in product((False, True), repeat=3):
        inputs = [x, w, r, normal(rng, d, 2 * gates * 6) if biased else None]
        inputs.append(np.array([3, 5, 1], np.int32) if limited else None)
        inputs.append(normal(rng, d, 3, 6) if started else None)
        if kind == "LSTM":
            inputs += [normal(rng, d, 3, 6) if started else None, normal(rng, d, 18) if biased else None]
        for each in variants:
            check(kind, *inputs, outputs=outputs, **each)
            # ONNX Runtime has no batch-first layout to compare with.
            first = [None if v is None else v.swapaxes(0, 1) if k in {0, 5, 6} else v for k, v in enumerate(inputs)]
            y, *ends = exact(kind, *first, outputs=outputs, layout=1, **each)
            expected = exact(kind, *inputs, outputs=outputs, **each)
            assert np.array_equal(y, expected[0].transpose(2, 0, 1, 3))
            assert all(np.array_equal(p, q.swapaxes(0, 1)) for p, q in zip(ends, expected[1:], strict=True))
    check(
        kind,
        x,
        w,
        r,
        outputs=outputs,
        activations=["Sigmoid", "Relu", "Tanh"][: 1 + (gates > 1) + (gates > 3)] * d,
        **a,
    )


def test_what_the_oracle_does_not_know_is_refused(rng: np.random.Generator) -> None:
    x = normal(rng, 1, 1, 4, 4)
    with pytest.raises(CompileError, match="storage_order"):
        exact("MaxPool", x, outputs=2, kernel_shape=[2, 2], storage_order=1)
    with pytest.raises(CompileError, match="antialias"):
        exact("Resize", x, None, floats([1, 1, 2, 2]), opset=19, mode="linear", antialias=1)
    with pytest.raises(CompileError, match="clip"):
        exact("GRU", normal(rng, 5, 3, 4), normal(rng, 1, 18, 4), normal(rng, 1, 18, 6), hidden_size=6, clip=1.0)


def test_resize(rng: np.random.Generator) -> None:
    x = normal(rng, 2, 3, 6, 5)
    coordinates = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    modes: list[dict[str, Any]] = [
        *(
            {"mode": "nearest", "nearest_mode": each}
            for each in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        ),
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ]
    for a, how in product(modes, (*coordinates, "half_pixel_symmetric")):
        for height, width in ((2, 2), (0.5, 0.5), (1.5, 0.7), (3, 1)):
            if how == "half_pixel_symmetric" and a["mode"] == "nearest" and width == 0.7:
                continue  # a tie that rounding in float32 decides
            b = {**a, "coordinate_transformation_mode": how}
            if rng.random() < 0.5:
                check("Resize", x, None, floats([1, 1, height, width]), opset=19, **b)
            else:
                check("Resize", x, None, None, np.array([2, 3, int(6 * height), int(5 * width)]), opset=19, **b)
    check("Resize", x, None, floats([2, 3]), opset=19, axes=[2, 3])
    check("Resize", x, None, floats([1, 1, 2, 2]), opset=13, mode="linear")
