"""From training artifacts to the bundle that a device trains (FORMAT.md, section 8)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Buffer, Manifest, Tensor
from edgeclient.compile import domain, weights
from edgeclient.compile.artifacts import Artifacts
from edgeclient.compile.errors import CompileError, first_line
from edgeclient.compile.graph import copied, refill
from edgeclient.compile.loss import LABELS
from edgeclient.compile.lower.walk import lower
from edgeclient.compress.arrays import F32, Array
from edgeclient.wire.errors import WireError

_DTYPES: Final = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.INT32: "int32"}


@dataclass(frozen=True, eq=False)
class Compiled:
    """A bundle before it is packed.

    Attributes:
        training: lowered graph: loss, gradients, new running statistics.
        evaluation: lowered graph: loss and scores.
        parameters: initial values of what is in the flat vector, and of local running statistics.
        manifest: all but the digests.
        artifacts: what it was lowered from, by file name.
        native: whether they go into the bundle.
        forward: the model that it all began with, one output; None when it began with artifacts.
        given: the same as its user gave it, likewise.
        notes: what its user should hear, a line each.
    """

    training: onnx.ModelProto
    evaluation: onnx.ModelProto
    parameters: Mapping[str, F32]
    manifest: Manifest
    artifacts: Mapping[str, bytes]
    native: bool
    forward: onnx.ModelProto | None = None
    given: onnx.ModelProto | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def skeleton(self) -> onnx.ModelProto | None:
        """The user's model without what training moves; None when nothing was given, or it was rewritten too far."""
        shapes = {name: value.shape for name, value in self.parameters.items()}
        return None if self.given is None else weights.without(self.given, shapes)

    def packed(self) -> bytes:
        """The bundle; the same artifacts give the same bytes."""
        frozen: dict[str, F32] = {}
        models = {archive.TRAINING: self.training, archive.EVAL: self.evaluation}
        if self.skeleton is not None:
            models[archive.FORWARD] = self.skeleton
        graphs = {name: weights.externalised(model, frozen) for name, model in models.items()}
        files = {archive.PARAMETERS: safetensors.encode(self.parameters)}
        if frozen:
            content = safetensors.encode(dict(sorted(frozen.items())))
            files[archive.FROZEN] = content
            places = safetensors.places(content)
            for graph in graphs.values():
                weights.place(graph, places)
        files |= {name: graph.SerializeToString(deterministic=True) for name, graph in graphs.items()}
        if self.native:
            files |= {f"native/{name}": content for name, content in self.artifacts.items()}
        return archive.encode(self.manifest, files)


def compiled(
    artifacts: Artifacts,
    loss: str,
    licence: str,
    provenance: str,
    *,
    running: str = "shared",
    native: bool = False,
    bounds: Mapping[str, Bounds] = MappingProxyType({}),
) -> Compiled:
    """Lower both graphs and describe them.

    Args:
        artifacts: of the model.
        loss: for people, as licence and provenance are.
        licence: see Manifest.
        provenance: see Manifest.
        running: policy of running statistics, "shared" or "local".
        native: whether the artifacts themselves go into the bundle, for the native runtime.
        bounds: of further tensors, by pattern of their names, besides those that running statistics have anyway.

    Raises:
        CompileError: an op without a rule, inputs that a device cannot feed, a graph that does not pass the checker.
    """
    statistics = _running_statistics(artifacts)
    training = _with_constants(artifacts.training, artifacts.frozen, statistics)
    evaluation = _evaluation(_with_constants(artifacts.evaluation, artifacts.frozen, statistics))
    inferred = shape_inference.infer_shapes(evaluation, data_prop=True)
    trained = lower(training, inferred, outputs=("loss",))
    judged = lower(inferred)
    missing = sorted(artifacts.trainable.keys() - trained.gradients.keys())
    if missing:
        raise CompileError(f"the artifacts have no gradient of {', '.join(missing)}")
    for each in (trained.model, judged.model):
        _check(each)
    values = {name: _value(artifacts, name) for name in statistics}
    held = [*artifacts.trainable.items(), *(values.items() if running == "shared" else ())]
    within = domain.bounds_of([name for name, _ in held], bounds, statistics[1::2], statistics[::2])
    try:
        layout = Layout(tuple(Parameter(name, value.shape, within.get(name)) for name, value in held))
    except WireError as error:
        raise CompileError(f"nothing can be trained: {error.detail}") from None
    inputs = _user_inputs(artifacts)
    node = next((each for each in artifacts.evaluation.graph.node if each.op_type == "SoftmaxCrossEntropyLoss"), None)
    ignored = None if node is None else next((each.i for each in node.attribute if each.name == "ignore_index"), None)
    manifest = Manifest(
        layout=layout,
        inputs=inputs[:-1],
        labels=inputs[-1],
        classes=None if node is None else _classes(artifacts.evaluation, node.input[0]),
        loss=loss,
        optimiser=artifacts.optimiser,
        licence=licence,
        provenance=provenance,
        buffers=tuple(Buffer(name, value.shape, running) for name, value in values.items()),
        ignored=ignored,
        operators=len(trained.model.graph.node),
    )
    parameters = {**artifacts.trainable, **values}
    if fault := layout.fault(layout.flatten({name: parameters[name] for name, _ in held})):
        raise CompileError(f"the model begins outside its bounds: {fault}")
    return Compiled(trained.model, judged.model, parameters, manifest, artifacts.files, native)


def _user_inputs(artifacts: Artifacts) -> tuple[Tensor, ...]:
    own = set(artifacts.trainable) | set(artifacts.frozen)
    found = []
    for each in artifacts.training.graph.input:
        name = each.name
        if name in own or name == "lazy_reset_grad" or name.endswith("_grad.accumulation.buffer"):
            continue
        found.append(described(each))
    if len(found) < 2:
        raise CompileError("the training graph has no inputs beside the labels")
    return tuple(found)


def described(value: onnx.ValueInfoProto) -> Tensor:
    """An input as a device feeds it.

    Raises:
        CompileError: another type, or dimensions that are not a free batch and numbers.
    """
    tensor = value.type.tensor_type
    shape = [dimension.dim_value for dimension in tensor.shape.dim]
    if tensor.elem_type not in _DTYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise CompileError(f"input {value.name} is {kind}: a device feeds {', '.join(_DTYPES.values())}")
    if not shape or shape[0] or not all(shape[1:]):
        said = [dimension.dim_value or dimension.dim_param or "?" for dimension in tensor.shape.dim]
        if value.name == LABELS and shape and shape[0]:  # what the loss has made after the output
            raise CompileError(
                f"the output has {shape[0]} examples whatever the batch: the exporter has written {shape[0]} examples"
                " into the graph, and --shape does not take them out: export the model with a free batch (PyTorch:"
                ' dynamic_shapes=({0: "batch"},))'
            )
        wanted = ",".join(["-1", *(str(size or "D") for size in shape[1:])])
        raise CompileError(
            f"input {value.name} has shape {said}: the first dimension must be free, the batch, and all others fixed;"
            ' export the model so (PyTorch: dynamic_shapes=({0: "batch"},)), or, if the graph does not depend on it,'
            f" give --shape {value.name}={wanted} or --dim NAME=SIZE"
        )
    return Tensor(value.name, _DTYPES[tensor.elem_type], (-1, *shape[1:]))


def _classes(model: onnx.ModelProto, scores: str) -> int:
    inferred = shape_inference.infer_shapes(model)
    for each in (*inferred.graph.output, *inferred.graph.value_info):
        if each.name == scores and len(each.type.tensor_type.shape.dim) > 1:
            return int(each.type.tensor_type.shape.dim[1].dim_value)
    raise CompileError(f"the number of classes of {scores} cannot be resolved")


def _running_statistics(artifacts: Artifacts) -> list[str]:
    return [
        name
        for node in artifacts.training.graph.node
        if node.op_type == "BatchNormInternal"
        for name in node.input[3:5]
    ]


def _value(artifacts: Artifacts, name: str) -> F32:
    if name in artifacts.frozen:
        return np.asarray(artifacts.frozen[name], np.float32)
    found = next((each for each in artifacts.training.graph.initializer if each.name == name), None)
    if found is None:
        raise CompileError(f"running statistic {name} has no value: it must be an initializer of the model")
    return np.asarray(numpy_helper.to_array(found), np.float32)


def _with_constants(model: onnx.ModelProto, frozen: Mapping[str, Array], statistics: Iterable[str]) -> onnx.ModelProto:
    """Frozen values become constants, which the runtime can fold; running statistics become inputs."""
    made = copied(model)
    graph, moving = made.graph, set(statistics)
    known = {each.name for each in graph.input}
    for each in list(graph.initializer):
        if each.name in moving:
            graph.initializer.remove(each)
            if each.name not in known:
                graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    for each in list(graph.input):
        if each.name in frozen and each.name not in moving:
            graph.input.remove(each)
            graph.initializer.append(numpy_helper.from_array(frozen[each.name], each.name))
    return made


def _evaluation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in evaluation mode, with the scores as second output.

    ONNX Runtime leaves training outputs on BatchNormalization, which is then invalid.
    """
    graph = model.graph
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            del node.output[1:]
            for attribute in node.attribute:
                if attribute.name == "training_mode":
                    attribute.i = 0
    made = [each.name for each in graph.output]
    for node in graph.node:
        if node.op_type == "SoftmaxCrossEntropyLoss":
            if node.input[0] not in made:
                graph.output.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
            loss, scores = node.output[0], node.input[0]
            refill(graph.output, sorted(graph.output, key=lambda each: (each.name != loss, each.name != scores)))
    return model


def _check(model: onnx.ModelProto) -> None:
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise CompileError(f"the lowered graph is not valid, please report this: {first_line(error)}") from None
