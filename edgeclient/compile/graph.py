"""What every pass over an ONNX graph asks: a copy, what a node reads, which nodes are needed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import onnx

STANDARD: Final = "ai.onnx"
NEWEST_IR: Final = 10  # that ONNX Runtime training 1.19.2 reads; newer numbers change nothing in the graph

Message = TypeVar("Message", onnx.ModelProto, onnx.NodeProto, onnx.TensorProto, onnx.ValueInfoProto)


def copied(message: Message) -> Message:
    """The same, to be changed."""
    made = type(message)()
    made.CopyFrom(message)
    return made


def refill(field: Any, values: Iterable[Any]) -> None:
    """A repeated field holds these from now on, which may have been its own."""
    kept = list(values)
    del field[:]
    field.extend(kept)


def read_by(node: onnx.NodeProto) -> set[str]:
    """Names of the values that a node reads, those that its subgraphs read from outside among them."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else [])):
            names.update(*map(read_by, graph.node), (each.name for each in graph.output))
    return names


def needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, in their order, and every name that those read or that is asked for."""
    names, kept = set(outputs), []
    for node in reversed(nodes):
        if not names.isdisjoint(node.output):
            kept.append(node)
            names |= read_by(node)
    return kept[::-1], names


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ai.onnx that the model is written in; 0 if it names none."""
    return next((int(each.version) for each in model.opset_import if (each.domain or STANDARD) == STANDARD), 0)


def with_initialisers(model: onnx.ModelProto, wanted: Callable[[str, onnx.TensorProto], bool]) -> onnx.ModelProto:
    """Constant nodes that `wanted` chooses become initialisers: some exporters write weights so."""
    made, nodes = copied(model), []
    for node in made.graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" and node.attribute[0].name == "value" else None
        if value is not None and wanted(node.output[0], value):
            made.graph.initializer.append(value)
            made.graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(node)
    refill(made.graph.node, nodes)
    return made
