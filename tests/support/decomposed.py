"""A model for each op, and each form of one, that is rewritten because ONNX Runtime training has no right gradient."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper
from prepared import constant, model

from edgeclient.compress.arrays import Array

node = helper.make_node
# Without a gradient builder in ONNX Runtime training 1.19.2.
MISSING: Final = frozenset(
    {
        "Acosh",
        "Asinh",
        "Atanh",
        "CastLike",
        "Celu",
        "Cosh",
        "CumSum",
        "DepthToSpace",
        "Einsum",
        "Elu",
        "GlobalLpPool",
        "GlobalMaxPool",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "InstanceNormalization",
        "LRN",
        "LpNormalization",
        "Mean",
        "MeanVarianceNormalization",
        "Mish",
        "PRelu",
        "ReduceL1",
        "ReduceLogSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceSumSquare",
        "Selu",
        "Shrink",
        "Sinh",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "Sum",
        "Tan",
        "ThresholdedRelu",
    }
)


def case(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    weights: Mapping[str, Sequence[int]] | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    rank: int | None = None,
) -> onnx.ModelProto:
    """X (batch, *shape) times a parameter p of that shape is xp, from which the nodes make y.

    Half of p lies around 1, the rest around −1; weights are normal. `rank` of y, where inference does not find it.
    """
    rng = np.random.default_rng(len(shape) + len(nodes))
    p = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)
    parameters: dict[str, Array] = {"p": p.astype(np.float32)}
    parameters |= {name: rng.normal(0, 1, size).astype(np.float32) for name, size in (weights or {}).items()}
    made = [
        constant(name, value, np.float32 if np.asarray(value).dtype.kind == "f" else np.int64)
        for name, value in (constants or {}).items()
    ]
    every = [*made, node("Mul", ["x", "p"], ["xp"]), *nodes]
    return model(
        every, {"x": ["batch", *shape]}, {"y": None if rank is None else [None] * rank}, parameters, opset=opset
    )


def unary(kind: str, shape: Sequence[int] = (3, 4), *, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    return case([node(kind, ["xp"], ["y"], **attributes)], shape, opset=opset)


def reduction(kind: str, axes: Sequence[int] | None, *, keepdims: int, opset: int = 17) -> onnx.ModelProto:
    """Of absolute values plus one half, which have a logarithm."""
    first = [node("Abs", ["xp"], ["size"]), node("Add", ["size", "half"], ["z"])]
    inputs, attributes = ["z"], {}
    constants: dict[str, Any] = {"half": 0.5}
    if axes is not None and opset >= 18:
        inputs, constants = ["z", "axes"], constants | {"axes": list(axes)}
    elif axes is not None:
        attributes = {"axes": list(axes)}
    return case(
        [*first, node(kind, inputs, ["y"], keepdims=keepdims, **attributes)], (3, 4), constants=constants, opset=opset
    )


def einsum(equation: str, shape: Sequence[int], *weights: Sequence[int]) -> onnx.ModelProto:
    names = {f"w{index}": size for index, size in enumerate(weights)}
    rank = 3 if "->" not in equation else None
    return case([node("Einsum", ["xp", *names], ["y"], equation=equation)], shape, names, rank=rank)


def padded(mode: str, pads: Sequence[int], shape: Sequence[int], **more: Any) -> onnx.ModelProto:
    opset, value, axes = more.get("opset", 17), more.get("value"), more.get("axes")
    constants: dict[str, Any] = {"pads": list(pads)}
    constants |= {} if value is None else {"value": value}
    constants |= {} if axes is None else {"axes": list(axes)}
    inputs = ["xp", "pads", "value" if value is not None else "", "axes" if axes is not None else ""]
    while not inputs[-1]:
        inputs.pop()
    return case([node("Pad", inputs, ["y"], mode=mode)], shape, constants=constants, opset=opset)


def normalised(kind: str, shape: Sequence[int], size: int, *, opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    sizes = {"gamma": (size,), "beta": (size,)}
    nodes = [node(kind, ["xp", "gamma", "beta"], ["y"], **attributes)]
    return case(nodes, shape, sizes, opset=opset, rank=len(shape) + 1)


def where(x: Sequence[int], y: Sequence[int], condition: Sequence[int]) -> onnx.ModelProto:
    """Between two parameters that are stretched, where xp, or its first row, is positive."""
    nodes = [
        node("Reshape", ["xp", "shape"], ["z"]) if condition else node("Identity", ["xp"], ["z"]),
        node("Greater", ["z", "null"], ["positive"]),
        node("Where", ["positive", "a", "b"], ["chosen"]),
        node("Mul", ["xp", "chosen"], ["y"]),
    ]
    constants = {"null": 0.0} | ({"shape": list(condition)} if condition else {})
    return case(nodes, (3, 4), {"a": x, "b": y}, constants=constants)


ACTIVATIONS: Final = {
    "Elu": unary("Elu"),
    "Elu alpha": unary("Elu", alpha=0.5),
    "Celu": unary("Celu", alpha=2.0),
    "Selu": unary("Selu"),
    "Selu named": unary("Selu", alpha=1.5, gamma=2.0),
    "Softplus": unary("Softplus"),
    "Softsign": unary("Softsign"),
    "HardSigmoid": unary("HardSigmoid"),
    "HardSigmoid named": unary("HardSigmoid", alpha=0.5, beta=0.3),
    "HardSwish": unary("HardSwish"),
    "Mish": unary("Mish", opset=18),
    "PRelu": case([node("PRelu", ["xp", "w"], ["y"])], (3, 4), {"w": (3, 1)}),
    "ThresholdedRelu": unary("ThresholdedRelu", alpha=0.3),
    "Shrink": unary("Shrink", lambd=0.3, bias=0.1),
    "Sinh": unary("Sinh"),
    "Cosh": unary("Cosh"),
    "Tan": case([node("Tanh", ["xp"], ["small"]), node("Tan", ["small"], ["y"])], (3, 4)),
    "Asinh": unary("Asinh"),
    "Acosh": case(
        [node("Abs", ["xp"], ["s"]), node("Add", ["s", "more"], ["z"]), node("Acosh", ["z"], ["y"])],
        (3, 4), constants={"more": 1.5},
    ),
    "Atanh": case(
        [node("Tanh", ["xp"], ["t"]), node("Mul", ["t", "less"], ["z"]), node("Atanh", ["z"], ["y"])],
        (3, 4), constants={"less": 0.9},
    ),
    "Sum": case([node("Sum", ["xp", "w", "xp"], ["y"])], (3, 4), {"w": (4,)}),
    "Sum of one": unary("Sum"),
    "Mean": case([node("Mean", ["xp", "w", "v"], ["y"])], (3, 4), {"w": (3, 1), "v": (4,)}),
    "CastLike": case([node("CastLike", ["xp", "x"], ["y"])], (3, 4)),
}  # fmt: skip

REDUCTIONS: Final = {
    f"{kind} {axes} keepdims {keepdims} opset {opset}": reduction(kind, axes, keepdims=keepdims, opset=opset)
    for kind in ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
    for keepdims in (0, 1)
    for axes, opset in (([1], 17), ([-1, 1], 18), (None, 17), ([2], 20))
} | {
    "GlobalMaxPool": unary("GlobalMaxPool", (2, 3, 4)),
    "GlobalMaxPool 1-D": unary("GlobalMaxPool", (2, 5)),
    "GlobalLpPool": unary("GlobalLpPool", (2, 3, 4)),
    "GlobalLpPool 1": unary("GlobalLpPool", (2, 3, 4), p=1),
    "LpNormalization": unary("LpNormalization"),
    "LpNormalization 1": unary("LpNormalization", axis=1, p=1),
    "CumSum last": case([node("CumSum", ["xp", "axis"], ["y"])], (3, 4), constants={"axis": -1}),
    "CumSum middle": case([node("CumSum", ["xp", "axis"], ["y"], exclusive=1)], (3, 4), constants={"axis": 1}),
    "CumSum first": case([node("CumSum", ["xp", "axis"], ["y"], reverse=1)], (3, 4, 2), constants={"axis": 1}),
    "CumSum both": case([node("CumSum", ["xp", "axis"], ["y"], reverse=1, exclusive=1)], (3,), constants={"axis": 1}),
    "CumSum of a vector": case(
        [node("CumSum", ["w", "axis"], ["sums"]), node("Mul", ["xp", "sums"], ["y"])], (4,), {"w": (4,)},
        constants={"axis": 0},
    ),
}  # fmt: skip

NORMALISATIONS: Final = {
    "InstanceNormalization": normalised("InstanceNormalization", (3, 4, 5), 3),
    "InstanceNormalization 1-D": normalised("InstanceNormalization", (3, 6), 3, epsilon=1e-3),
    "InstanceNormalization opset 16": normalised("InstanceNormalization", (3, 4, 5), 3, opset=16),
    "GroupNormalization": normalised("GroupNormalization", (4, 3, 3), 4, opset=21, num_groups=2),
    "GroupNormalization 1-D": normalised("GroupNormalization", (6, 5), 6, opset=21, num_groups=3),
    "GroupNormalization, γ per group": normalised("GroupNormalization", (4, 3, 3), 2, opset=18, num_groups=2),
    "MeanVarianceNormalization": case(
        [node("Add", ["xp", "w"], ["z"]), node("MeanVarianceNormalization", ["z"], ["y"], axes=[2, 3])],
        (2, 3, 4), {"w": (2, 3, 4)},
    ),
    "LRN": unary("LRN", (5, 3, 3), size=3, alpha=0.3, beta=0.6, bias=1.5),
    "LRN wide": unary("LRN", (5, 2, 3), size=5, alpha=0.3),
    "LayerNormalization": normalised("LayerNormalization", (3, 4), 4),
    "LayerNormalization without bias": case([node("LayerNormalization", ["xp", "w"], ["y"])], (3, 4), {"w": (4,)}),
    "LayerNormalization from axis 1": case(
        [node("LayerNormalization", ["xp", "g", "b"], ["y"], axis=1, epsilon=1e-3)], (3, 4), {"g": (3, 4), "b": (3, 4)}
    ),
}  # fmt: skip

# Weights have no axis b, the batch.
EINSUM: Final = {
    equation: einsum(equation, *shapes)
    for equation, *shapes in (
        ("bi,ij->bj", (3,), (3, 4)),
        ("bij,jk->bik", (2, 3), (3, 4)),
        ("bij->bji", (2, 3)),
        ("bij->b", (2, 3)),
        ("bqhd,khd->bhqk", (3, 2, 4), (5, 2, 4)),
        ("bthd,hdm->btm", (3, 2, 4), (2, 4, 5)),
        ("btm,mhd->bthd", (3, 4), (4, 2, 5)),
        ("bi,j->bij", (3,), (4,)),
        ("bi,i->bi", (3,), (3,)),
        ("bi,i->b", (3,), (3,)),
        ("bi,ij,jk->bk", (3,), (3, 4), (4, 2)),
        ("bij,k->bk", (2, 3), (4,)),
        ("bi,ik,jk->bij", (3,), (3, 4), (5, 4)),
        ("...i,ij->...j", (2, 3), (3, 4)),
        ("bij,jk", (2, 3), (3, 4)),
        ("b...,ij->b...", (2,), (3, 4)),
        ("bhik,hkj->bhij", (2, 3, 4), (2, 4, 5)),
        ("bhik,hkjl->bhijl", (2, 3, 4), (2, 4, 5, 2)),
        ("bijk,jl->bilk", (2, 3, 4), (3, 5)),
    )
}
ATTENTION: Final = {
    equation: case(
        [
            node("Mul", ["xp", "w"], ["z"]),
            node("Einsum", ["xp", "z"], ["scores"], equation=equation),
            node("Einsum", ["scores", "z"], ["y"], equation=then),
        ],
        shape, {"w": shape},
    )
    for equation, then, shape in (
        ("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", (3, 2, 4)),
        ("bhqd,bhkd->bhqk", "bhqk,bhkd->bhqd", (2, 3, 4)),
        ("bij,bij->b", "b,bij->bji", (2, 3)),
        ("bijk,bijl->bkl", "bkl,bijl->bijk", (2, 3, 4)),
        ("bijk,bijl->bijkl", "bijkl,bijl->bijk", (2, 3, 4)),
        ("bij,bkl->bijkl", "bijkl,bij->bkl", (2, 3)),
    )
}  # fmt: skip

ARRANGEMENTS: Final = {
    "Split with an unread part": case(
        [node("Split", ["xp", "sizes"], ["a", "b", "y"], axis=1)], (6, 2), constants={"sizes": [1, 2, 3]}
    ),
    "Split with an unread middle": case(
        [node("Split", ["xp", "sizes"], ["a", "b", "c"], axis=-1), node("Concat", ["c", "a"], ["y"], axis=-1)],
        (2, 6), constants={"sizes": [1, 2, 3]},
    ),
    "Split evenly, of which only the shape is read": case(
        [
            node("Split", ["xp"], ["a", "b"], axis=1),
            node("Shape", ["b"], ["shape"]),
            node("Expand", ["a", "shape"], ["y"]),
        ],
        (4, 2),
    ),
    "Split unevenly": case([node("Split", ["xp"], ["a", "b", "y"], axis=1, num_outputs=3)], (5,), opset=18),
    "Transpose": unary("Transpose"),
    "Where with stretched branches": where((4,), (3, 1), ()),
    "Where with a stretched condition": where((3, 4), (4,), (-1, 3, 4)),
    "Where with a missing axis": case(
        [node("Greater", ["x", "null"], ["positive"]), node("Where", ["positive", "p", "xp"], ["y"])],
        (3, 4), constants={"null": 0.0},
    ),
    "Where with a number": case(
        [node("Greater", ["xp", "null"], ["positive"]), node("Where", ["positive", "xp", "null"], ["y"])],
        (3, 4), constants={"null": 0.0},
    ),
    "Pow of a stretched base": case(
        [node("Pow", ["w", "powers"], ["z"]), node("Mul", ["xp", "z"], ["y"])],
        (3, 4), {"w": (4,)}, constants={"powers": [[1.0], [2.0], [3.0]]},
    ),
    "MatMul by a vector": case([node("MatMul", ["xp", "w"], ["y"])], (3, 4), {"w": (4,)}),
    "MatMul of a vector": case(
        [node("Transpose", ["xp"], ["t"], perm=[1, 0]), node("MatMul", ["w", "t"], ["y"])], (4,), {"w": (4,)}
    ),
    "MatMul of vectors": case(
        [node("MatMul", ["w", "v"], ["z"]), node("Mul", ["xp", "z"], ["y"])], (4,), {"w": (3,), "v": (3,)}
    ),
    "Gemm without C": case(
        [node("Gemm", ["xp", "w", "c"], ["y"], beta=0.0, alpha=0.5, transB=1)], (4,), {"w": (3, 4), "c": (3,)}
    ),
    "DepthToSpace": unary("DepthToSpace", (8, 2, 3), blocksize=2),
    "DepthToSpace CRD": unary("DepthToSpace", (8, 2, 3), blocksize=2, mode="CRD"),
    "SpaceToDepth": unary("SpaceToDepth", (2, 4, 6), blocksize=2),
    "ScatterElements that adds": case(
        [
            node("ScatterElements", ["w", "places", "v"], ["z"], axis=0, reduction="add"),
            node("Mul", ["xp", "z"], ["y"]),
        ],
        (3, 4), {"w": (3, 4), "v": (2, 4)}, constants={"places": [[0, 1, 1, 2], [0, 2, 1, 0]]},
    ),
    "Pad on named axes": padded("constant", [1, 2], (3, 4), axes=[-1], opset=18),
    "Pad with a number on named axes": padded("constant", [1, 0, 0, 2], (3, 4), axes=[2, 1], value=3.0, opset=18),
    "Pad reflect": padded("reflect", [0, 1, 2, 0, 2, 3], (3, 4)),
    "Pad edge": padded("edge", [0, 1, 2, 0, 0, 3], (3, 4)),
    "Pad wrap": padded("wrap", [0, 2, 0, 3], (4,), opset=19),
    "Pad reflect, long": padded("reflect", [0, 20, 0, 20], (30,)),
}  # fmt: skip

CASES: Final[dict[str, onnx.ModelProto]] = ACTIVATIONS | REDUCTIONS | NORMALISATIONS | EINSUM | ATTENTION | ARRANGEMENTS
