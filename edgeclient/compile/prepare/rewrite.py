"""Replaces nodes of a forward model by other nodes; every value that stays keeps its name."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeclient.compile.errors import CompileError, first_line
from edgeclient.compile.graph import STANDARD, copied, needed, opset_of, read_by, refill
from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compress.arrays import Array

_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_WITHOUT_GRADIENT: Final = frozenset(
    {"ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "NonZero",
     "Shape", "Size"}
)  # fmt: skip
# Ops whose first input is all there is in the output.
_REARRANGING: Final = frozenset({"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})


class Rewriter(Builder):
    """A forward model on its way from the first node to the last.

    Args:
        model: not modified; ai.onnx opset 13 or later.
        prefix: of the names of new values, one for each pass.

    Raises:
        CompileError: the shapes of the model contradict each other.
    """

    def __init__(self, model: onnx.ModelProto, prefix: str) -> None:
        try:
            self.model = shape_inference.infer_shapes(model, data_prop=True)
        except shape_inference.InferenceError as error:
            raise CompileError(f"the model is not valid: {first_line(error)}") from None
        graph = self.model.graph
        weights = [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in graph.initializer]
        super().__init__(opset_of(model), [*graph.value_info, *graph.output, *graph.input, *weights])
        self.outputs = {each.name for each in graph.output}
        self.readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in read_by(node):
                self.readers[name].append(node)
        self._prefix = prefix
        self._taken = {*self._values, *(name for node in graph.node for name in node.output)}
        self._given = {
            each.name: numpy_helper.to_array(each) for each in graph.initializer if each.data_type not in _FLOATS
        }
        for node in graph.node:
            if node.op_type == "Constant" and (value := constant_value(node)) is not None:
                self._given[node.output[0]] = value
        self._forgotten: set[str] = set()

    def constant(self, name: str) -> Array | None:
        """What a value is, when that is a constant of the model; parameters are none."""
        return self._given[name] if name in self._given else self.value_of(name)

    def define(self, name: str, value: Array) -> None:
        """A value of the model is this constant."""
        self._given[name] = value
        self.keep(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))

    def knows(self, name: str) -> bool:
        """Whether the rank of a value is known."""
        return self._known(name) is not None

    def is_zero(self, name: str) -> bool:
        """Whether a value is a constant of nothing but zeros, whatever its shape."""
        constant = self.constant(name)
        if constant is not None:
            return not constant.any()
        node = self._producers.get(name)
        if node is None:
            return False
        if node.op_type == "ConstantOfShape":
            return not any(numpy_helper.to_array(each.t).any() for each in node.attribute)
        return node.op_type in _REARRANGING and self.is_zero(node.input[0])

    @cached_property
    def differentiable(self) -> frozenset[str]:
        """Values through which a gradient can come from an output of the model.

        ONNX Runtime's gradient of Split, Concat's inverse, is made of the parts that have one, without gaps.
        """
        found = set(self.outputs)
        for node in reversed(self.model.graph.node):
            if node.op_type not in _WITHOUT_GRADIENT and not found.isdisjoint(node.output):
                found |= read_by(node)
        return frozenset(found)

    def is_float(self, name: str) -> bool:
        """Whether it may be float32: gradients are for nothing else."""
        return bool(self.dtype(name) in {TensorProto.FLOAT, None})

    def split(self, x: str, sizes: Sequence[int], axis: int) -> tuple[str, ...]:
        """Every part must be read: ONNX Runtime puts the gradients of those that are in a row, without gaps."""
        return (x,) if len(sizes) == 1 else self.ops("Split", [x, self.int64(sizes)], len(sizes), axis=axis)

    def split_evenly(self, x: str, parts: int, axis: int) -> tuple[str, ...]:
        """Parts of one size, which may be unknown; as with `split`, each must be read."""
        if parts == 1:
            return (x,)
        return self.ops("Split", [x], parts, axis=axis, **({"num_outputs": parts} if self.opset >= 18 else {}))

    def squeeze(self, x: str, axis: int) -> str:
        """Without an axis of size one."""
        return self.op("Squeeze", x, self.int64([axis]))

    def unsqueeze(self, x: str, axis: int) -> str:
        """With a new axis of size one."""
        return self.op("Unsqueeze", x, self.int64([axis]))

    def forget(self, names: Iterable[str]) -> None:
        """These values change their shapes."""
        self._forgotten.update(names)

    def replace(self, proto: onnx.NodeProto, rule: "Rule") -> None:
        """A node becomes what the rule makes of it, or stays when it makes None."""
        start = len(self.nodes)
        wanted = [name if self.readers.get(name) or name in self.outputs else "" for name in proto.output]
        made = rule(self, Node(proto, proto.input, wanted))
        if made is None:
            assert len(self.nodes) == start, proto.op_type
            self.keep(proto)
            return
        new = {name for node in self.nodes[start:] for name in node.output}
        names: dict[str, str] = {}
        for output, value in zip(wanted, made, strict=False):
            if not output:
                continue
            assert value is not None, (proto.op_type, output)
            if value in new and value not in names:
                names[value] = output
            else:
                self.keep(helper.make_node("Identity", [value], [output]))
        for node in self.nodes[start:]:
            node.input[:] = [names.get(each, each) for each in node.input]
            node.output[:] = [names.get(each, each) for each in node.output]
            self._producers.update((each, node) for each in node.output if each)

    def finished(self) -> onnx.ModelProto:
        """The model without nodes that no output needs."""
        made = copied(self.model)
        graph = made.graph
        kept, read = needed(self.nodes, self.outputs)
        held = [(name, tensor) for name, tensor in self.constants.items() if name in read]
        refill(graph.node, [*(helper.make_node("Constant", [], [name], value=each) for name, each in held), *kept])
        produced = {name for node in graph.node for name in node.output} - self._forgotten
        refill(graph.value_info, [each for each in graph.value_info if each.name in produced])
        return made

    def _fresh(self, kind: str) -> str:
        while True:
            self._count += 1
            name = f"{self._prefix}/{kind}/{self._count}"
            if name not in self._taken:
                return name


# One value for each output of the node, or None to leave the node alone.
Rule: TypeAlias = Callable[[Rewriter, Node], Sequence[str] | None]


def rewritten(
    model: onnx.ModelProto, prefix: str, rules: Mapping[str, Rule], domain: str = STANDARD
) -> onnx.ModelProto:
    """The model with each node for which there is a rule replaced by what the rule makes.

    Args:
        model: not modified.
        prefix: see Rewriter.
        rules: by op.
        domain: of those ops.

    Raises:
        CompileError: as a rule says, or the model is not valid.

    Example:
        >>> y = helper.make_tensor_value_info("y", 1, [2])
        >>> graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [y], [y])
        >>> rule = lambda b, node: [b.op("Max", node.inputs[0], b.op("Neg", node.inputs[0]))]
        >>> [each.op_type for each in rewritten(helper.make_model(graph), "example", {"Abs": rule}).graph.node]
        ['Neg', 'Max']
    """
    b = Rewriter(model, prefix)
    for node in b.model.graph.node:
        rule = rules.get(node.op_type) if (node.domain or STANDARD) == domain else None
        if rule is None:
            b.keep(node)
        else:
            b.replace(node, rule)
    return b.finished()


def constant_value(node: onnx.NodeProto) -> Array | None:
    """The value of a Constant node, unless it is a string or sparse."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(attribute.t))
    if attribute.name in {"value_float", "value_floats"}:
        return np.asarray(helper.get_attribute_value(attribute), np.float32)
    if attribute.name in {"value_int", "value_ints"}:
        return np.asarray(helper.get_attribute_value(attribute), np.int64)
    return None
