"""ONNX Runtime training generates gradients for a forward model with a loss. Needs the extra [build]."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import artifacts
from edgeclient.compile.artifacts import Artifacts
from edgeclient.compile.errors import CompileError
from edgeclient.compile.loss import LOSS
from edgeclient.train.native import import_training
from edgeclient.train.trainer import TrainingError


def generate(model: onnx.ModelProto, trainable: Sequence[str], optimiser: Optimiser) -> Artifacts:
    """Artifacts of a prepared forward model, whose first output is the loss. The same model gives the same bytes.

    Args:
        model: forward and loss; every node has a name.
        trainable: initializers with a gradient; the others stay constants of the graphs.
        optimiser: what the artifacts are to say.

    Raises:
        CompileError: the training package is missing, or it has no gradient for an op.
    """
    try:
        import_training()
    except TrainingError as error:
        raise CompileError(f"{error} (or compile artifacts that you have: --artifacts DIR)") from None
    # Only after import_training.
    from onnxruntime.training import artifacts as ort  # noqa: PLC0415
    from onnxruntime.training import onnxblock  # noqa: PLC0415

    class HasLoss(onnxblock.Block):  # type: ignore[misc]  # an untyped library
        def build(self, *_: str) -> str:
            return LOSS

    block = onnxblock.optim.SGD()
    if optimiser.name == "adamw":
        block = onnxblock.optim.AdamW(
            bias_correction=optimiser.correct_bias,
            betas=(optimiser.beta1, optimiser.beta2),
            eps=optimiser.epsilon,
            weight_decay=optimiser.weight_decay,
        )
    outputs = [each.name for each in model.graph.output if each.name != LOSS]
    with tempfile.TemporaryDirectory() as folder:
        with _silence():
            try:
                ort.generate_artifacts(
                    model,
                    requires_grad=list(trainable),
                    loss=HasLoss(),
                    optimizer=block,
                    artifact_directory=folder,
                    additional_output_names=outputs,
                )
            except Exception as error:  # noqa: BLE001 (the generator raises whatever it meets)
                raise CompileError(f"ONNX Runtime cannot generate gradients: {_reason(error)}") from None
        return artifacts.read(Path(folder))


def _reason(error: Exception) -> str:
    """What stands in the generator's message behind the place in its own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rpartition("was false. ")[2][:400]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The generator logs every graph transformation to the process's standard error, whatever the logging level."""
    with contextlib.redirect_stderr(io.StringIO()), Path(os.devnull).open("wb") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
