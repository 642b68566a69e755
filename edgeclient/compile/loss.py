"""Appends a loss to a forward model: output and labels in, one number out."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import copied

LOSS: Final = "loss"
LABELS: Final = "labels"
_SCORES: Final = "scores"
_ERROR: Final = ("Sub", (_SCORES, LABELS), "loss.error")
# (op, inputs, output) of each node; the loss is the mean of loss.each. bce_with_logits is, with m = max(z, 0),
# m − z·y + log(exp(z − m) + exp(−m)): log σ itself is −∞ from z = −104 on, and its gradient NaN. Whatever slope m has
# at 0 cancels out, which it does not in the usual m − z·y + log(1 + exp(−|z|)), where a head that begins at zero would
# get −y instead of ½ − y.
_REGRESSIONS: Final[dict[str, tuple[tuple[str, tuple[str, ...], str], ...]]] = {
    "mse": (_ERROR, ("Mul", ("loss.error", "loss.error"), "loss.each")),
    "l1": (_ERROR, ("Abs", ("loss.error",), "loss.each")),
    "bce_with_logits": (
        ("Relu", (_SCORES,), "loss.positive"),
        ("Mul", (_SCORES, LABELS), "loss.product"),
        ("Sub", (_SCORES, "loss.positive"), "loss.below"),
        ("Exp", ("loss.below",), "loss.power"),
        ("Neg", ("loss.positive",), "loss.minus"),
        ("Exp", ("loss.minus",), "loss.other"),
        ("Add", ("loss.power", "loss.other"), "loss.sum"),
        ("Log", ("loss.sum",), "loss.rest"),
        ("Sub", ("loss.positive", "loss.product"), "loss.line"),
        ("Add", ("loss.line", "loss.rest"), "loss.each"),
    ),
}
NAMES: Final = ("cross_entropy", *_REGRESSIONS)


@dataclass(frozen=True, slots=True)
class Loss:
    """What training makes small.

    Attributes:
        name: one of NAMES; all are means over the batch and every other axis.
        class_weights: of cross-entropy, one a class; the mean is weighted by them.
        ignored: a label of cross-entropy that counts nothing.
    """

    name: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    ignored: int | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise CompileError(f"unknown loss {self.name!r}: known are {', '.join(NAMES)}")
        if self.name != "cross_entropy" and (self.class_weights is not None or self.ignored is not None):
            raise CompileError(f"class weights and an ignored label belong to cross_entropy, not to {self.name}")


def with_loss(model: onnx.ModelProto, loss: Loss) -> onnx.ModelProto:
    """The model with an input "labels" and a first output "loss" in front of its own.

    Raises:
        CompileError: not exactly one float32 output with a free batch dimension, a name that is taken, or class
            weights that are not the classes'.
    """
    outputs = list(model.graph.output)
    if len(outputs) != 1:
        names = ", ".join(each.name for each in outputs)
        raise CompileError(f"the model has {len(outputs)} outputs ({names}): name the one to train with --output")
    taken = {each.name for each in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
    if found := sorted(taken & {LOSS, LABELS}):
        raise CompileError(f"the model has a value called {found[0]!r}, which the loss needs: rename it")
    made = copied(model)
    graph, scores = made.graph, outputs[0]
    if scores.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise CompileError(f"the output {scores.name} is not float32: a loss cannot be put on it")
    dims = [each.dim_value or each.dim_param for each in scores.type.tensor_type.shape.dim]
    if loss.name == "cross_entropy":
        _cross_entropy(graph, scores.name, dims, loss)
    else:
        graph.input.append(helper.make_tensor_value_info(LABELS, TensorProto.FLOAT, dims))
        for op, inputs, output in (*_REGRESSIONS[loss.name], ("ReduceMean", ("loss.each",), LOSS)):
            given = [scores.name if each == _SCORES else each for each in inputs]
            attributes = {"keepdims": 0} if op == "ReduceMean" else {}
            graph.node.append(helper.make_node(op, given, [output], name=output, **attributes))
    graph.output.insert(0, helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    return made


def _cross_entropy(graph: onnx.GraphProto, scores: str, dims: list[int | str], loss: Loss) -> None:
    if len(dims) < 2 or not isinstance(dims[1], int):
        raise CompileError(f"cross_entropy needs an output (batch, classes, …) with a fixed number of classes: {dims}")
    if dims[1] < 2:
        raise CompileError(
            f"cross_entropy needs two classes or more, the output {scores} has 1, and its loss would always be 0:"
            " --loss bce_with_logits is for one number that says yes or no (labels 0.0 and 1.0)"
        )
    graph.input.append(helper.make_tensor_value_info(LABELS, TensorProto.INT64, [dims[0], *dims[2:]]))
    inputs = [scores, LABELS]
    if loss.class_weights is not None:
        if len(loss.class_weights) != dims[1]:
            raise CompileError(f"{len(loss.class_weights)} class weights for {dims[1]} classes")
        inputs.append("loss.class_weights")
        graph.initializer.append(numpy_helper.from_array(np.array(loss.class_weights, np.float32), inputs[-1]))
    ignored = {} if loss.ignored is None else {"ignore_index": loss.ignored}
    graph.node.append(
        helper.make_node("SoftmaxCrossEntropyLoss", inputs, [LOSS, "loss.log_probability"], name="loss", **ignored)
    )
