"""Normalisation by statistics of the example itself, in ops that have a gradient."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter, Rule

# LayerNormalization wants a scale and a bias of this length, all ones and zeros here: 128 KiB of the bundle.
_LONGEST: Final = 16384


def _standardised(b: Rewriter, x: str, epsilon: float) -> str:
    """(x − mean) / √(variance + epsilon) over the last axis.

    By LayerNormalization where its length is known: one node, and a gradient of ten instead of thirty.
    """
    rank = b.rank(x)
    length = b.shape(x)[-1]
    if b.opset >= 17 and isinstance(length, int) and length <= _LONGEST:
        ones, zeros = (b.float(np.full(length, value)) for value in (1, 0))
        return b.ops("LayerNormalization", [x, ones, zeros], 3, axis=-1, epsilon=epsilon)[0]
    centred, variance = _moments(b, x, [rank - 1])
    return b.op("Div", centred, b.op("Sqrt", b.op("Add", variance, b.float(epsilon))))


def _moments(b: Rewriter, x: str, axes: Sequence[int]) -> tuple[str, str]:
    """X − mean, and the variance, whose axes stay."""
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, axes, keepdims=True))
    return centred, b.reduce("ReduceMean", b.op("Mul", centred, centred), axes, keepdims=True)


def _per_channel(b: Rewriter, vector: str, rank: int) -> str:
    """(C,) → (C, 1, …), which broadcasts over (N, C, …)."""
    return b.op("Unsqueeze", vector, b.int64(list(range(1, rank - 1)))) if rank > 2 else vector


def _like(b: Rewriter, made: str, x: str) -> str:
    """In the shape of x again."""
    shape = b.shape(x)[1:]
    fixed = [each for each in shape if isinstance(each, int)]
    return b.reshape(made, [0, *fixed] if len(fixed) == len(shape) else b.op("Shape", x))


def _instance(b: Rewriter, node: Node) -> Sequence[str]:
    """Over the spatial axes, then γ and β per channel."""
    x, gamma, beta = node.inputs
    rank = b.rank(x)
    flat = x if rank == 3 else b.reshape(x, [0, 0, -1])
    normal = _standardised(b, flat, node.attribute("epsilon", 1e-5))
    scaled = b.op("Mul", _like(b, normal, x) if rank != 3 else normal, _per_channel(b, gamma, rank))
    return [b.op("Add", scaled, _per_channel(b, beta, rank))]


def _group(b: Rewriter, node: Node) -> Sequence[str]:
    """Over groups of channels; γ and β are per group before opset 21, then per channel."""
    x, gamma, beta = node.inputs
    groups, rank = node.attribute("num_groups", 1), b.rank(x)
    normal = _standardised(b, b.reshape(x, [0, groups, -1]), node.attribute("epsilon", 1e-5))
    if b.opset < 21:
        return [_like(b, b.op("Add", b.op("Mul", normal, b.unsqueeze(gamma, 1)), b.unsqueeze(beta, 1)), x)]
    scaled = b.op("Mul", _like(b, normal, x), _per_channel(b, gamma, rank))
    return [b.op("Add", scaled, _per_channel(b, beta, rank))]


def _mean_variance(b: Rewriter, node: Node) -> Sequence[str]:
    """(x − mean) / (deviation + 1e-9)."""
    rank = b.rank(node.inputs[0])
    axes = sorted(each % rank for each in node.attribute("axes", [0, 2, 3]))
    centred, variance = _moments(b, node.inputs[0], axes)
    return [b.op("Div", centred, b.op("Add", b.op("Sqrt", variance), b.float(1e-9)))]


def _layer(b: Rewriter, node: Node) -> Sequence[str] | None:
    """With a bias and three outputs: the gradient builder reads them without asking."""
    if node.input(2) and len(node.proto.output) == 3 and all(node.proto.output):
        return None
    x, gamma = node.inputs[:2]
    bias = node.input(2)
    if not bias:
        shape = b.shape(gamma)
        bias = b.float(np.zeros(b.fixed(gamma, range(len(shape)), "LayerNormalization without a bias")))
    attributes = {name: node.attribute(name, default) for name, default in _LAYER}
    return b.ops("LayerNormalization", [x, gamma, bias], 3, **attributes)


_LAYER: Final[tuple[tuple[str, float], ...]] = (("axis", -1), ("epsilon", 1e-5), ("stash_type", 1))


def _local_response(b: Rewriter, node: Node) -> Sequence[str]:
    """X / (bias + alpha · mean of squares over near channels)^beta: the mean is a pooling over the channel axis."""
    x, size = node.inputs[0], node.attribute("size", 1)
    before = (size - 1) // 2
    rows = b.unsqueeze(b.reshape(b.op("Mul", x, x), [0, 0, -1]), 1)
    mean = b.op(
        "AveragePool", rows, kernel_shape=[size, 1], pads=[before, 0, size - 1 - before, 0], count_include_pad=1
    )
    power = b.op("Mul", _like(b, b.squeeze(mean, 1), x), b.float(node.attribute("alpha", 1e-4)))
    base = b.op("Add", power, b.float(node.attribute("bias", 1.0)))
    return [b.op("Mul", x, b.op("Pow", base, b.float(-node.attribute("beta", 0.75))))]


RULES: Final[dict[str, Rule]] = {
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "MeanVarianceNormalization": _mean_variance,
}
