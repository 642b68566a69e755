"""Checks a compiled bundle.

Gradients against float64 finite differences always, and against ONNX Runtime training where that package is
installed and right; scores against the forward model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compile import native_gradients
from edgeclient.compile.bundle import Compiled
from edgeclient.compile.errors import CompileError
from edgeclient.compile.graph import NEWEST_IR, copied
from edgeclient.compile.reference.differences import GradientError, gradient_error
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import F64, Array
from edgeclient.train import runtime

Arrays = dict[str, Array]
# Of the gradient's norm. float32 reaches 1e-7 to 1e-6 on sound graphs; the smallest wrong rule seen was 1e-4.
TOLERANCE: Final = 1e-5
_BATCH: Final = 3
_PATIENCE_S: Final = 60.0
_LOSSES_PER_TENSOR: Final = 30
_ALL: Final = "all parameters"


@dataclass(frozen=True, slots=True)
class Verification:
    """How well a bundle agrees with what knows better; errors are relative to the norm of the whole.

    Attributes:
        gradient_error: against finite differences in float64.
        native_error: against ONNX Runtime training; None when it is not installed, or not to be trusted here.
        score_error: of the evaluation graph, against the forward model; None when there is none.
        unchecked: parameters at a point where the loss has no derivative, such as a ReLU of exactly 0.
    """

    gradient_error: float
    native_error: float | None
    score_error: float | None
    unchecked: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        said = f"gradients agree with finite differences to {self.gradient_error:.1e} of their norm"
        if self.native_error is not None:
            said += f", with ONNX Runtime training to {self.native_error:.1e}"
        if self.unchecked:
            said += f"; no difference could be taken for {', '.join(self.unchecked)}"
        return said


def verify(made: Compiled, seed: int = 0) -> Verification:
    """Compare on random input.

    Raises:
        CompileError: they differ; the bundle must not be used.
    """
    rng = np.random.default_rng(seed)
    training = without_dropout(made.training)
    batch = random_batch(made.manifest, training, rng)
    feeds: Arrays = {**batch, **made.parameters}
    names = [each.name for each in made.manifest.trained]
    found = run(training, feeds)
    gradients = {name: found[f"{name}_grad"] for name in names}
    near = Reference(training, ["loss"]).around(feeds)

    def loss(values: Mapping[str, F64]) -> float:
        return float(near(values)["loss"])

    error = _differences(loss, {name: made.parameters[name] for name in names}, gradients, rng)
    _judge(error.relative, f"finite differences (most for {error.worst})")
    # Differences decide; where the native runtime disagrees with them it is wrong, as it is for several operators.
    native_error = None if training != made.training else _native_error(made, batch, gradients)
    return Verification(error.relative, native_error, _score_error(made, feeds), error.unchecked)


def _differences(
    loss: Callable[[Mapping[str, F64]], float], values: Arrays, gradients: Arrays, rng: np.random.Generator
) -> GradientError:
    """Tensor by tensor; all parameters as one vector where that would take minutes.

    Directions through the one vector see every coordinate as well, but not in which parameter the error lies.
    """
    began = time.perf_counter()
    # All of them a little off: as they are, nothing would be evaluated again.
    loss({name: np.nextafter(value, np.inf, dtype=value.dtype) for name, value in values.items()})
    each_s = time.perf_counter() - began
    if each_s * len(values) * _LOSSES_PER_TENSOR <= _PATIENCE_S:
        return gradient_error(loss, values, gradients, rng, coordinates=4)
    names = list(values)
    ends = np.cumsum([values[name].size for name in names])[:-1]

    def whole(given: Mapping[str, F64]) -> float:
        parts = np.split(given[_ALL], ends)
        return loss({name: part.reshape(values[name].shape) for name, part in zip(names, parts, strict=True)})

    flat, gradient = ({_ALL: np.concatenate([of[name].ravel() for name in names])} for of in (values, gradients))
    return gradient_error(whole, flat, gradient, rng, coordinates=4, directions=4)


def random_batch(manifest: Manifest, graph: onnx.ModelProto, rng: np.random.Generator) -> Arrays:
    """Inputs and labels of a few examples: normal numbers, and integers below what the graph's tables hold."""
    bound = _smallest_table(graph, {each.name for each in manifest.inputs})
    made = {each.name: _random(each, bound, rng) for each in manifest.inputs}
    labels = manifest.labels
    if manifest.classes is not None:
        made[labels.name] = rng.integers(0, manifest.classes, (_BATCH, *labels.shape[1:]))
    elif manifest.loss == "bce_with_logits":
        made[labels.name] = rng.random((_BATCH, *labels.shape[1:])).astype(np.float32)
    else:
        made[labels.name] = _random(labels, bound, rng)
    return made


def _random(tensor: Tensor, bound: int, rng: np.random.Generator) -> Array:
    shape = (_BATCH, *tensor.shape[1:])
    if tensor.dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, bound, shape).astype(tensor.dtype)


def _smallest_table(graph: onnx.ModelProto, inputs: set[str]) -> int:
    """Rows of the smallest table that an input indexes, directly or through casts and reshapes; 256 when none does."""
    rows = {each.name: each.type.tensor_type.shape.dim[0].dim_value for each in graph.graph.input
            if len(each.type.tensor_type.shape.dim) > 1}  # fmt: skip
    rows |= {each.name: each.dims[0] for each in graph.graph.initializer if len(each.dims) > 1}
    indexing = set(inputs)
    found = []
    for node in graph.graph.node:
        if (
            node.op_type in {"Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
            and node.input[0] in indexing
        ):
            indexing.update(node.output)
        if node.op_type == "Gather" and node.input[1] in indexing and rows.get(node.input[0]):
            found.append(int(rows[node.input[0]]))
    return min(found, default=256)


def _native_error(made: Compiled, batch: Arrays, gradients: Arrays) -> float | None:
    if not native_gradients.available() or _is_known_wrong(made.training):
        return None
    order = [each.name for each in (*made.manifest.inputs, made.manifest.labels)]
    native = native_gradients.native_gradients(made.artifacts, [batch[name] for name in order])
    if native is None:
        return None
    difference = sum(float(np.sum((gradients[name] - native[name]) ** 2)) for name in gradients)
    norm = sum(float(np.sum(np.square(native[name], dtype=np.float64))) for name in gradients)
    return float(np.sqrt(difference / norm)) if norm else 0.0


def _is_known_wrong(graph: onnx.ModelProto) -> bool:
    """1.19.2 gives silently wrong gradients for grouped convolutions in one dimension (tests/native shows it)."""
    return any(
        node.op_type in {"Conv", "FusedConv"}
        and any(each.name == "group" and each.i > 1 for each in node.attribute)
        and any(each.name == "pads" and len(each.ints) == 2 for each in node.attribute)
        for node in graph.graph.node
    )


def _score_error(made: Compiled, feeds: Arrays) -> float | None:
    if made.forward is None or len(made.evaluation.graph.output) < 2:
        return None
    forward = copied(made.forward)
    forward.ir_version = min(forward.ir_version, NEWEST_IR)
    ours = run(made.evaluation, feeds)[made.evaluation.graph.output[1].name]
    theirs = run(forward, feeds)[forward.graph.output[0].name]
    error = float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-30))
    _judge(error, "the forward model's scores")
    return error


def _judge(error: float, what: str) -> None:
    if not error <= TOLERANCE:
        raise CompileError(
            f"the compiled model differs from {what} by {error:.1e} of the norm: its lowering is wrong, please report"
            " it"
        )


def run(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """All outputs of a graph in the runtime at hand; what it does not read of `feeds` is left out."""
    session = runtime.load().InferenceSession(model.SerializeToString(), runtime.session_options(1))
    wanted = {each.name for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    given = {name: value for name, value in feeds.items() if name in wanted}
    return dict(zip(names, session.run(names, given), strict=True))


def without_dropout(model: onnx.ModelProto) -> onnx.ModelProto:
    """Differences need a function: dropout keeps everything, and its gradient divides by one."""
    ratios = {node.input[1] for node in model.graph.node if node.op_type == "Dropout" and len(node.input) > 1}
    if not ratios:
        return model
    made = copied(model)
    constants = [each for node in made.graph.node if node.op_type == "Constant" and node.output[0] in ratios
                 for each in [node.attribute[0].t]]  # fmt: skip
    for tensor in (*constants, *(each for each in made.graph.initializer if each.name in ratios)):
        tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    return made
