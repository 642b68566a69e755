"""Reductions, norms of vectors and running sums, in ops that have a gradient."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeclient.compile.lower.builder import Node, formula
from edgeclient.compile.prepare.rewrite import Rewriter, Rule

# The running sum is a product with a triangular matrix, a constant of the bundle: 4 MiB at this length.
_LONGEST_SUM: Final = 1024


def reduced_axes(b: Rewriter, node: Node) -> list[int] | None:
    """The axes of a reduction, not negative and rising; None when it reduces nothing.

    Raises:
        CompileError: they are computed at run time.
    """
    rank = b.rank(node.inputs[0])
    given = node.attribute("axes", None)
    if node.input(1):
        constant = b.constant(node.input(1))
        if constant is None:
            raise node.refuse("its axes are computed when it runs: export the model with constant axes")
        given = constant.tolist()
    if given:
        return sorted(int(each) % rank for each in given)
    return None if node.attribute("noop_with_empty_axes", 0) else list(range(rank))


def extreme(b: Rewriter, x: str, axes: Sequence[int], *, largest: bool, keepdims: bool) -> str:
    """The largest or smallest value over some axes; among equals, the first gets the gradient.

    TopK has a gradient and takes one axis: several are moved to the end and made one.
    """
    axis = axes[0]
    if len(axes) > 1:
        rank = b.rank(x)
        others = [each for each in range(rank) if each not in axes]
        x = b.reshape(b.transpose(x, [*others, *axes]), [0] * len(others) + [-1])
        axis = len(others)
    values, _ = b.ops("TopK", [x, b.int64([1])], 2, axis=axis, largest=int(largest), sorted=0)
    if len(axes) == 1 and keepdims:
        return values
    values = b.squeeze(values, axis)
    return b.op("Unsqueeze", values, b.int64(axes)) if keepdims else values


def _extreme(*, largest: bool) -> Rule:
    def rule(b: Rewriter, node: Node) -> Sequence[str]:
        axes, keepdims = reduced_axes(b, node), bool(node.attribute("keepdims", 1))
        return [node.inputs[0] if not axes else extreme(b, node.inputs[0], axes, largest=largest, keepdims=keepdims)]

    return rule


def _summed(before: str, after: str = "") -> Rule:
    """A sum of something of x, and something of the sum."""

    def rule(b: Rewriter, node: Node) -> Sequence[str]:
        x, axes = node.inputs[0], reduced_axes(b, node)
        terms = {"": lambda: x, "Abs": lambda: b.op("Abs", x), "Square": lambda: b.op("Mul", x, x)}[before]()
        total = b.reduce("ReduceSum", terms, axes or [], keepdims=bool(node.attribute("keepdims", 1)))
        return [b.op(after, total) if after else total]

    return rule


def _squeezed_after(kind: str) -> Rule:
    """The gradients of these are made for axes as input alone where dimensions are dropped."""

    def rule(b: Rewriter, node: Node) -> Sequence[str] | None:
        if node.attribute("keepdims", 1) or (b.opset >= 18 and node.input(1)):
            return None
        axes = reduced_axes(b, node)
        if not axes:
            return None
        return [b.op("Squeeze", b.reduce(kind, node.inputs[0], axes, keepdims=True), b.int64(axes))]

    return rule


def _norm(b: Rewriter, node: Node, x: str, axes: Sequence[int]) -> str:
    """Of order p over some axes, which stay."""
    p = node.attribute("p", 2)
    if p not in {1, 2}:
        raise node.refuse(f"p = {p} is not supported, 1 and 2 are: write the norm with basic ops")
    if p == 2:
        return b.reduce("ReduceL2", x, axes, keepdims=True)
    return b.reduce("ReduceSum", b.op("Abs", x), axes, keepdims=True)


def _lp_normalization(b: Rewriter, node: Node) -> Sequence[str]:
    """X / ‖x‖, and 0 where the norm is."""
    x = node.inputs[0]
    norm = _norm(b, node, x, [node.attribute("axis", -1) % b.rank(x)])
    return [b.op("Div", x, b.op("Clip", norm, b.float(float(np.finfo(np.float32).tiny))))]


def _global_lp_pool(b: Rewriter, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    return [_norm(b, node, x, range(2, b.rank(x)))]


def _cum_sum(b: Rewriter, node: Node) -> Sequence[str]:
    """A product with a triangle of ones, from the left or from the right."""
    x, axis = node.inputs[0], b.constant(node.inputs[1])
    if axis is None:
        raise node.refuse("its axis is computed when it runs: export the model with a constant axis")
    rank = b.rank(x)
    at = int(axis.item()) % rank
    (size,) = b.fixed(x, [at], "CumSum")
    if size > _LONGEST_SUM:
        raise node.refuse(f"{size} steps are more than {_LONGEST_SUM}: sum over shorter pieces")
    ones = np.triu(np.ones((size, size), np.float32), node.attribute("exclusive", 0))
    right = ones.T if node.attribute("reverse", 0) else ones
    if rank == 1:
        return [b.squeeze(b.op("MatMul", b.unsqueeze(x, 0), b.float(right)), 0)]
    if at == rank - 1:
        return [b.op("MatMul", x, b.float(right))]
    order = [*(each for each in range(rank) if each not in {at, rank - 1}), at, rank - 1]
    made = b.op("MatMul", b.float(right.T), b.transpose(x, order))
    return [b.transpose(made, [order.index(each) for each in range(rank)])]


RULES: Final[dict[str, Rule]] = {
    "CumSum": _cum_sum,
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": formula(lambda b, x: extreme(b, x, range(2, b.rank(x)), largest=True, keepdims=True)),
    "LpNormalization": _lp_normalization,
    "ReduceL1": _summed("Abs"),
    "ReduceL2": _squeezed_after("ReduceL2"),
    "ReduceLogSum": _summed("", "Log"),
    "ReduceLogSumExp": _squeezed_after("ReduceLogSumExp"),
    "ReduceMax": _extreme(largest=True),
    "ReduceMin": _extreme(largest=False),
    "ReduceSumSquare": _summed("Square"),
}
