"""Cross-entropy over classes on axis 1, with class weights and a label to ignore."""

from collections.abc import Sequence

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers


def _targets(b: Builder, labels: str, weights: str, ignore: int | None) -> tuple[str, str | None]:
    """Labels with the ignored ones replaced by 0; the weight of each, or None when all count 1."""
    if ignore is None:
        return (labels, b.op("Gather", weights, labels) if weights else None)
    ignored = b.op("Equal", labels, b.int64(ignore) if b.dtype(labels) != 6 else b.op("Cast", b.int64(ignore), to=6))
    safe = b.op("Where", ignored, b.op("Cast", b.int64(0), to=b.dtype(labels) or 7), labels)
    weight = b.op("Sub", b.float(1), b.op("Cast", ignored, to=1))
    if weights:
        weight = b.op("Mul", weight, b.op("Gather", weights, safe))
    return safe, weight


@lowers("SoftmaxCrossEntropyLoss", "SoftmaxCrossEntropyLossInternal")
def _loss(b: Builder, node: Node) -> Sequence[str]:
    """(loss, log-probabilities): −Σ w·logp[label] / Σ w for reduction "mean"."""
    logits, labels = node.inputs[:2]
    ignore, reduction = _ignored(b, node, 3), node.attribute("reduction", "mean")
    log_probability = b.op("LogSoftmax", logits, axis=1)
    safe, weight = _targets(b, labels, node.input(2), ignore)
    index = b.op("Unsqueeze", safe, b.int64([1]))
    picked = b.op("Squeeze", b.op("GatherElements", log_probability, index, axis=1), b.int64([1]))
    loss = b.op("Neg", picked)
    if weight is not None:
        loss = b.op("Mul", loss, weight)
    if reduction == "none":
        return loss, log_probability
    if reduction == "mean" and weight is None:
        return b.op("ReduceMean", loss, keepdims=0), log_probability
    total = b.op("ReduceSum", loss, keepdims=0)
    if reduction == "mean" and weight is not None:
        total = b.op("Div", total, b.op("ReduceSum", weight, keepdims=0))
    return total, log_probability


@lowers("SoftmaxCrossEntropyLossGrad", "SoftmaxCrossEntropyLossInternalGrad")
def _gradient(b: Builder, node: Node) -> Sequence[str]:
    """(softmax − one-hot) · w · dY, over Σ w for reduction "mean"."""
    dy, log_probability, labels = node.inputs[:3]
    ignore, reduction = _ignored(b, node, 4), node.attribute("reduction", "mean")
    safe, weight = _targets(b, labels, node.input(3), ignore)
    classes = b.op("Gather", b.op("Shape", log_probability), b.int64([1]))
    one_hot = b.op("OneHot", safe, classes, b.float([0, 1]), axis=1)
    error = b.op("Sub", b.op("Exp", log_probability), one_hot)
    scale = None if b.is_one(dy) else dy
    if reduction == "none":
        scale = b.op("Unsqueeze", dy, b.int64([1]))
    if reduction == "mean" and weight is None:
        count = b.op("Cast", b.op("Size", labels), to=1)
        return [b.op("Div", error if scale is None else b.op("Mul", error, scale), count)]
    if weight is not None:
        if reduction == "mean":
            weight = b.op("Div", weight, b.op("ReduceSum", weight, keepdims=0))
        error = b.op("Mul", error, b.op("Unsqueeze", weight, b.int64([1])))
    return [error if scale is None else b.op("Mul", error, scale)]


def _ignored(b: Builder, node: Node, index: int) -> int | None:
    """An attribute, or an input of the internal ops."""
    if (said := node.attribute("ignore_index", None)) is not None:
        return int(said)
    if not node.input(index):
        return None
    found = b.value_of(node.input(index))
    if found is None:
        raise node.refuse("ignore_index must be a constant of the graph")
    return int(found.item())
