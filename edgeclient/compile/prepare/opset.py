"""Models of any age and origin in one dialect: ai.onnx 13 to 21 and no other domain."""

from collections.abc import Iterator
from typing import Final

import onnx
from onnx import checker, defs, helper, inliner, version_converter

from edgeclient.compile.errors import CompileError
from edgeclient.compile.prepare.contrib import DOMAIN, RULES
from edgeclient.compile.prepare.rewrite import STANDARD, opset_of, rewritten

OLDEST: Final = 13
NEWEST: Final = 21
# The converter's adapters begin at 7; 17 is the first with LayerNormalization.
_CONVERTIBLE: Final = 7
_TARGET: Final = 17
# ONNX Runtime training 1.19.2 reads IR versions up to 10. Before 4, initializers had to be inputs as well.
_NEWEST_IR: Final = 10
_IR: Final = 8
_AGAIN: Final = f"export the model again with opset {_TARGET}"


def at_supported_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in opset 13 to 21 of ai.onnx, IR version at most 10, without functions and foreign ops.

    Older ones, from opset 7 on, are converted to 17. The ops that ONNX Runtime's optimiser fuses are taken apart where
    that is simple.

    Args:
        model: not modified.

    Raises:
        CompileError: an op of another domain, or an opset that cannot be converted.
    """
    made = onnx.ModelProto()
    made.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    _use_one_name(made.graph)
    version = opset_of(made)
    if not version:
        raise CompileError(f"the model names no opset of ai.onnx: {_AGAIN}")
    if version > NEWEST:
        raise CompileError(f"opset {version} is too new, {NEWEST} is the newest that ONNX Runtime trains: {_AGAIN}")
    if version < _CONVERTIBLE:
        raise CompileError(f"opset {version} is too old, {_CONVERTIBLE} is the oldest that can be converted: {_AGAIN}")
    if version >= OLDEST and any(node.domain == DOMAIN for node in made.graph.node):
        made = rewritten(made, "opset", RULES, DOMAIN)
    for node in _all_nodes(made.graph):
        _refuse_unknown(node, version)
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("", version))
    weights = {each.name for each in made.graph.initializer}
    if any(each.name in weights for each in made.graph.input):
        inputs = [each for each in made.graph.input if each.name not in weights]
        del made.graph.input[:]
        made.graph.input.extend(inputs)
    made.ir_version = min(max(made.ir_version, _IR), _NEWEST_IR)
    return _converted(made, version) if version < OLDEST else made


def _converted(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    try:
        made = version_converter.convert_version(model, _TARGET)
        checker.check_model(made, full_check=True)
    except Exception as error:  # noqa: BLE001 (the converter raises whatever it meets)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CompileError(f"opset {version} cannot be converted to {_TARGET}: {_AGAIN} (reason: {reason})") from None
    return made


def _refuse_unknown(node: onnx.NodeProto, version: int) -> None:
    who = f"{node.op_type} (node {node.name or node.output[0]!r})"
    if node.domain == DOMAIN:
        raise CompileError(
            f"{who} is an op of ONNX Runtime's optimiser: compile the model from before it was optimised, or {_AGAIN}"
        )
    if node.domain:
        raise CompileError(f"{who} is an op of the domain {node.domain}, and only those of ai.onnx train: {_AGAIN}")
    if not defs.has(node.op_type, version, ""):
        raise CompileError(f"{who} is no op of ai.onnx {version}: {_AGAIN}")


def _use_one_name(graph: onnx.GraphProto) -> None:
    """The standard domain has two: "" and "ai.onnx"."""
    for node in _all_nodes(graph):
        if node.domain == STANDARD:
            node.domain = ""


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)
