"""Appends a loss to a forward model: output and labels in, one number out."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compile.errors import CompileError

LOSS: Final = "loss"
LABELS: Final = "labels"
NAMES: Final = ("cross_entropy", "mse", "l1", "bce_with_logits")


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
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, scores = made.graph, outputs[0]
    if scores.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise CompileError(f"the output {scores.name} is not float32: a loss cannot be put on it")
    dims = [each.dim_value or each.dim_param for each in scores.type.tensor_type.shape.dim]
    if loss.name == "cross_entropy":
        _cross_entropy(graph, scores.name, dims, loss)
    else:
        graph.input.append(helper.make_tensor_value_info(LABELS, TensorProto.FLOAT, dims))
        graph.node.extend(_REGRESSIONS[loss.name](scores.name))
    graph.output.insert(0, helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    return made


def _cross_entropy(graph: onnx.GraphProto, scores: str, dims: list[int | str], loss: Loss) -> None:
    if len(dims) < 2 or not isinstance(dims[1], int):
        raise CompileError(f"cross_entropy needs an output (batch, classes, …) with a fixed number of classes: {dims}")
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


def _mse(scores: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Sub", [scores, LABELS], ["loss.error"], name="loss.error"),
        helper.make_node("Mul", ["loss.error", "loss.error"], ["loss.each"], name="loss.each"),
        helper.make_node("ReduceMean", ["loss.each"], [LOSS], name="loss", keepdims=0),
    ]


def _l1(scores: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Sub", [scores, LABELS], ["loss.error"], name="loss.error"),
        helper.make_node("Abs", ["loss.error"], ["loss.each"], name="loss.each"),
        helper.make_node("ReduceMean", ["loss.each"], [LOSS], name="loss", keepdims=0),
    ]


def _bce_with_logits(scores: str) -> list[onnx.NodeProto]:
    """m − z·y + log(exp(z − m) + exp(−m)) with m = max(z, 0).

    log σ itself is −∞ from z = −104 on, and its gradient NaN. Whatever slope m has at 0 cancels out, which it does not
    in the usual m − z·y + log(1 + exp(−|z|)), where a head that begins at zero would get −y instead of ½ − y.
    """
    return [
        helper.make_node("Relu", [scores], ["loss.positive"], name="loss.positive"),
        helper.make_node("Mul", [scores, LABELS], ["loss.product"], name="loss.product"),
        helper.make_node("Sub", [scores, "loss.positive"], ["loss.below"], name="loss.below"),
        helper.make_node("Exp", ["loss.below"], ["loss.power"], name="loss.power"),
        helper.make_node("Neg", ["loss.positive"], ["loss.minus"], name="loss.minus"),
        helper.make_node("Exp", ["loss.minus"], ["loss.other"], name="loss.other"),
        helper.make_node("Add", ["loss.power", "loss.other"], ["loss.sum"], name="loss.sum"),
        helper.make_node("Log", ["loss.sum"], ["loss.rest"], name="loss.rest"),
        helper.make_node("Sub", ["loss.positive", "loss.product"], ["loss.line"], name="loss.line"),
        helper.make_node("Add", ["loss.line", "loss.rest"], ["loss.each"], name="loss.each"),
        helper.make_node("ReduceMean", ["loss.each"], [LOSS], name="loss", keepdims=0),
    ]


_REGRESSIONS: Final = {"mse": _mse, "l1": _l1, "bce_with_logits": _bce_with_logits}
