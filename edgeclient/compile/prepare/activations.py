"""Functions of one value, in ops that have a gradient.

Where a function bends, the composition must have one of its one-sided slopes there: zero is a frequent value.
"""

from collections.abc import Callable, Sequence
from typing import Final

from edgeclient.compile.lower.builder import Node, formula
from edgeclient.compile.prepare.rewrite import Rewriter, Rule


def _halves(b: Rewriter, x: str) -> tuple[str, str]:
    """max(x, 0) and min(x, 0)."""
    positive = b.op("Relu", x)
    return positive, b.op("Sub", x, positive)


def _softplus(b: Rewriter, x: str) -> str:
    """log(1 + exp x) as m + log(exp(x − m) + exp(−m)), m = max(x, 0), which overflows nowhere.

    The gradient of m cancels, so its bend does no harm: the shorter max(x, 0) + log(1 + exp(−|x|)) has slope 0
    at 0, where it should be ½.
    """
    positive, negative = _halves(b, x)
    total = b.op("Add", b.op("Exp", negative), b.op("Exp", b.op("Neg", positive)))
    return b.op("Add", positive, b.op("Log", total))


def _exponential(b: Rewriter, x: str, alpha: float, inner: float = 1.0) -> str:
    """max(x, 0) + alpha (exp(inner · min(x, 0)) − 1)."""
    positive, negative = _halves(b, x)
    below = b.op("Sub", b.op("Exp", b.scaled(negative, inner)), b.float(1))
    return b.op("Add", positive, b.scaled(below, alpha))


def _softsign(b: Rewriter, x: str) -> str:
    return b.op("Div", x, b.op("Add", b.op("Abs", x), b.float(1)))


def _hard_sigmoid(b: Rewriter, x: str, alpha: float, beta: float) -> str:
    line = b.op("Add", b.scaled(x, alpha), b.float(beta))
    return b.op("Clip", line, b.float(0), b.float(1))


def _prelu(b: Rewriter, node: Node) -> Sequence[str]:
    positive, negative = _halves(b, node.inputs[0])
    return [b.op("Add", positive, b.op("Mul", node.inputs[1], negative))]


def _thresholded_relu(b: Rewriter, x: str, alpha: float) -> str:
    return b.op("Where", b.op("Greater", x, b.float(alpha)), x, b.float(0))


def _shrink(b: Rewriter, x: str, lambd: float, bias: float) -> str:
    """X + bias below −lambd, x − bias above lambd, 0 between."""
    by = b.float(bias)
    above = b.op("Where", b.op("Greater", x, b.float(lambd)), b.op("Sub", x, by), b.float(0))
    return b.op("Where", b.op("Less", x, b.float(-lambd)), b.op("Add", x, by), above)


def _of_exponentials(kind: str) -> Rule:
    """½ (exp x ± exp −x)."""
    return formula(lambda b, x: b.scaled(b.op(kind, b.op("Exp", x), b.op("Exp", b.op("Neg", x))), 0.5))


def _asinh(b: Rewriter, x: str) -> str:
    """± log(|x| + √(x² + 1)): without the sign, large negative x lose all digits."""
    below = b.op("Less", x, b.float(0))
    size = b.op("Where", below, b.op("Neg", x), x)
    made = b.op("Log", b.op("Add", size, b.op("Sqrt", b.op("Add", b.op("Mul", size, size), b.float(1)))))
    return b.op("Where", below, b.op("Neg", made), made)


def _acosh(b: Rewriter, x: str) -> str:
    """log(x + √(x² − 1))."""
    return b.op("Log", b.op("Add", x, b.op("Sqrt", b.op("Sub", b.op("Mul", x, x), b.float(1)))))


def _atanh(b: Rewriter, x: str) -> str:
    """½ log((1 + x) / (1 − x))."""
    one = b.float(1)
    return b.scaled(b.op("Log", b.op("Div", b.op("Add", x, one), b.op("Sub", one, x))), 0.5)


def _folded(finish: Callable[[Rewriter, str, int], str]) -> Rule:
    """The sum of any number of inputs, then something with their number."""

    def rule(b: Rewriter, node: Node) -> Sequence[str]:
        total = node.inputs[0]
        for each in node.inputs[1:]:
            total = b.op("Add", total, each)
        return [finish(b, total, len(node.inputs))]

    return rule


RULES: Final[dict[str, Rule]] = {
    "Acosh": formula(_acosh),
    "Asinh": formula(_asinh),
    "Atanh": formula(_atanh),
    "Celu": formula(lambda b, x, alpha: _exponential(b, x, alpha, 1 / alpha), alpha=1.0),
    "Cosh": _of_exponentials("Add"),
    "Elu": formula(_exponential, alpha=1.0),
    "HardSigmoid": formula(_hard_sigmoid, alpha=0.2, beta=0.5),
    "HardSwish": formula(lambda b, x: b.op("Mul", x, _hard_sigmoid(b, x, 1 / 6, 0.5))),
    "Mean": _folded(lambda b, total, count: b.scaled(total, 1 / count)),
    "Mish": formula(lambda b, x: b.op("Mul", x, b.op("Tanh", _softplus(b, x)))),
    "PRelu": _prelu,
    "Selu": formula(
        lambda b, x, alpha, gamma: b.scaled(_exponential(b, x, alpha), gamma),
        alpha=1.6732631921768188,
        gamma=1.0507010221481323,
    ),
    "Shrink": formula(_shrink, lambd=0.5, bias=0.0),
    "Sinh": _of_exponentials("Sub"),
    "Softplus": formula(_softplus),
    "Softsign": formula(_softsign),
    "Sum": _folded(lambda _b, total, _count: total),
    "Tan": formula(lambda b, x: b.op("Div", b.op("Sin", x), b.op("Cos", x))),
    "ThresholdedRelu": formula(_thresholded_relu, alpha=1.0),
}
