"""Models of any age and origin in one dialect: ai.onnx 13 to 21 and no other domain."""

from collections.abc import Iterator, Sequence
from typing import Final

import onnx
from onnx import checker, defs, helper, inliner, version_converter

from edgeclient.compile.errors import CompileError, first_line
from edgeclient.compile.graph import NEWEST_IR, STANDARD, copied, opset_of, refill
from edgeclient.compile.lower.builder import Node, formula
from edgeclient.compile.lower.elementwise import fast_gelu, gelu, quick_gelu
from edgeclient.compile.prepare.rewrite import Rewriter, Rule, rewritten

OLDEST: Final = 13
NEWEST: Final = 21
# The converter's adapters begin at 7; 17 is the first with LayerNormalization.
_CONVERTIBLE: Final = 7
_TARGET: Final = 17
# Before 4, initializers had to be inputs as well.
_IR: Final = 8
_OPTIMISER: Final = "com.microsoft"  # domain of the ops that ONNX Runtime puts in when it optimises a model
_AGAIN: Final = f"export the model again with opset {_TARGET}"


def _fused_matmul(b: Rewriter, node: Node) -> Sequence[str]:
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise node.refuse("transposed batches are not supported: compile the model from before it was optimised")
    flags = [node.attribute(name, 0) for name in ("transA", "transB")]
    operands = [b.swapped(x) if flag else x for x, flag in zip(node.inputs, flags, strict=True)]
    return [b.scaled(b.op("MatMul", *operands), node.attribute("alpha", 1.0))]


def _gelu(b: Rewriter, node: Node) -> Sequence[str]:
    """½ x (1 + erf(x / √2)) of the sum of the inputs."""
    x = b.op("Add", *node.inputs[:2]) if node.input(1) else node.inputs[0]
    return [b.op("Gelu", x) if b.opset >= 20 else gelu(b, x)]


def _fast_gelu(b: Rewriter, node: Node) -> Sequence[str]:
    """The form with tanh, of the sum of the inputs."""
    return [fast_gelu(b, b.op("Add", *node.inputs[:2]) if node.input(1) else node.inputs[0])]


def _skip_layer_norm(b: Rewriter, node: Node) -> Sequence[str]:
    """Outputs: the normalised sum, two that inference does not make, the sum."""
    x, skip, gamma, beta, bias = (node.input(index) for index in range(5))
    if b.opset < 17:
        raise node.refuse("needs LayerNormalization: export the model again with opset 17")
    total = b.op("Add", x, skip)
    total = b.op("Add", total, bias) if bias else total
    inputs = [total, gamma, *([beta] if beta else [])]
    made = b.op("LayerNormalization", *inputs, axis=-1, epsilon=node.attribute("epsilon", 1e-5))
    return [made, "", "", total]


_OPTIMISED: Final[dict[str, Rule]] = {
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": formula(quick_gelu, alpha=1.702),
    "SkipLayerNormalization": _skip_layer_norm,
}


def at_supported_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in opset 13 to 21 of ai.onnx, IR version at most 10, without functions and foreign ops.

    Older ones, from opset 7 on, are converted to 17. The ops that ONNX Runtime's optimiser fuses are taken apart where
    that is simple.

    Raises:
        CompileError: an op of another domain, or an opset that cannot be converted.
    """
    made = copied(inliner.inline_local_functions(model) if model.functions else model)
    for node in _all_nodes(made.graph):
        if node.domain == STANDARD:
            node.domain = ""  # it has two names
    version = opset_of(made)
    if not version:
        raise CompileError(f"the model names no opset of ai.onnx: {_AGAIN}")
    if version > NEWEST:
        raise CompileError(f"opset {version} is too new, {NEWEST} is the newest that ONNX Runtime trains: {_AGAIN}")
    if version < _CONVERTIBLE:
        raise CompileError(f"opset {version} is too old, {_CONVERTIBLE} is the oldest that can be converted: {_AGAIN}")
    if version >= OLDEST and any(node.domain == _OPTIMISER for node in made.graph.node):
        made = rewritten(made, "opset", _OPTIMISED, _OPTIMISER)
    for node in _all_nodes(made.graph):
        _refuse_unknown(node, version)
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("", version))
    weights = {each.name for each in made.graph.initializer}
    refill(made.graph.input, [each for each in made.graph.input if each.name not in weights])
    made.ir_version = min(max(made.ir_version, _IR), NEWEST_IR)
    return _converted(made, version) if version < OLDEST else made


def _converted(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    try:
        made = version_converter.convert_version(model, _TARGET)
        checker.check_model(made, full_check=True)
    except Exception as error:  # noqa: BLE001 (the converter raises whatever it meets)
        reason = f"(reason: {first_line(error)})"
        raise CompileError(f"opset {version} cannot be converted to {_TARGET}: {_AGAIN} {reason}") from None
    return made


def _refuse_unknown(node: onnx.NodeProto, version: int) -> None:
    who = f"{node.op_type} (node {node.name or node.output[0]!r})"
    if node.domain == _OPTIMISER:
        raise CompileError(
            f"{who} is an op of ONNX Runtime's optimiser: compile the model from before it was optimised, or {_AGAIN}"
        )
    if node.domain:
        raise CompileError(f"{who} is an op of the domain {node.domain}, and only those of ai.onnx train: {_AGAIN}")
    if not defs.has(node.op_type, version, ""):
        raise CompileError(f"{who} is no op of ai.onnx {version}: {_AGAIN}")


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)
