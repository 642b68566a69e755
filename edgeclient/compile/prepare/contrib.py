"""Ops of the com.microsoft domain that a model may contain after ONNX Runtime optimised it, in standard ops."""

from collections.abc import Sequence
from typing import Final

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter, Rule

DOMAIN: Final = "com.microsoft"


def _fused_matmul(b: Rewriter, node: Node) -> Sequence[str]:
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise node.refuse("transposed batches are not supported: compile the model from before it was optimised")
    operands = []
    for x, flag in zip(node.inputs, ("transA", "transB"), strict=True):
        rank = b.rank(x)
        swapped = node.attribute(flag, 0) and rank > 1
        operands.append(b.transpose(x, [*range(rank - 2), rank - 1, rank - 2]) if swapped else x)
    product, alpha = b.op("MatMul", *operands), node.attribute("alpha", 1.0)
    return [product if alpha == 1 else b.op("Mul", product, b.float(alpha))]


def _gelu(b: Rewriter, node: Node) -> Sequence[str]:
    """½ x (1 + erf(x / √2)) of the sum of the inputs."""
    x = b.op("Add", *node.inputs[:2]) if node.input(1) else node.inputs[0]
    if b.opset >= 20:
        return [b.op("Gelu", x)]
    erf = b.op("Erf", b.op("Mul", x, b.float(0.5**0.5)))
    return [b.op("Mul", b.op("Mul", x, b.float(0.5)), b.op("Add", erf, b.float(1)))]


def _fast_gelu(b: Rewriter, node: Node) -> Sequence[str]:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³))) of the sum of the inputs."""
    x = b.op("Add", *node.inputs[:2]) if node.input(1) else node.inputs[0]
    cubic = b.op("Add", b.op("Mul", b.op("Mul", x, x), b.float(0.044715)), b.float(1))
    tanh = b.op("Tanh", b.op("Mul", b.op("Mul", x, cubic), b.float(0.7978845608028654)))
    return [b.op("Mul", b.op("Mul", x, b.float(0.5)), b.op("Add", tanh, b.float(1)))]


def _quick_gelu(b: Rewriter, node: Node) -> Sequence[str]:
    """x σ(alpha x)."""
    x, alpha = node.inputs[0], node.attribute("alpha", 1.702)
    return [b.op("Mul", x, b.op("Sigmoid", x if alpha == 1 else b.op("Mul", x, b.float(alpha))))]


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


RULES: Final[dict[str, Rule]] = {
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
}
