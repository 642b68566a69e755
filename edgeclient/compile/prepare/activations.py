"""Functions of one value, in ops that have a gradient.

Where a function bends, the composition must have one of its one-sided slopes there: zero is a frequent value.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter, Rule


def halves(b: Rewriter, x: str) -> tuple[str, str]:
    """max(x, 0) and min(x, 0)."""
    positive = b.op("Relu", x)
    return positive, b.op("Sub", x, positive)


def scaled(b: Rewriter, x: str, factor: float) -> str:
    """X · factor."""
    return x if factor == 1 else b.op("Mul", x, b.float(factor))


def softplus(b: Rewriter, x: str) -> str:
    """log(1 + exp x) as m + log(exp(x − m) + exp(−m)), m = max(x, 0), which overflows nowhere.

    The gradient of m cancels, so its bend does no harm: the shorter max(x, 0) + log(1 + exp(−|x|)) has slope 0
    at 0, where it should be ½.
    """
    positive, negative = halves(b, x)
    total = b.op("Add", b.op("Exp", negative), b.op("Exp", b.op("Neg", positive)))
    return b.op("Add", positive, b.op("Log", total))


def _exponential(b: Rewriter, node: Node, alpha: float, inner: float = 1.0) -> str:
    """max(x, 0) + alpha (exp(inner · min(x, 0)) − 1)."""
    positive, negative = halves(b, node.inputs[0])
    below = b.op("Sub", b.op("Exp", scaled(b, negative, inner)), b.float(1))
    return b.op("Add", positive, scaled(b, below, alpha))


def _elu(b: Rewriter, node: Node) -> Sequence[str]:
    return [_exponential(b, node, node.attribute("alpha", 1.0))]


def _celu(b: Rewriter, node: Node) -> Sequence[str]:
    alpha = node.attribute("alpha", 1.0)
    return [_exponential(b, node, alpha, 1 / alpha)]


def _selu(b: Rewriter, node: Node) -> Sequence[str]:
    alpha = node.attribute("alpha", 1.6732631921768188)
    return [scaled(b, _exponential(b, node, alpha), node.attribute("gamma", 1.0507010221481323))]


def _softplus(b: Rewriter, node: Node) -> Sequence[str]:
    return [softplus(b, node.inputs[0])]


def _softsign(b: Rewriter, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    return [b.op("Div", x, b.op("Add", b.op("Abs", x), b.float(1)))]


def _mish(b: Rewriter, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    return [b.op("Mul", x, b.op("Tanh", softplus(b, x)))]


def _hard(b: Rewriter, x: str, alpha: float, beta: float) -> str:
    line = b.op("Add", scaled(b, x, alpha), b.float(beta))
    return b.op("Clip", line, b.float(0), b.float(1))


def _hard_sigmoid(b: Rewriter, node: Node) -> Sequence[str]:
    return [_hard(b, node.inputs[0], node.attribute("alpha", 0.2), node.attribute("beta", 0.5))]


def _hard_swish(b: Rewriter, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    return [b.op("Mul", x, _hard(b, x, 1 / 6, 0.5))]


def _prelu(b: Rewriter, node: Node) -> Sequence[str]:
    positive, negative = halves(b, node.inputs[0])
    return [b.op("Add", positive, b.op("Mul", node.inputs[1], negative))]


def _thresholded_relu(b: Rewriter, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    above = b.op("Greater", x, b.float(node.attribute("alpha", 1.0)))
    return [b.op("Where", above, x, b.float(0))]


def _shrink(b: Rewriter, node: Node) -> Sequence[str]:
    """X + bias below −lambd, x − bias above lambd, 0 between."""
    x, edge, bias = node.inputs[0], node.attribute("lambd", 0.5), b.float(node.attribute("bias", 0.0))
    above = b.op("Where", b.op("Greater", x, b.float(edge)), b.op("Sub", x, bias), b.float(0))
    return [b.op("Where", b.op("Less", x, b.float(-edge)), b.op("Add", x, bias), above)]


def _of_exponentials(kind: str) -> Rule:
    """½ (exp x ± exp −x)."""

    def rule(b: Rewriter, node: Node) -> Sequence[str]:
        x = node.inputs[0]
        return [scaled(b, b.op(kind, b.op("Exp", x), b.op("Exp", b.op("Neg", x))), 0.5)]

    return rule


def _tan(b: Rewriter, node: Node) -> Sequence[str]:
    return [b.op("Div", b.op("Sin", node.inputs[0]), b.op("Cos", node.inputs[0]))]


def _asinh(b: Rewriter, node: Node) -> Sequence[str]:
    """± log(|x| + √(x² + 1)): without the sign, large negative x lose all digits."""
    x = node.inputs[0]
    below = b.op("Less", x, b.float(0))
    size = b.op("Where", below, b.op("Neg", x), x)
    made = b.op("Log", b.op("Add", size, b.op("Sqrt", b.op("Add", b.op("Mul", size, size), b.float(1)))))
    return [b.op("Where", below, b.op("Neg", made), made)]


def _acosh(b: Rewriter, node: Node) -> Sequence[str]:
    """log(x + √(x² − 1))."""
    x = node.inputs[0]
    return [b.op("Log", b.op("Add", x, b.op("Sqrt", b.op("Sub", b.op("Mul", x, x), b.float(1)))))]


def _atanh(b: Rewriter, node: Node) -> Sequence[str]:
    """½ log((1 + x) / (1 − x))."""
    x, one = node.inputs[0], b.float(1)
    return [scaled(b, b.op("Log", b.op("Div", b.op("Add", x, one), b.op("Sub", one, x))), 0.5)]


def _folded(finish: Callable[[Rewriter, str, int], str]) -> Rule:
    """The sum of any number of inputs, then something with their number."""

    def rule(b: Rewriter, node: Node) -> Sequence[str]:
        total = node.inputs[0]
        for each in node.inputs[1:]:
            total = b.op("Add", total, each)
        return [finish(b, total, len(node.inputs))]

    return rule


RULES: Final[dict[str, Rule]] = {
    "Acosh": _acosh,
    "Asinh": _asinh,
    "Atanh": _atanh,
    "Celu": _celu,
    "Cosh": _of_exponentials("Add"),
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Mean": _folded(lambda b, total, count: scaled(b, total, 1 / count)),
    "Mish": _mish,
    "PRelu": _prelu,
    "Selu": _selu,
    "Shrink": _shrink,
    "Sinh": _of_exponentials("Sub"),
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Sum": _folded(lambda _b, total, _count: total),
    "Tan": _tan,
    "ThresholdedRelu": _thresholded_relu,
}
