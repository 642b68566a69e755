"""What can be computed before training is computed: shapes that are fixed, and formulas of constants."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, helper
from onnx.reference import ReferenceEvaluator

from edgeclient.compile.graph import copied
from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter
from edgeclient.compress.arrays import Array

# Beyond this many elements, a constant would make the bundle larger than the nodes that compute it.
_LARGEST: Final = 1 << 16
_RANDOM: Final = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# Ops that move elements and compute nothing from them: they may carry a dimension that is not known.
_MOVING: Final = frozenset({"Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
_UNKNOWN: Final = np.iinfo(np.int64).min


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants in place of nodes that compute the same value for every input.

    Constants are Constant nodes, integer and boolean initializers, and dimensions that are fixed. Float initializers
    are parameters: nothing is computed from them, but an Identity of one, which exporters write for shared weights,
    is taken away.

    Raises:
        CompileError: the model is not valid.
    """
    folding = _Folding(Rewriter(model, "folded"))
    for node in folding.b.model.graph.node:
        folding.take(node)
    return folding.b.finished()


class _Folding:
    def __init__(self, b: Rewriter) -> None:
        self.b = b
        self._renamed: dict[str, str] = {}
        self._partly_known: dict[str, Array] = {}

    def take(self, proto: onnx.NodeProto) -> None:
        """The next node in the model's order."""
        node = copied(proto)
        node.input[:] = [self._renamed.get(name, name) for name in proto.input]
        if node.op_type == "Identity" and not self._is_seen_by_name(node.output[0]):
            self._renamed[node.output[0]] = node.input[0]
        elif (made := self._values(node)) is not None:
            for name, value in made.items():
                self.b.define(name, value)
        else:
            self.b.keep(node)

    def _is_seen_by_name(self, name: str) -> bool:
        """Whether it is an output of the model, or captured by a subgraph."""
        return name in self.b.outputs or any(name not in reader.input for reader in self.b.readers[name])

    def _values(self, node: onnx.NodeProto) -> Mapping[str, Array] | None:
        has_subgraph = any(each.type == AttributeProto.GRAPH for each in node.attribute)
        if node.domain or node.op_type in {"Constant", *_RANDOM} or has_subgraph:
            return None
        if node.op_type == "Shape":
            made = self._shape(Node(node, node.input, node.output))
        else:
            inputs = {name: self._known(name, node.op_type) for name in node.input if name}
            known = {name: value for name, value in inputs.items() if value is not None}
            made = _computed(node, known, self.b.opset) if known and len(known) == len(inputs) else None
        if made is None or any(value.size > _LARGEST for value in made.values()):
            return None
        if any((value == _UNKNOWN).any() for value in made.values()):
            self._partly_known.update(made)
            return None
        return made

    def _known(self, name: str, reader: str) -> Array | None:
        constant = self.b.constant(name)
        return self._partly_known.get(name) if constant is None and reader in _MOVING else constant

    def _shape(self, node: Node) -> Mapping[str, Array] | None:
        if not self.b.knows(node.inputs[0]):
            return None
        dims = self.b.shape(node.inputs[0])
        chosen = dims[node.attribute("start", 0) : node.attribute("end", len(dims))]
        value = np.array([each if isinstance(each, int) else _UNKNOWN for each in chosen], np.int64)
        return {node.outputs[0]: value}


def _computed(node: onnx.NodeProto, known: Mapping[str, Array], opset: int) -> Mapping[str, Array] | None:
    """Outputs of one node, by ONNX's own reference; None where that has no answer."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in known.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs)
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
        found = evaluator.run(None, dict(known))
    except Exception:  # noqa: BLE001 (it raises whatever it meets; the node then stays)
        return None
    values = [np.asarray(each) for each in found]
    if any(each.dtype.kind not in "biuf" for each in values):
        return None
    return dict(zip((each.name for each in outputs), values, strict=True))
