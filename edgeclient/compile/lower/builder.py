"""Emits standard ONNX nodes and knows the shapes of what they read."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import copied
from edgeclient.compress.arrays import Array

# A dimension is a number, a symbol, or unknown.
Dimension: TypeAlias = int | str | None
Shape: TypeAlias = tuple[Dimension, ...]

FLOAT: Final = np.dtype(np.float32)
INT64: Final = np.dtype(np.int64)


class Builder:
    """A graph under construction; every method returns names of values.

    Args:
        opset: of ai.onnx, 13 or later: it decides whether reductions take their axes as input.
        values: what is known of values that exist before the first node, by name.

    Example:
        >>> b = Builder(17, [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])])
        >>> b.rank(b.reduce("ReduceSum", b.op("Relu", "x"), [1], keepdims=False))
        1
    """

    def __init__(self, opset: int, values: Sequence[onnx.ValueInfoProto]) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._values = {value.name: value for value in values if value.type.tensor_type.elem_type}
        self._inferred_at = -1
        self._producers: dict[str, onnx.NodeProto] = {}
        self._count = 0

    # Nodes

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output; an absent optional input is an empty string."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> tuple[str, ...]:
        """One node with several outputs."""
        made = tuple(self._fresh(kind) for _ in range(outputs))
        self.keep(helper.make_node(kind, list(inputs), list(made), **attributes))
        return made

    def keep(self, node: onnx.NodeProto) -> None:
        """A node that is standard already."""
        self.nodes.append(node)
        self._producers.update((name, node) for name in node.output if name)

    def reduce(self, kind: str, x: str, axes: Sequence[int], *, keepdims: bool) -> str:
        """ReduceSum, ReduceMean and their kin; a reduction over no axis is the value itself."""
        if not axes:
            return x
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, x, self.int64(axes), keepdims=int(keepdims))
        return self.op(kind, x, axes=list(axes), keepdims=int(keepdims))

    def reshape(self, x: str, shape: str | Sequence[int]) -> str:
        """To a constant shape (0 keeps a dimension, -1 is inferred) or to a computed one."""
        return self.op("Reshape", x, shape if isinstance(shape, str) else self.int64(shape))

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """The value itself when the order stays."""
        return x if list(axes) == list(range(len(axes))) else self.op("Transpose", x, perm=list(axes))

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        """Along one axis."""
        return self.op("Slice", x, self.int64([start]), self.int64([end]), self.int64([axis]))

    def scaled(self, x: str, factor: float) -> str:
        """X · factor."""
        return x if factor == 1 else self.op("Mul", x, self.float(factor))

    def swapped(self, x: str) -> str:
        """The last two axes exchanged; a vector as it is."""
        rank = self.rank(x)
        return x if rank < 2 else self.transpose(x, [*range(rank - 2), rank - 1, rank - 2])

    def zeros(self, shape: str) -> str:
        """float32 zeros of a computed shape."""
        return self.op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))

    # Constants

    def float(self, value: "float | Sequence[float] | Array") -> str:
        """A float32 constant."""
        return self._constant(np.asarray(value, np.float32))

    def int64(self, value: int | Sequence[int]) -> str:
        """An int64 constant."""
        return self._constant(np.asarray(value, np.int64))

    def value_of(self, name: str) -> Array | None:
        """The constant of this name, or None."""
        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def is_one(self, name: str) -> bool:
        """Whether a value is the constant 1, as the gradient of the loss by itself is."""
        found = self.value_of(name)
        return found is not None and found.size == 1 and found.ravel()[0] == 1

    def add_constant(self, tensor: onnx.TensorProto) -> None:
        """A constant under its own name."""
        self.constants[tensor.name] = tensor

    def _constant(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            name = self._fresh("constant")
            self.constants[name] = numpy_helper.from_array(array, name)
            self._by_content[key] = name
        return self._by_content[key]

    # Nodes that were there before

    def producer(self, name: str) -> onnx.NodeProto:
        """The node that makes a value."""
        return self._producers[name]

    def forward(self, node: "Node", kind: str) -> onnx.NodeProto:
        """The forward node of a gradient node: ONNX Runtime calls it by the other's name, "…_Grad/…".

        Raises:
            CompileError: nameless nodes of this kind that cannot be told apart.
        """
        name = node.proto.name.rpartition("_Grad/")[0]
        candidates = [each for each in self.nodes if each.op_type == kind]
        named = [each for each in candidates if name and each.name == name]
        if len(named or candidates) != 1:
            raise node.refuse(f"several {kind} nodes have no name of their own: name them, and generate again")
        return (named or candidates)[0]

    # Shapes

    def shape(self, name: str) -> Shape:
        """Dimensions of a value.

        Raises:
            CompileError: not even the rank is known.
        """
        if (found := self._known(name)) is None and self._inferred_at < len(self.nodes):
            self._infer()
            found = self._known(name)
        if found is None:
            raise CompileError(
                f"the shape of {name} cannot be resolved: export the model with fixed dimensions, all but the batch"
            )
        return found

    def rank(self, name: str) -> int:
        """Number of dimensions, see `shape`."""
        return len(self.shape(name))

    def fixed(self, name: str, axes: Sequence[int], why: str) -> list[int]:
        """Dimensions that must be numbers.

        Raises:
            CompileError: one of them is not.
        """
        shape = self.shape(name)
        found = [shape[axis] for axis in axes]
        if not all(isinstance(each, int) for each in found):
            raise CompileError(
                f"{name} has shape {shape}, and {why} needs axes {list(axes)} fixed: export the model with fixed"
                " dimensions, all but the batch"
            )
        return [each for each in found if isinstance(each, int)]

    def dtype(self, name: str) -> int | None:
        """ONNX element type of a value, or None when it is not known."""
        if name in self.constants:
            return int(self.constants[name].data_type)
        if name not in self._values and self._inferred_at < len(self.nodes):
            self._infer()
        return int(self._values[name].type.tensor_type.elem_type) if name in self._values else None

    def describe(self, name: str, like: str) -> None:
        """`name` has type and shape of `like`, which shape inference could not find out."""
        if like in self._values and name not in self._values:
            self._values[name] = copied(self._values[like])
            self._values[name].name = name

    def _known(self, name: str) -> Shape | None:
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name not in self._values or not self._values[name].type.tensor_type.HasField("shape"):
            return None
        return _shape(self._values[name])

    def _infer(self) -> None:
        graph = helper.make_graph(
            self.nodes, "so far", list(self._values.values()), [], initializer=list(self.constants.values())
        )
        # Inputs that nodes produce are value_info, not inputs; inference takes both for known.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        produced = {name for node in self.nodes for name in node.output}
        del model.graph.input[:]
        for value in self._values.values():
            (model.graph.value_info if value.name in produced else model.graph.input).append(value)
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        for value in inferred.graph.value_info:
            if value.type.tensor_type.elem_type and self._known(value.name) is None:
                self._values[value.name] = value
        self._inferred_at = len(self.nodes)

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"lowered/{kind}/{self._count}"


def _shape(value: onnx.ValueInfoProto) -> Shape:
    def dimension(each: Any) -> Dimension:
        if each.HasField("dim_value"):
            return int(each.dim_value)
        return str(each.dim_param) or None

    return tuple(dimension(each) for each in value.type.tensor_type.shape.dim)


class Node:
    """A training-only node as a rule sees it.

    Attributes:
        inputs: names after lowering; empty where an optional input is absent.
        outputs: names in the training graph; empty where nobody wants them.
    """

    def __init__(self, proto: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.proto = proto
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._attributes = {each.name: helper.get_attribute_value(each) for each in proto.attribute}

    def input(self, index: int) -> str:
        """The name, or an empty string."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def wants(self, index: int) -> bool:
        """Whether anybody reads this output."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def attribute(self, name: str, default: Any) -> Any:
        """Strings are decoded."""
        found = self._attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def refuse(self, why: str) -> CompileError:
        """The error that names this op and node."""
        return CompileError(f"{self.proto.op_type} (node {self.proto.name or self.proto.output[0]!r}): {why}")


def formula(made: Callable[..., str], inputs: int = 1, **attributes: float) -> Callable[[Any, Node], Sequence[str]]:
    """The rule of an op with one output: `made` of builder, first inputs, and attributes, named with their defaults."""

    def rule(b: Builder, node: Node) -> Sequence[str]:
        return [made(b, *node.inputs[:inputs], *(node.attribute(*each) for each in attributes.items()))]

    return rule
