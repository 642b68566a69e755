"""From a training graph to the same graph in standard ops: node by node, keeping what is standard already."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, defs, helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import NEWEST_IR, STANDARD, copied, needed, opset_of
from edgeclient.compile.lower import conv, elementwise, indexing, loss, matmul, norm, pool, resize  # noqa: F401 (they register their rules)
from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import RULES

# Reductions into ScatterElements came with 16. From 13 to 17 no op changed its meaning but RoiAlign.
OPSET: Final = 17
OLDEST: Final = 13
_ACCUMULATOR: Final = "InPlaceAccumulatorV2"
# In the ai.onnx domain, yet without a kernel in the plain runtime, or slower there than what the rule makes.
_LOWERED_TOO: Final = {"SoftmaxCrossEntropyLoss"}


@dataclass(frozen=True)
class Lowered:
    """A graph of standard ops.

    Attributes:
        model: its inputs are those of the original that it reads.
        gradients: output name by parameter name.
        buffers: output name of the new value by name of the running statistic.
    """

    model: onnx.ModelProto
    gradients: Mapping[str, str]
    buffers: Mapping[str, str]


def lower(
    model: onnx.ModelProto, shapes_of: onnx.ModelProto | None = None, outputs: Collection[str] | None = None
) -> Lowered:
    """Rewrite every training-only op of a training or evaluation graph.

    Args:
        model: as ONNX Runtime generates it; parameters are inputs.
        shapes_of: another graph whose values of the same names have known shapes.
        outputs: which of the graph's own are kept, beside gradients and running statistics; None for all.

    Raises:
        CompileError: an op without a rule, a shape that cannot be resolved.
    """
    walk = _Walk(model, Builder(max(_opset(model), OPSET), _values(model, shapes_of)))
    for node in model.graph.node:
        walk.take(node)
    return walk.finished(outputs)


class _Walk:
    def __init__(self, model: onnx.ModelProto, b: Builder) -> None:
        self._model = model
        self._b = b
        for tensor in model.graph.initializer:
            b.add_constant(tensor)
        self._outputs = {each.name for each in model.graph.output}
        self._wanted = self._outputs | {name for node in model.graph.node for name in node.input}
        self._renamed: dict[str, str] = {}
        self._gradients: dict[str, str] = {}
        self._buffers: dict[str, str] = {}
        self._unknown: list[str] = []

    def take(self, proto: onnx.NodeProto) -> None:
        """One node of the training graph."""
        inputs = [self._renamed.get(name, name) for name in proto.input]
        if proto.op_type == _ACCUMULATOR:
            self._gradients[proto.input[1].removesuffix("_grad")] = inputs[1]
        elif proto.op_type == "Identity" and proto.output[0] not in self._outputs:
            self._renamed[proto.output[0]] = inputs[0]
        elif _is_standard(proto, self._b.opset):
            kept = copied(proto)
            kept.input[:] = inputs
            self._b.keep(kept)
        elif proto.op_type in RULES:
            node = Node(proto, inputs, [name if name in self._wanted else "" for name in proto.output])
            made = RULES[proto.op_type](self._b, node)
            for name, value in zip(proto.output, made, strict=False):
                if name and value is not None:
                    self._renamed[name] = value
                    self._b.describe(value, name)
            if proto.op_type == "BatchNormInternal":
                self._remember(node, made)
        else:
            self._unknown.append(f"{proto.op_type} (node {proto.name or proto.output[0]!r})")

    def _remember(self, node: Node, made: Sequence[str | None]) -> None:
        for statistic, value in zip(node.proto.input[3:5], made[1:3], strict=True):
            if statistic in self._buffers:
                raise node.refuse(f"{statistic} belongs to two nodes: give each its own running statistics")
            assert value is not None
            self._buffers[statistic] = value

    def finished(self, outputs: Collection[str] | None) -> Lowered:
        """The graph of all that was taken."""
        if self._unknown:
            raise CompileError(
                f"no rule to lower {', '.join(self._unknown)}: write the model without it, or freeze what comes before"
            )
        inputs = {each.name: each for each in self._model.graph.input}
        named = [
            (copied(each), self._renamed.get(each.name, each.name))
            for each in self._model.graph.output
            if not each.name.endswith("_grad.accumulation.out") and (outputs is None or each.name in outputs)
        ]
        named += [(_like(inputs[name], f"{name}_grad"), value) for name, value in self._gradients.items()]
        named += [(_like(inputs[name], f"{name}_next"), value) for name, value in self._buffers.items()]
        nodes = list(self._b.nodes)
        for info, value in named:
            # A value keeps one name; an Identity gives it the one that the outside knows.
            if info.name != value:
                nodes.append(helper.make_node("Identity", [value], [info.name]))
        return Lowered(
            _simplified(nodes, self._b, [info for info, _ in named], inputs, self._model),
            {name: f"{name}_grad" for name in self._gradients},
            {name: f"{name}_next" for name in self._buffers},
        )


def _simplified(
    nodes: list[onnx.NodeProto],
    b: Builder,
    outputs: list[onnx.ValueInfoProto],
    inputs: Mapping[str, onnx.ValueInfoProto],
    model: onnx.ModelProto,
) -> onnx.ModelProto:
    """Only what the outputs need, with short names: a bundle travels to every device."""
    named = {each.name for each in outputs}
    kept, read = needed(_without_trailing_identities(nodes, named), named)
    fixed = named | set(inputs)
    short: dict[str, str] = {"": ""}
    made = []
    for node in kept:
        copy = copied(node)
        copy.name = copy.doc_string = ""
        del copy.output[:], copy.input[:]
        for name in node.input:
            copy.input.append(name if name in fixed else short.setdefault(name, f"v{len(short):x}"))
        for name in node.output:
            used = name if name in read else ""
            copy.output.append(used if used in fixed else short.setdefault(used, f"v{len(short):x}"))
        least = defs.get_schema(copy.op_type, b.opset, "").min_output
        # The number of Split's outputs says how it splits.
        while copy.op_type != "Split" and len(copy.output) > least and copy.output[-1] == "":
            del copy.output[-1]
        for index, name in enumerate(copy.output):
            if not name:
                copy.output[index] = short.setdefault(node.output[index], f"v{len(short):x}")
        made.append(copy)
    constants = []
    for name, tensor in b.constants.items():
        if name in read:
            constants.append(copied(tensor))
            constants[-1].name = name if name in fixed else short[name]
    given = [each for name, each in inputs.items() if name in read and name not in b.constants]
    graph = helper.make_graph(made, "lowered", given, outputs, constants)
    ir_version = min(int(model.ir_version), NEWEST_IR)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=ir_version)


def _without_trailing_identities(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Identity(v) → output becomes: the producer of v calls it `output`, when no other output wants v."""
    produced = {name for node in nodes for name in node.output if node.op_type != "Identity"}
    taken: dict[str, str] = {}
    rest = []
    for node in nodes:
        if node.op_type == "Identity" and node.output[0] in outputs:
            value = node.input[0]
            if value in produced and value not in outputs and value not in taken:
                taken[value] = node.output[0]
                continue
        rest.append(node)
    made = []
    for node in rest:
        copy = copied(node)
        copy.input[:] = [taken.get(name, name) for name in node.input]
        copy.output[:] = [taken.get(name, name) for name in node.output]
        made.append(copy)
    return made


def _opset(model: onnx.ModelProto) -> int:
    if (found := opset_of(model)) < OLDEST:
        raise CompileError(f"opset {found} is too old for a training graph, {OLDEST} is the oldest: export again")
    return found


def _is_standard(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain not in {"", STANDARD} or node.op_type in _LOWERED_TOO:
        return False
    return bool(defs.has(node.op_type)) and not defs.get_schema(node.op_type, opset, "").deprecated


def _values(*models: onnx.ModelProto | None) -> list[onnx.ValueInfoProto]:
    return [
        value
        for model in models
        if model is not None
        for value in (*model.graph.value_info, *model.graph.output, *model.graph.input)
    ]


def _like(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    dims = [each.dim_value for each in value.type.tensor_type.shape.dim]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
