"""Cross-entropy over classes on axis 1, with class weights and a label to ignore."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers


@dataclass(frozen=True, slots=True)
class _Targets:
    """Labels as the loss and its gradient read them.

    Attributes:
        safe: labels with the ignored ones replaced by 0.
        weight: of each label, or None when all count 1.
    """

    safe: str
    weight: str | None


def _targets(b: Builder, labels: str, weights: str, ignore: int | None) -> _Targets:
    if ignore is None:
        return _Targets(labels, b.op("Gather", weights, labels) if weights else None)
    ignored = b.op("Equal", labels, b.int64(ignore) if b.dtype(labels) != 6 else b.op("Cast", b.int64(ignore), to=6))
    safe = b.op("Where", ignored, b.op("Cast", b.int64(0), to=b.dtype(labels) or 7), labels)
    weight = b.op("Sub", b.float(1), b.op("Cast", ignored, to=1))
    if weights:
        weight = b.op("Mul", weight, b.op("Gather", weights, safe))
    return _Targets(safe, weight)


def cross_entropy(
    b: Builder, logits: str, labels: str, weights: str, ignore: int | None, reduction: str
) -> tuple[str, str]:
    """(loss, log-probabilities): −Σ w·logp[label] / Σ w for reduction "mean"."""
    log_probability = b.op("LogSoftmax", logits, axis=1)
    targets = _targets(b, labels, weights, ignore)
    index = b.op("Unsqueeze", targets.safe, b.int64([1]))
    picked = b.op("Squeeze", b.op("GatherElements", log_probability, index, axis=1), b.int64([1]))
    loss = b.op("Neg", picked)
    if targets.weight is not None:
        loss = b.op("Mul", loss, targets.weight)
    if reduction == "none":
        return loss, log_probability
    if reduction == "mean" and targets.weight is None:
        return b.op("ReduceMean", loss, keepdims=0), log_probability
    total = b.op("ReduceSum", loss, keepdims=0)
    if reduction == "mean" and targets.weight is not None:
        total = b.op("Div", total, b.op("ReduceSum", targets.weight, keepdims=0))
    return total, log_probability


def cross_entropy_adjoint(
    b: Builder, dy: str, log_probability: str, labels: str, weights: str, ignore: int | None, reduction: str
) -> str:
    """(softmax − one-hot) · w · dY, over Σ w for reduction "mean"."""
    targets = _targets(b, labels, weights, ignore)
    classes = b.op("Gather", b.op("Shape", log_probability), b.int64([1]))
    one_hot = b.op("OneHot", targets.safe, classes, b.float([0, 1]), axis=1)
    error = b.op("Sub", b.op("Exp", log_probability), one_hot)
    scale = None if b.is_one(dy) else dy
    if reduction == "none":
        scale = b.op("Unsqueeze", dy, b.int64([1]))
    if reduction == "mean" and targets.weight is None:
        count = b.op("Cast", b.op("Size", labels), to=1)
        return b.op("Div", error if scale is None else b.op("Mul", error, scale), count)
    if targets.weight is not None:
        weight = targets.weight
        if reduction == "mean":
            weight = b.op("Div", weight, b.op("ReduceSum", weight, keepdims=0))
        error = b.op("Mul", error, b.op("Unsqueeze", weight, b.int64([1])))
    return error if scale is None else b.op("Mul", error, scale)


def _ignored(node: Node) -> int | None:
    return node.attribute("ignore_index", None)  # type: ignore[no-any-return]  # attributes are Any


@lowers("SoftmaxCrossEntropyLoss")
def _loss(b: Builder, node: Node) -> Sequence[str]:
    logits, labels = node.inputs[:2]
    return cross_entropy(b, logits, labels, node.input(2), _ignored(node), node.attribute("reduction", "mean"))


@lowers("SoftmaxCrossEntropyLossInternal")
def _internal_loss(b: Builder, node: Node) -> Sequence[str]:
    logits, labels = node.inputs[:2]
    ignore = _constant_ignored(b, node, 3)
    return cross_entropy(b, logits, labels, node.input(2), ignore, node.attribute("reduction", "mean"))


@lowers("SoftmaxCrossEntropyLossGrad")
def _gradient(b: Builder, node: Node) -> Sequence[str]:
    dy, log_probability, labels = node.inputs[:3]
    reduction = node.attribute("reduction", "mean")
    return [cross_entropy_adjoint(b, dy, log_probability, labels, node.input(3), _ignored(node), reduction)]


@lowers("SoftmaxCrossEntropyLossInternalGrad")
def _internal_gradient(b: Builder, node: Node) -> Sequence[str]:
    dy, log_probability, labels = node.inputs[:3]
    ignore, reduction = _constant_ignored(b, node, 4), node.attribute("reduction", "mean")
    return [cross_entropy_adjoint(b, dy, log_probability, labels, node.input(3), ignore, reduction)]


def _constant_ignored(b: Builder, node: Node, index: int) -> int | None:
    if not node.input(index):
        return None
    found = b.value_of(node.input(index))
    if found is None:
        raise node.refuse("ignore_index must be a constant of the graph")
    return int(found.item())
