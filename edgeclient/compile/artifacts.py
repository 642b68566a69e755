"""ONNX Runtime training artifacts in memory: read from the folder that `generate_artifacts` writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import checkpoint
from edgeclient.compile.errors import CompileError
from edgeclient.compile.loss import LOSS
from edgeclient.compress.arrays import F32, Array

TRAINING: Final = "training_model.onnx"
EVAL: Final = "eval_model.onnx"
OPTIMISER: Final = "optimizer_model.onnx"
CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True, eq=False)
class Artifacts:
    """What ONNX Runtime generated.

    Attributes:
        training: forward, loss and gradients; parameters are inputs, the first output is called "loss".
        evaluation: forward and loss, called so too.
        trainable: initial values, in the order of the graph's inputs.
        frozen: values of inputs that are not trained.
        optimiser: how it moves parameters.
        files: the artifacts themselves, by file name.
    """

    training: onnx.ModelProto
    evaluation: onnx.ModelProto
    trainable: Mapping[str, F32]
    frozen: Mapping[str, Array]
    optimiser: Optimiser
    files: Mapping[str, bytes]


def read(directory: Path) -> Artifacts:
    """The artifacts in a folder; one without optimizer_model.onnx trains with SGD.

    Raises:
        CompileError: a file is missing or not what its name says.
    """
    files = {}
    for name in (TRAINING, EVAL, CHECKPOINT, OPTIMISER):
        path = directory / name
        if path.is_file():
            files[name] = path.read_bytes()
        elif name != OPTIMISER:
            raise CompileError(f"{path} is missing: generate_artifacts of ONNX Runtime training writes it")
    training, evaluation = (_model(files[name], directory / name) for name in (TRAINING, EVAL))
    saved, frozen = checkpoint.read(files[CHECKPOINT])
    inputs = [each.name for each in training.graph.input]
    for name, value in saved.items():
        if value.dtype != np.float32 or not value.size or name not in inputs:
            raise CompileError(f"parameter {name} is {value.dtype} {value.shape}: only float32 can be trained")
    trainable = {name: saved[name] for name in inputs if name in saved}
    if not trainable:
        raise CompileError("the artifacts have no trainable parameter: name some in requires_grad")
    loss = training.graph.output[0].name
    for model in (training, evaluation):
        _rename(model.graph, loss, LOSS)
    optimiser = _optimiser(_model(files[OPTIMISER], directory / OPTIMISER)) if OPTIMISER in files else Optimiser()
    return Artifacts(training, evaluation, trainable, frozen, optimiser, files)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _model(data: bytes, path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        model = onnx.ModelProto()
    if not model.graph.node:
        raise CompileError(f"{path} is not an ONNX model")
    return model


def _optimiser(model: onnx.ModelProto) -> Optimiser:
    for node in model.graph.node:
        of: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "SGDOptimizerV2":
            return Optimiser("sgd")
        if node.op_type == "AdamWOptimizer":
            return Optimiser(
                "adamw",
                beta1=_decimal(of.get("alpha", 0.9)),
                beta2=_decimal(of.get("beta", 0.999)),
                epsilon=_decimal(of.get("epsilon", 1e-6)),
                weight_decay=_decimal(of.get("weight_decay", 0.0)),
                decay_first=of.get("adam_mode", 1) == 0,
                correct_bias=bool(of.get("correct_bias", 1)),
            )
    raise CompileError(f"{OPTIMISER} holds no optimizer that is known: SGDOptimizerV2 and AdamWOptimizer are")


def _decimal(value: float) -> float:
    """0.9 is stored as float32 0.899999976: the number that was meant."""
    return float(np.format_float_positional(np.float32(value), unique=True))
