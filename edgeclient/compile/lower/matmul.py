"""Matrix products with transposed operands, and the axes of broadcast gradients."""

from collections.abc import Sequence

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers


def transposed_matmul(b: Builder, x: str, y: str, *, x_too: bool, y_too: bool, alpha: float) -> str:
    """alpha · op(X) op(Y), where op swaps the last two axes."""
    if b.rank(x) == b.rank(y) == 2 and (x_too or y_too):
        return b.op("Gemm", x, y, transA=int(x_too), transB=int(y_too), alpha=float(alpha))
    return b.scaled(b.op("MatMul", b.swapped(x) if x_too else x, b.swapped(y) if y_too else y), alpha)


@lowers("FusedMatMul", "TransposeMatMul")
def _fused(b: Builder, node: Node) -> Sequence[str]:
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise node.refuse("transposed batches are not supported: write the model with MatMul and Transpose")
    x_too, y_too = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    alpha = float(node.attribute("alpha", 1.0))
    return [transposed_matmul(b, node.inputs[0], node.inputs[1], x_too=x_too, y_too=y_too, alpha=alpha)]


@lowers("BroadcastGradientArgs")
def _broadcast_axes(b: Builder, node: Node) -> Sequence[str | None]:
    """Axes along which each of two shapes was stretched to their common shape.

    The ranks are those of the values whose shapes these are, so the computation has a fixed form.
    """
    shapes = node.inputs
    lengths = [b.fixed(shape, [0], "broadcasting")[0] for shape in shapes]
    rank = max(lengths)
    one = b.int64([1])
    padded = [
        shape if length == rank else b.op("Concat", b.int64([1] * (rank - length)), shape, axis=0)
        for shape, length in zip(shapes, lengths, strict=True)
    ]
    made: list[str | None] = []
    for index in range(2):
        if not node.wants(index):
            made.append(None)
            continue
        mine, other = padded[index], padded[1 - index]
        stretched = b.op("And", b.op("Equal", mine, one), b.op("Not", b.op("Equal", other, one)))
        made.append(b.op("Squeeze", b.op("NonZero", stretched), b.int64([0])))
    return made
