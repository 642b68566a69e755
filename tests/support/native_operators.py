"""Small forward models, one for each training-only op that ONNX Runtime makes gradients with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeclient.compress.arrays import Array

node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int] = (),
    weights: dict[str, Sequence[int]] | None = None,
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """x (batch, *shape), times a parameter p of that shape, → the nodes' y, times a fixed pattern → y."""
    rng = np.random.default_rng(len(nodes))
    arrays: dict[str, Array] = {"p": rng.normal(1, 0.5, shape).astype(np.float32)}
    arrays |= {name: rng.normal(0.5, 0.5, size).astype(np.float32) for name, size in (weights or {}).items()}
    if "var" in arrays:  # of what a normalisation has seen, never negative
        arrays["var"] = np.abs(arrays["var"])
    stored = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    fixed = [
        node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))
        for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(
        [*fixed, node("Mul", ["x", "p"], ["xp"]), *nodes],
        "operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        stored,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return shape_inference.infer_shapes(made, data_prop=True)


def _conv(shape: Sequence[int], filters: Sequence[int], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    return lambda: model([node("Conv", ["xp", "w", "b"], ["y"], **attributes)], shape, {"w": filters, "b": filters[:1]})


def _transposed(shape: Sequence[int], filters: Sequence[int], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    bias = [filters[1] * attributes.get("group", 1)]
    return lambda: model(
        [node("ConvTranspose", ["xp", "w", "b"], ["y"], **attributes)], shape, {"w": filters, "b": bias}
    )


def _pool(kind: str, shape: Sequence[int], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    return lambda: model([node(kind, ["xp"], ["y"], **attributes)], shape)


def _unary(kind: str, *, opset: int = 17, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    return lambda: model([node(kind, ["xp"], ["y"], **attributes)], (3, 4), opset=opset)


def _resize(mode: str, coordinates: str, scales: Sequence[float], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    return lambda: model(
        [
            node(
                "Resize",
                ["xp", "", "scales"],
                ["y"],
                mode=mode,
                coordinate_transformation_mode=coordinates,
                **attributes,
            )
        ],
        (2, 4, 5),
        constants={"scales": np.array(scales, np.float32)},
    )


def _slice(starts: Any, ends: Any, axes: Any, steps: Any) -> Callable[[], onnx.ModelProto]:
    bounds = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    return lambda: model(
        [node("Slice", ["xp", *bounds], ["y"])], (6, 5), constants={k: np.array(v) for k, v in bounds.items()}
    )


def _gather(table: Sequence[int], indices: Any, axis: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        nodes = [node("Gather", ["w", "i"], ["g"], axis=axis), node("ReduceMean", ["g"], ["m"], keepdims=0)]
        return model([*nodes, node("Mul", ["g", "m"], ["h"]), node("Flatten", ["h"], ["f"], axis=0),
                      node("MatMul", ["xp", "f"], ["y"])], (1,), {"w": table}, {"i": np.array(indices)})  # fmt: skip

    return make


def _gather_nd(indices: Any, batch_dims: int = 0) -> onnx.ModelProto:
    if batch_dims:
        # Which of the rows of each example is by a table of as many rows as there are examples: 1, 3 or 17.
        nodes = [
            node("Shape", ["xp"], ["all"], end=1),
            node("Concat", ["all", "two"], ["shape"], axis=0),
            node("ConstantOfShape", ["shape"], ["one"], value=numpy_helper.from_array(np.array([1]))),
            node("GatherND", ["xp", "one"], ["y"], batch_dims=1),
        ]
        return model(nodes, (3, 4), constants={"two": np.array([2, 1])})
    nodes = [node("GatherND", ["w", "i"], ["g"]), node("Mul", ["xp", "g"], ["y"])]
    return model(nodes, (3,), {"w": (2, 6)}, {"i": np.array(indices)})


def _batch_norm(shape: Sequence[int]) -> onnx.ModelProto:
    channels = [shape[0]]
    nodes = [node("BatchNormalization", ["xp", "gamma", "beta", "mean", "var"], ["y"], momentum=0.8, epsilon=1e-3)]
    return model(nodes, shape, {"gamma": channels, "beta": channels, "mean": channels, "var": channels})


def _layer_norm(axis: int) -> onnx.ModelProto:
    size = (3, 4)[axis % 3 - 1 :]
    nodes = [node("LayerNormalization", ["xp", "gamma", "beta"], ["y"], axis=axis)]
    return model(nodes, (3, 4), {"gamma": size, "beta": size})


def _rms_norm() -> onnx.ModelProto:
    nodes = [
        node("Mul", ["xp", "xp"], ["square"]),
        node("ReduceMean", ["square"], ["mean"], axes=[-1]),
        node("Add", ["mean", "epsilon"], ["safe"]),
        node("Sqrt", ["safe"], ["root"]),
        node("Div", ["xp", "root"], ["normal"]),
        node("Mul", ["normal", "gamma"], ["y"]),
    ]
    return model(nodes, (3, 4), {"gamma": (4,)}, {"epsilon": np.float32(1e-5)})


def _pow_rms_norm() -> onnx.ModelProto:
    made = _rms_norm()
    made.graph.node[2].CopyFrom(node("Pow", ["xp", "two"], ["square"]))
    made.graph.node.insert(0, node("Constant", [], ["two"], value_float=2.0))
    made.graph.node[-1].CopyFrom(node("Mul", ["gamma", "normal"], ["y"]))
    return made


def _erf_gelu() -> onnx.ModelProto:
    nodes = [
        node("Div", ["xp", "root"], ["scaled"]),
        node("Erf", ["scaled"], ["erf"]),
        node("Add", ["erf", "one"], ["sum"]),
        node("Mul", ["xp", "sum"], ["product"]),
        node("Mul", ["product", "half"], ["y"]),
    ]
    numbers = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    return model(nodes, (5,), constants=numbers)


def _silu(alpha: float) -> onnx.ModelProto:
    nodes = [
        node("Mul", ["xp", "alpha"], ["scaled"]),
        node("Sigmoid", ["scaled" if alpha != 1 else "xp"], ["gate"]),
        node("Mul", ["xp", "gate"], ["y"]),
    ]
    return model(nodes if alpha != 1 else nodes[1:], (5,), constants={"alpha": np.float32(alpha)})


def _tanh_gelu() -> onnx.ModelProto:
    nodes = [
        node("Pow", ["xp", "three"], ["cube"]),
        node("Mul", ["cube", "small"], ["bit"]),
        node("Add", ["xp", "bit"], ["sum"]),
        node("Mul", ["sum", "scale"], ["inner"]),
        node("Tanh", ["inner"], ["tanh"]),
        node("Add", ["tanh", "one"], ["more"]),
        node("Mul", ["xp", "more"], ["product"]),
        node("Mul", ["product", "half"], ["y"]),
    ]
    numbers = {"three": 3.0, "small": 0.044715, "scale": (2 / np.pi) ** 0.5, "one": 1.0, "half": 0.5}
    return model(nodes, (5,), constants={name: np.float32(value) for name, value in numbers.items()})


def _broadcast(kind: str, shape: Sequence[int]) -> Callable[[], onnx.ModelProto]:
    return lambda: model([node(kind, ["xp", "w"], ["y"])], (3, 4), {"w": shape})


def _reversed_broadcast(kind: str, shape: Sequence[int]) -> Callable[[], onnx.ModelProto]:
    return lambda: model([node("Exp", ["xp"], ["e"]), node(kind, ["w", "e"], ["y"])], (3, 4), {"w": shape})


def _attention() -> onnx.ModelProto:
    nodes = [
        node("Transpose", ["xp"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["xp", "t"], ["scores"]),
        node("Mul", ["scores", "half"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "xp"], ["y"]),
    ]
    return model(nodes, (3, 4), constants={"half": np.float32(0.5)})


def _matmul(shape: Sequence[int], weights: Sequence[int], *, flip: bool = False) -> Callable[[], onnx.ModelProto]:
    if flip:
        perm = [*range(len(weights) - 2), len(weights) - 1, len(weights) - 2]
        nodes = [node("Transpose", ["w"], ["t"], perm=perm), node("MatMul", ["xp", "t"], ["y"])]
    else:
        nodes = [node("MatMul", ["xp", "w"], ["y"])]
    return lambda: model(nodes, shape, {"w": weights})


def _split(sizes: Sequence[int]) -> onnx.ModelProto:
    nodes = [
        node("Split", ["xp", "sizes"], ["a", "b", "c"], axis=1),
        node("Tanh", ["b"], ["tb"]),
        node("Concat", ["c", "tb", "a"], ["y"], axis=1),
    ]
    return model(nodes, (7, 2), constants={"sizes": np.array(sizes)})


def _concat_batch() -> onnx.ModelProto:
    nodes = [node("Tanh", ["xp"], ["t"]), node("Concat", ["xp", "w", "t"], ["y"], axis=0)]
    return model(nodes, (6,), {"w": (2, 6)})


def _dropout() -> onnx.ModelProto:
    nodes = [node("Dropout", ["xp", "ratio", "training"], ["y"], seed=1)]
    return model(nodes, (40,), constants={"ratio": np.float32(0.25), "training": np.array(True)})


def _top_k() -> onnx.ModelProto:
    return model([node("TopK", ["xp", "k"], ["y", "where"])], (8,), constants={"k": np.array([3])})


def _gather_elements() -> onnx.ModelProto:
    nodes = [node("GatherElements", ["w", "i"], ["g"], axis=1), node("Mul", ["xp", "g"], ["y"])]
    return model(nodes, (2, 3), {"w": (2, 6)}, {"i": np.array([[1, 1, -3], [0, 2, 2]])})


def _trilu(upper: int) -> onnx.ModelProto:
    return model([node("Trilu", ["xp"], ["y"], upper=upper)], (4, 5))


def _expand() -> onnx.ModelProto:
    nodes = [node("Shape", ["xp"], ["shape"]), node("Expand", ["w", "shape"], ["e"]), node("Mul", ["xp", "e"], ["y"])]
    return model(nodes, (3, 4), {"w": (1, 4)})


OPERATORS: dict[str, Callable[[], onnx.ModelProto]] = {
    "Relu": _unary("Relu"),
    "LeakyRelu": _unary("LeakyRelu", alpha=0.3),
    "Sigmoid": _unary("Sigmoid"),
    "Tanh": _unary("Tanh"),
    "Softmax": _unary("Softmax", axis=-1),
    "Softmax axis 1": _unary("Softmax", axis=1),
    "LogSoftmax": _unary("LogSoftmax", axis=2),
    "Gelu 20": _unary("Gelu", opset=20),
    "Gelu 20 tanh": _unary("Gelu", opset=20, approximate="tanh"),
    "Gelu of Erf": _erf_gelu,
    "Gelu of Tanh": _tanh_gelu,
    "SiLU": lambda: _silu(1.0),
    "QuickGelu": lambda: _silu(1.702),
    "Div": _reversed_broadcast("Div", (3, 4)),
    "Div broadcast": _reversed_broadcast("Div", (4,)),
    "Add broadcast": _broadcast("Add", (3, 1)),
    "Sub broadcast": _broadcast("Sub", (4,)),
    "Mul broadcast": _broadcast("Mul", (1, 1)),
    "Max": _broadcast("Max", (4,)),
    "Min": _broadcast("Min", (3, 4)),
    "MatMul": _matmul((3, 4), (4, 5)),
    "MatMul batches": _matmul((5, 3, 4), (5, 4, 2)),
    "MatMul transposed": _matmul((5, 3, 4), (5, 2, 4), flip=True),
    "attention": _attention,
    "Conv": _conv((2, 7, 6), (3, 2, 3, 3), pads=[1, 1, 1, 1]),
    "Conv stride": _conv((2, 8, 7), (3, 2, 3, 2), strides=[2, 3], pads=[1, 0, 0, 1]),
    "Conv stride, rest": _conv((2, 8, 8), (3, 2, 3, 3), strides=[2, 2]),
    "Conv stride beyond kernel": _conv((2, 9, 9), (3, 2, 1, 1), strides=[2, 2]),
    "Conv dilation": _conv((2, 9, 9), (3, 2, 3, 3), dilations=[2, 1], pads=[2, 1, 2, 1]),
    "Conv groups": _conv((4, 6, 6), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "Conv depthwise": _conv((4, 6, 6), (8, 1, 3, 3), group=4, strides=[2, 1]),
    "Conv SAME_UPPER": _conv((2, 7, 8), (3, 2, 3, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv SAME_LOWER": _conv((2, 7, 8), (3, 2, 4, 2), auto_pad="SAME_LOWER"),
    "Conv VALID": _conv((2, 7, 8), (3, 2, 3, 3), auto_pad="VALID"),
    "Conv 1-D": _conv((3, 20), (4, 3, 5), strides=[2], pads=[2, 1]),
    "Conv 1-D depthwise": _conv((3, 20), (3, 1, 5), group=3, pads=[2, 2]),
    "Conv 3-D": _conv((2, 4, 5, 4), (3, 2, 2, 3, 2), strides=[1, 2, 1], pads=[0, 1, 1, 0, 1, 0]),
    "ConvTranspose": _transposed((2, 5, 5), (2, 3, 3, 3), strides=[2, 2], pads=[1, 1, 0, 0], output_padding=[1, 1]),
    "ConvTranspose groups": _transposed((4, 5, 4), (4, 2, 3, 2), group=2, dilations=[2, 1]),
    "ConvTranspose 1-D": _transposed((2, 6), (2, 3, 4), strides=[3]),
    "MaxPool": _pool("MaxPool", (2, 6, 8), kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool overlapping": _pool("MaxPool", (2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool rest": _pool("MaxPool", (2, 7, 9), kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool ceil": _pool("MaxPool", (2, 7, 7), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "MaxPool dilation": _pool("MaxPool", (2, 8, 8), kernel_shape=[2, 2], dilations=[2, 2]),
    "MaxPool SAME": _pool("MaxPool", (2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "MaxPool 1-D": _pool("MaxPool", (3, 11), kernel_shape=[3], strides=[2]),
    "AveragePool": _pool("AveragePool", (2, 6, 6), kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool pads": _pool("AveragePool", (2, 7, 6), kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]),
    "AveragePool pads count": _pool(
        "AveragePool", (2, 7, 6), kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "AveragePool 1-D": _pool("AveragePool", (3, 11), kernel_shape=[3], strides=[2]),
    "GlobalAveragePool": _pool("GlobalAveragePool", (3, 5, 4)),
    "BatchNormalization": lambda: _batch_norm((3, 5, 4)),
    "BatchNormalization 1-D": lambda: _batch_norm((3, 5)),
    "BatchNormalization flat": lambda: _batch_norm((4,)),
    "LayerNormalization": lambda: _layer_norm(-1),
    "LayerNormalization two axes": lambda: _layer_norm(1),
    "RMSNorm": _rms_norm,
    "RMSNorm fused": _pow_rms_norm,
    "Resize nearest": _resize("nearest", "asymmetric", [1, 1, 2, 2], nearest_mode="floor"),
    "Resize nearest odd": _resize("nearest", "half_pixel", [1, 1, 1.5, 3]),
    "Resize linear": _resize("linear", "half_pixel", [1, 1, 2, 1.6]),
    "Resize linear aligned": _resize("linear", "align_corners", [1, 1, 2, 0.6]),
    "Resize cubic": _resize("cubic", "pytorch_half_pixel", [1, 1, 2, 2]),
    "Slice": _slice([1, 0], [5, -1], [1, 2], [1, 1]),
    "Slice steps": _slice([5, 1], [-100, 5], [1, 2], [-2, 3]),
    "Slice negative axis": _slice([-3], [2**31 - 1], [-2], [1]),
    "Gather": _gather((5, 4), [1, 3, 1, -1], 0),
    "Gather axis 1": _gather((3, 5, 2), [[0, 4], [4, 2]], 1),
    "Gather one": _gather((5, 4), 2, 0),
    "Gather last axis": _gather((3, 5), [[1, 1, 0]], 1),
    "GatherElements": _gather_elements,
    "GatherND": lambda: _gather_nd([[1, 1], [0, -3], [1, 1]]),
    "GatherND rows": lambda: _gather_nd([[1, 2], [1, 2], [0, 5]]),
    "GatherND batch": lambda: _gather_nd(None, 1),
    "TopK": _top_k,
    "Trilu": lambda: _trilu(0),
    "Trilu upper": lambda: _trilu(1),
    "Split and Concat": lambda: _split([2, 2, 3]),
    "Concat along the batch": _concat_batch,
    "Expand": _expand,
    "Dropout": _dropout,
}
