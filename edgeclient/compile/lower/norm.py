"""Layer, root-mean-square and batch normalisation."""

from collections.abc import Sequence

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers


@lowers("BatchNormInternal")
def _batch_norm(b: Builder, node: Node) -> Sequence[str]:
    """By the statistics of the batch, variance biased: y, new running statistics, batch mean and inverse deviation."""
    x, gamma, beta, *running = node.inputs
    epsilon, momentum = node.attribute("epsilon", 1e-5), node.attribute("momentum", 0.9)
    axes = _all_but_channel(b, x)
    mean = b.reduce("ReduceMean", x, axes, keepdims=False)
    centred = b.op("Sub", x, _per_channel(b, mean, x))
    variance = b.reduce("ReduceMean", b.op("Mul", centred, centred), axes, keepdims=False)
    inverse = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.float(epsilon))))
    scale = b.op("Mul", inverse, gamma)
    y = b.op("Add", b.op("Mul", centred, _per_channel(b, scale, x)), _per_channel(b, beta, x))
    moved = [
        b.op("Add", b.op("Mul", old, b.float(momentum)), b.op("Mul", now, b.float(1 - momentum)))
        for old, now in zip(running, (mean, variance), strict=True)
    ]
    return y, *moved, mean, inverse


@lowers("BatchNormalizationGrad")
def _batch_norm_grad(b: Builder, node: Node) -> Sequence[str]:
    """(dx, dγ, dβ); x̂ = (x − mean) · inverse, dx = inverse γ (dY − mean dY − x̂ mean(dY x̂))."""
    dy, x, gamma, mean, inverse = node.inputs
    axes = _all_but_channel(b, x)
    normal = b.op("Mul", b.op("Sub", x, _per_channel(b, mean, x)), _per_channel(b, inverse, x))
    product = b.op("Mul", dy, normal)
    d_gamma = b.reduce("ReduceSum", product, axes, keepdims=False)
    d_beta = b.reduce("ReduceSum", dy, axes, keepdims=False)
    count = b.op("Div", b.op("Size", x), b.op("Size", mean))
    share = b.op("Reciprocal", b.op("Cast", count, to=1))
    pull = b.op("Mul", normal, _per_channel(b, b.op("Mul", d_gamma, share), x))
    rest = b.op("Sub", b.op("Sub", dy, _per_channel(b, b.op("Mul", d_beta, share), x)), pull)
    return b.op("Mul", rest, _per_channel(b, b.op("Mul", inverse, gamma), x)), d_gamma, d_beta


def _all_but_channel(b: Builder, x: str) -> list[int]:
    return [axis for axis in range(b.rank(x)) if axis != 1]


def _per_channel(b: Builder, vector: str, x: str) -> str:
    """(C,) → (C, 1, 1, …), which broadcasts over x."""
    trailing = b.rank(x) - 2
    return b.reshape(vector, [-1] + [1] * trailing) if trailing else vector


@lowers("LayerNormalizationGrad", "SimplifiedLayerNormalizationGrad")
def _layer_norm_grad(b: Builder, node: Node) -> Sequence[str]:
    """(dx, dγ, dβ) over axes from `axis` on; the root-mean-square form has neither mean nor β."""
    dy, x, gamma, *means, inverse = node.inputs
    mean, rank = "".join(means), b.rank(x)
    first = node.attribute("axis", -1) % rank
    inner, outer = list(range(first, rank)), list(range(first))
    normal = b.op("Mul", b.op("Sub", x, mean) if mean else x, inverse)
    product = b.op("Mul", dy, normal)
    g = b.op("Mul", dy, gamma)
    pull = b.op("Mul", normal, b.reduce("ReduceMean", b.op("Mul", g, normal), inner, keepdims=True))
    rest = b.op("Sub", b.op("Sub", g, b.reduce("ReduceMean", g, inner, keepdims=True)) if mean else g, pull)
    d_gamma = b.reduce("ReduceSum", product, outer, keepdims=False)
    return b.op("Mul", rest, inverse), d_gamma, b.reduce("ReduceSum", dy, outer, keepdims=False)


@lowers("SimplifiedLayerNormalization")
def _rms_norm(b: Builder, node: Node) -> Sequence[str]:
    x, gamma = node.inputs
    rank = b.rank(x)
    axes = list(range(node.attribute("axis", -1) % rank, rank))
    square = b.reduce("ReduceMean", b.op("Mul", x, x), axes, keepdims=True)
    inverse = b.op("Reciprocal", b.op("Sqrt", b.op("Add", square, b.float(node.attribute("epsilon", 1e-5)))))
    return b.op("Mul", b.op("Mul", x, inverse), gamma), inverse
