"""Ops without a gradient in ONNX Runtime training become ops that have one."""

from collections.abc import Sequence
from typing import Final

import onnx

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare import activations, arrangements, einsum, normalisations, reductions
from edgeclient.compile.prepare.rewrite import Rewriter, Rule, rewritten

RULES: Final[dict[str, Rule]] = (
    activations.RULES | arrangements.RULES | einsum.RULES | normalisations.RULES | reductions.RULES
)
# Which input is the data, where it is not the first.
_DATA: Final = {"Where": 1}


def decompose(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function of float32 values, made of ops whose gradient ONNX Runtime training 1.19.2 builds right.

    Raises:
        CompileError: an op in a form that has no gradient.

    Example:
        >>> from onnx import helper
        >>> y = helper.make_tensor_value_info("y", 1, [2])
        >>> graph = helper.make_graph([helper.make_node("Elu", ["x"], ["y"])], "g", [y], [y])
        >>> made = decompose(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
        >>> [each.op_type for each in made.graph.node]
        ['Constant', 'Relu', 'Sub', 'Exp', 'Sub', 'Add']
    """
    return rewritten(model, "decomposed", {kind: _for_floats(kind, rule) for kind, rule in RULES.items()})


def _for_floats(kind: str, rule: Rule) -> Rule:
    def guarded(b: Rewriter, node: Node) -> Sequence[str] | None:
        return rule(b, node) if b.is_float(node.inputs[_DATA.get(kind, 0)]) else None

    return guarded
