"""The way of a model through the compiler, top to bottom."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import checker, shape_inference

from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import advice, artifacts, border, bundle, forward, generate, loss
from edgeclient.compile.artifacts import Artifacts
from edgeclient.compile.bundle import Compiled
from edgeclient.compile.errors import CompileError, first_line
from edgeclient.compile.loss import Loss
from edgeclient.compile.prepare import constants as folding
from edgeclient.compile.prepare import decompose, opset, unroll


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile.

    Attributes:
        loss: put on the model's output.
        optimiser: of the device.
        trainable: patterns of parameters to train.
        frozen: patterns of parameters to leave.
        output: which output the loss is put on, when there are several.
        sizes: numbers for named dimensions of the inputs.
        shapes: whole shapes of inputs, by name.
        batch_norm: what becomes of running statistics: "shared", "local" or "frozen".
        bounds: between which tensors stay, by pattern of their names.
        licence: of model and parameters.
        provenance: how they were made.
        native: whether the bundle carries the artifacts too.
    """

    loss: Loss = field(default_factory=Loss)
    optimiser: Optimiser = field(default_factory=Optimiser)
    trainable: tuple[str, ...] = ("*",)
    frozen: tuple[str, ...] = ()
    output: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    batch_norm: str = "shared"
    bounds: dict[str, Bounds] = field(default_factory=dict)
    licence: str = "unknown"
    provenance: str = "unknown"
    native: bool = False


def load_model(path: Path) -> onnx.ModelProto:
    """The ONNX model in a file, with its external data.

    Raises:
        CompileError: no such file, not ONNX, or external data is missing.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        if not path.exists():
            raise CompileError(f"{path} does not exist") from None
        raise CompileError(f"{path} keeps weights in another file, which is missing: {error}") from None
    except (DecodeError, checker.ValidationError, ValueError) as error:
        if isinstance(error, checker.ValidationError) or "external" in str(error).lower():
            raise CompileError(f"{path} keeps weights in another file, which is missing: {first_line(error)}") from None
        raise CompileError(f"{path} is not an ONNX model") from None
    except OSError as error:
        raise CompileError(f"{path}: {error.strerror}") from None
    if not model.graph.node:
        raise CompileError(f"{path} is not an ONNX model, or an empty one")
    return model


def compile_model(model: onnx.ModelProto, options: Options, tell: Callable[[str], None] = lambda _: None) -> Compiled:
    """A forward model, whose inputs have a free batch dimension first, becomes a bundle; `tell` hears what is done.

    Raises:
        CompileError: it cannot be trained; the text says why and what to do.
    """
    tell("preparing the forward model")
    prepared = prepare(model, options)
    chosen = _chosen(model, options)
    trained = forward.parameters(prepared, options.trainable, options.frozen, advice.formulas(chosen))
    tell(f"generating gradients of {len(trained)} parameters")
    made = generate.generate(loss.with_loss(prepared, options.loss), trained, options.optimiser)
    tell("lowering to standard operators")
    lowered = _lowered(replace(made, optimiser=options.optimiser), options, options.loss.name)
    left = advice.untrained(chosen, trained, options.frozen) if "*" in options.trainable else ""
    notes = tuple(filter(None, [advice.squashed(chosen, options.loss), advice.folded(model), left]))
    return replace(lowered, forward=chosen, given=model, notes=notes)


def prepare(model: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    """The forward model in the form that gradients are generated from.

    Raises:
        CompileError: see `compile_model`.
    """
    chosen = _chosen(model, options)
    weights = {each.name for each in chosen.graph.initializer}
    for each in chosen.graph.input:
        if each.name not in weights:
            bundle.described(each)
    current = opset.at_supported_opset(border.with_output_shapes(shape_inference.infer_shapes(chosen, data_prop=True)))
    try:
        # Before the check, which wants shapes of outputs that many exporters leave out.
        current = shape_inference.infer_shapes(
            folding.fold(forward.with_weights(current, options.trainable)), data_prop=True
        )
        checker.check_model(current)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        raise CompileError(f"the model is not valid: {first_line(error)}") from None
    current = decompose.decompose(unroll.unroll(current))
    return forward.in_training_form(current, batch_norm=options.batch_norm)


def compile_artifacts(
    directory: Path, options: Options, *, optimiser: Optimiser | None, tell: Callable[[str], None] = lambda _: None
) -> Compiled:
    """Training artifacts that exist already become a bundle; `optimiser` replaces theirs.

    Raises:
        CompileError: a file is missing or damaged, or an op cannot be lowered.
    """
    made = artifacts.read(directory)
    tell("lowering to standard operators")
    return _lowered(made if optimiser is None else replace(made, optimiser=optimiser), options, "custom")


def _lowered(made: Artifacts, options: Options, loss: str) -> Compiled:
    running = "local" if options.batch_norm == "local" else "shared"
    said = (loss, options.licence, options.provenance)
    return bundle.compiled(made, *said, running=running, native=options.native, bounds=options.bounds)


def _chosen(model: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    sized = border.with_shapes(model, options.sizes, options.shapes)
    return border.selected_output(sized, options.output)
