"""One graph of standard ops in float64."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import copied, needed, read_by, refill
from edgeclient.compile.reference import function, place, recurrent, resize, window
from edgeclient.compile.reference.registry import EVALUATIONS
from edgeclient.compress.arrays import Array

# Imported for what they register.
_FAMILIES: Final = (function, place, recurrent, resize, window)
# Attributes that name a type; LayerNormalization's stash_type is none of them: the reference computes in its input's.
_TYPE_NAMES: Final = {"to", "dtype", "output_datatype"}


class Reference:
    """float64 evaluation of one graph.

    Everything float32 becomes float64: initializers, constants, casts, subgraphs. Attributes stay the float32 numbers
    that ONNX Runtime sees too. Nothing else is rounded: the first run fails if a float32 value comes up all the same.

    Args:
        model: standard ai.onnx ops; local functions are inlined. It is not changed.
        outputs: names of any values of the graph, the graph's outputs if None; what they do not need is left out.

    Raises:
        CompileError: an op cannot be evaluated.
        ValueError: an output does not exist.

    Example:
        >>> x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        >>> y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        >>> third = numpy_helper.from_array(np.float32([1 / 3]), "third")
        >>> graph = helper.make_graph([helper.make_node("Mul", ["x", "third"], ["y"])], "thirds", [x], [y], [third])
        >>> reference = Reference(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
        >>> reference.run({"x": np.array([3.0, 6.0])})["y"]
        array([1.00000003, 2.00000006])
        >>> reference.run({"x": np.array([3.0, 6.0]), "third": np.array([1 / 3])})["y"]
        array([1., 2.])
    """

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] | None = None) -> None:
        made = copied(inliner.inline_local_functions(model) if model.functions else model)
        _doubled(made.graph)
        self._outputs = list(outputs) if outputs is not None else [each.name for each in made.graph.output]
        initializers = {each.name for each in made.graph.initializer}
        inputs = {each.name for each in made.graph.input}
        nodes, read = needed(made.graph.node, self._outputs)
        refill(made.graph.node, nodes)
        self._nodes = nodes
        self._producers = {name: node for node in nodes for name in node.output}
        if unknown := [name for name in self._outputs if name not in {*inputs, *initializers, *self._producers}]:
            raise ValueError(f"the graph has no value named {unknown[0]}")
        self._known = inputs | initializers
        self._needed = (inputs & read) - initializers
        self._checked = False
        try:
            self._evaluator: Any = ReferenceEvaluator(made, new_ops=EVALUATIONS)
        except (NotImplementedError, RuntimeError) as error:
            raise CompileError(f"the graph cannot be evaluated in float64: {error}") from None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name; floats are float64.

        Args:
            feeds: one value per input. A value for an initializer replaces it; names that the graph does not know
                are ignored, so that one dictionary serves several graphs.

        Raises:
            ValueError: an input is missing.
            CompileError: an op cannot be evaluated, or computes in float32.
        """
        values = self._values(feeds)
        return {name: values[name] for name in self._outputs}

    def around(self, feeds: Mapping[str, Array]) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """`run` for values that differ little from `feeds`: what reads none that differs is evaluated once, here.

        A net of many layers costs half as much so when one parameter varies at a time.

        Returns:
            the outputs for other values, by name; those that are not given are as in `feeds`.

        Raises:
            ValueError, CompileError: as `run`.

        Example:
            >>> x, y = (helper.make_tensor_value_info(each, TensorProto.FLOAT, [1]) for each in "xy")
            >>> graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "e", [x], [y])
            >>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
            >>> near = Reference(model).around({"x": [0.0]})
            >>> near({})["y"], near({"x": [1.0]})["y"]
            (array([1.]), array([2.71828183]))
        """
        values = self._values(feeds)
        parts: dict[frozenset[str], tuple[Any, set[str]]] = {}

        def outputs(given: Mapping[str, Array]) -> dict[str, Array]:
            doubles = {name: _double(value) for name, value in given.items() if name in self._known}
            changed = {name: each for name, each in doubles.items() if not np.array_equal(each, values[name])}
            if (names := frozenset(changed)) not in parts:
                parts[names] = self._behind(names)
            part, read = parts[names]
            found = part.run((), {**{name: values[name] for name in read}, **changed}, intermediate=True)
            return {name: found[name] if name in found else values[name] for name in self._outputs}

        return outputs

    def _behind(self, names: frozenset[str]) -> tuple[Any, set[str]]:
        """What evaluates all that depends on these values, and which others it reads."""
        changed, read, nodes = set(names), set(), []
        for node, evaluation in zip(self._nodes, self._evaluator.rt_nodes_, strict=True):
            if not changed.isdisjoint(reads := read_by(node)):
                changed.update(node.output)
                read |= reads
                nodes.append(evaluation)
        part = copy(self._evaluator)
        part.rt_nodes_, part.rt_inits_ = nodes, {}
        return part, read - changed

    def _values(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All of them by name, the intermediate ones too."""
        given = {name: _double(value) for name, value in feeds.items() if name in self._known}
        if missing := sorted(self._needed - given.keys()):
            raise ValueError(f"no value for the input {missing[0]}")
        try:
            values: dict[str, Array] = self._evaluator.run(self._outputs, given, intermediate=True)
        except (NotImplementedError, RuntimeError, TypeError) as error:
            raise CompileError(f"the graph cannot be evaluated in float64: {error}") from None
        for name, value in {} if self._checked else values.items():
            if isinstance(value, np.ndarray) and value.dtype in {np.dtype(np.float32), np.dtype(np.float16)}:
                node = self._producers.get(name)
                what = f"{node.op_type} (node {node.name!r})" if node else f"the initializer {name}"
                raise CompileError(f"{what} is {value.dtype} even where all else is float64: it cannot be verified")
        self._checked = True
        return values


def _double(value: Array) -> Array:
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _doubled(graph: onnx.GraphProto) -> None:
    """float32 → float64 in place, in subgraphs too."""
    # Inferred for float32, and stale.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        _double_type(value.type)
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for index, node in enumerate(graph.node):
        for position, name in enumerate(node.output):
            # The evaluator would store an unused output as "", and later read it where an optional input is absent.
            if not name:
                node.output[position] = f"{graph.name}/unused/{index}/{position}"
        _double_attributes(node)


def _double_attributes(node: onnx.NodeProto) -> None:
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    for attribute in node.attribute:
        if node.op_type == "TopK" and attribute.name == "sorted":
            attribute.i = 1  # one of the orders that 0 allows, and the only one that is implemented
        if attribute.type == AttributeProto.GRAPH:
            _doubled(attribute.g)
        elif attribute.type == AttributeProto.TENSOR:
            _double_tensor(attribute.t)
        elif attribute.name in _TYPE_NAMES and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.type in {AttributeProto.FLOAT, AttributeProto.FLOATS}:
            number = attribute.f if attribute.type == AttributeProto.FLOAT else list(attribute.floats)
            value = numpy_helper.from_array(np.asarray(number, np.float64))
            attribute.CopyFrom(helper.make_attribute("value", value))


def _double_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _double_type(kind: onnx.TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            if kind.tensor_type.elem_type == TensorProto.FLOAT:
                kind.tensor_type.elem_type = TensorProto.DOUBLE
        case "sequence_type":
            _double_type(kind.sequence_type.elem_type)
        case "optional_type":
            _double_type(kind.optional_type.elem_type)
