"""A forward model made ready for gradients: parameters chosen, normalisation and dropout in training form."""

from collections.abc import Container, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import copied, refill, with_initialisers

# Inputs at which an op reads something learnt, whatever its size; elsewhere a lone number is a constant of a formula.
_LEARNT: Final[dict[str, tuple[int, ...]]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Gather": (0,),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GRU": (1, 2, 3),
    "LSTM": (1, 2, 3, 7),
    "RNN": (1, 2, 3),
    "PRelu": (1,),
}
_PRODUCTS: Final = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
_STATISTICS: Final[dict[str, tuple[int, ...]]] = {"BatchNormalization": (3, 4)}


def with_weights(model: onnx.ModelProto, named: Sequence[str] = ()) -> onnx.ModelProto:
    """Weights that an exporter wrote as Constant nodes become initializers: where an op reads something learnt.

    That is also what is added to a product, if it has one axis, and what one of the patterns in `named` names.
    """
    learnt = _read_at(model, _LEARNT) | _read_at(model, _STATISTICS)
    added = _added_to_products(model)
    patterns = [pattern for pattern in named if pattern != "*"]

    def is_weight(name: str, value: onnx.TensorProto) -> bool:
        is_bias = name in added and sum(size > 1 for size in value.dims) == 1
        chosen = name in learnt or is_bias or bool(_matching([name], patterns))
        return chosen and value.data_type == TensorProto.FLOAT

    return with_initialisers(model, is_weight)


def parameters(
    model: onnx.ModelProto, trainable: Sequence[str], frozen: Sequence[str], constants: Container[str] = ()
) -> list[str]:
    """Names of the initializers to train, in the model's order.

    All float32 initializers are, but for running statistics, lone numbers in formulas, and what `frozen` names.

    Args:
        model: forward.
        trainable: patterns as of a shell; one that is no star chooses lone numbers and `constants` too.
        frozen: patterns.
        constants: what is left otherwise, unless an op reads something learnt there.

    Raises:
        CompileError: a pattern matches nothing, or nothing is left to train.
    """
    names = [
        each.name for each in model.graph.initializer if each.data_type == TensorProto.FLOAT and 0 not in each.dims
    ]
    for pattern in (*trainable, *frozen):
        if not _matching(names, [pattern]):
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise CompileError(f"pattern {pattern!r} matches none of the model's parameters ({shown or 'it has none'})")
    sizes = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer}
    learnt, statistics = (_read_at(model, places) for places in (_LEARNT, _STATISTICS))
    explicit = _matching(names, [pattern for pattern in trainable if pattern != "*"])
    chosen = [
        name
        for name in _matching(names, trainable)
        if name not in statistics
        and ((sizes[name] > 1 and name not in constants) or name in learnt or name in explicit)
    ]
    held = set(_matching(names, frozen))
    used = {name for node in model.graph.node for name in node.input}
    left = [name for name in chosen if name not in held and name in used]
    if not left:
        raise CompileError(
            "no parameter is left to train: the model has no float32 initializers that its nodes read, or all of them"
            " are frozen or constants (--trainable NAME trains those too)"
        )
    return left


def in_training_form(model: onnx.ModelProto, *, batch_norm: str) -> onnx.ModelProto:
    """Names for all nodes, masks for dropout, and normalisation by statistics of the batch or frozen ones.

    Args:
        model: forward.
        batch_norm: "frozen" writes BatchNormalization as arithmetic on its running statistics; ONNX Runtime trains
            all others by the batch, whatever their attributes say.
    """
    made = copied(model)
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        if node.op_type == "BatchNormalization" and batch_norm == "frozen":
            nodes.extend(_frozen_norm(node, made.graph, len(nodes)))
            continue
        if node.op_type == "Dropout" and len(node.output) == 1:
            node.output.append(f"{node.output[0]}/mask")
        nodes.append(node)
    for index, node in enumerate(nodes):
        # ONNX Runtime names gradient nodes after forward nodes: that is how the lowering finds them.
        node.name = f"n{index}"
    refill(made.graph.node, nodes)
    return made


def _frozen_norm(node: onnx.NodeProto, graph: onnx.GraphProto, index: int) -> list[onnx.NodeProto]:
    """γ (x − mean) / √(var + ε) + β, all per channel."""
    x, gamma, beta, mean, var = node.input
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    if mean not in values or var not in values:
        raise CompileError(f"BatchNormalization (node {node.name}): its running statistics must be initializers")
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
    rank = next(
        (
            len(each.type.tensor_type.shape.dim)
            for each in (*graph.value_info, *graph.input)
            if each.name == x and each.type.tensor_type.HasField("shape")
        ),
        4,
    )
    shape = [-1] + [1] * (rank - 2)
    p = f"norm{index}/"
    centre = numpy_helper.from_array(values[mean].reshape(shape), f"{p}mean")
    inverse = numpy_helper.from_array((1 / np.sqrt(values[var] + epsilon)).astype(np.float32).reshape(shape), f"{p}inv")
    form = numpy_helper.from_array(np.array(shape), f"{p}shape")
    return [
        helper.make_node("Constant", [], [f"{p}m"], value=centre),
        helper.make_node("Constant", [], [f"{p}i"], value=inverse),
        helper.make_node("Constant", [], [f"{p}s"], value=form),
        helper.make_node("Sub", [x, f"{p}m"], [f"{p}centred"]),
        helper.make_node("Mul", [f"{p}centred", f"{p}i"], [f"{p}normal"]),
        helper.make_node("Reshape", [gamma, f"{p}s"], [f"{p}gamma"]),
        helper.make_node("Reshape", [beta, f"{p}s"], [f"{p}beta"]),
        helper.make_node("Mul", [f"{p}normal", f"{p}gamma"], [f"{p}scaled"]),
        helper.make_node("Add", [f"{p}scaled", f"{p}beta"], [node.output[0]]),
    ]


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = list(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _added_to_products(model: onnx.ModelProto) -> set[str]:
    products = {name for node in model.graph.node if node.op_type in _PRODUCTS for name in node.output}
    return {
        name
        for node in model.graph.node
        if node.op_type == "Add" and products.intersection(node.input)
        for name in node.input
    }


def _read_at(model: onnx.ModelProto, places: dict[str, tuple[int, ...]]) -> set[str]:
    return {
        node.input[index]
        for node in model.graph.node
        for index in places.get(node.op_type, ())
        if index < len(node.input)
    }
