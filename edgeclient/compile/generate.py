"""ONNX Runtime training artifacts from a forward model, packed as a bundle.

Needs the extra [build]. The same model gives the same bytes.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgeclient.train.native import import_training
from edgeclient.wire import bundle, safetensors
from edgeclient.wire.bundle import PARAMETERS, Manifest, Tensor
from edgeclient.wire.errors import WireError
from edgeclient.wire.layout import Layout, Parameter

LABELS: Final = "labels"
_FILES: Final = ("training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint")


class CompileError(Exception):
    """The model cannot become a bundle; one line that says why and what to do."""


def generate(model: onnx.ModelProto, *, licence: str, provenance: str) -> bytes:
    """A bundle that trains all float32 initializers with cross-entropy and SGD.

    Args:
        model: one output, the logits (batch, classes); inputs with a free batch dimension first; no input
            called "labels". IR version <= 10, opset <= 21.
        licence: of model and parameters.
        provenance: how the model was made.

    Raises:
        CompileError: the model is not of this form, or ONNX Runtime refuses it.
    """
    if len(model.graph.output) != 1:
        raise CompileError(f"the model has {len(model.graph.output)} outputs: leave the logits alone")
    output = model.graph.output[0]
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    trained = {name: value for name, value in weights.items() if value.dtype == np.float32 and value.size}
    frozen = [name for name in weights if name not in trained]
    inputs = tuple(_tensor(each) for each in model.graph.input if each.name not in weights)
    classes = _tensor(output).shape[-1]
    try:
        layout = Layout(tuple(Parameter(name, value.shape) for name, value in trained.items()))
    except WireError as error:
        raise CompileError(f"the model has nothing to train: {error.detail}") from None
    manifest = Manifest(
        layout=layout,
        inputs=inputs,
        labels=Tensor(LABELS, "int64", (-1,)),
        classes=classes,
        loss="cross_entropy",
        optimiser="sgd",
        licence=licence,
        provenance=provenance,
    )
    files = {PARAMETERS: safetensors.encode(trained), **_artifacts(model, list(trained), frozen, output.name)}
    return bundle.encode(manifest, files)


def _artifacts(model: onnx.ModelProto, trained: list[str], frozen: list[str], logits: str) -> dict[str, bytes]:
    import_training()
    from onnxruntime.training import artifacts  # noqa: PLC0415 (only after import_training)

    with tempfile.TemporaryDirectory() as directory:
        try:
            artifacts.generate_artifacts(
                model,
                requires_grad=trained,
                frozen_params=frozen,
                loss=artifacts.LossType.CrossEntropyLoss,
                optimizer=artifacts.OptimType.SGD,
                artifact_directory=directory,
                additional_output_names=[logits],
            )
        except Exception as error:  # noqa: BLE001 (the generator raises whatever it meets)
            raise CompileError(f"ONNX Runtime cannot generate training artifacts: {error}") from None
        return {f"native/{name}": (Path(directory) / name).read_bytes() for name in _FILES}


def _tensor(value: Any) -> Tensor:
    kinds = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}
    tensor = value.type.tensor_type
    shape = [dimension.dim_value for dimension in tensor.shape.dim]
    if tensor.elem_type not in kinds or not shape or shape[0] or not all(shape[1:]):
        raise CompileError(f"{value.name} must be float32 or int64 with a named batch dimension and fixed others")
    return Tensor(value.name, kinds[tensor.elem_type], (-1, *shape[1:]))
