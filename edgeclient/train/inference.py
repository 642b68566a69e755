"""Models run forward: a bundle on examples without labels, and a plain ONNX model beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.archive import EVAL
from edgeclient.bundle.forward import with_output
from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import F32, Array
from edgeclient.train import runtime
from edgeclient.train.compiled import CompiledEngine
from edgeclient.train.trainer import TrainingError

_EXAMPLES: Final = 4
# Of the norm. Both are float32, in graphs that are optimised differently: 1e-7 to 1e-6 measured.
TOLERANCE: Final = 1e-4


def answering(directory: Path, manifest: Manifest, parameters: F32, local: F32) -> Callable[[Sequence[Array]], F32]:
    """What answers inputs, arrays in the model's order: scores float32 (batch, ...), the value under the loss.

    Args:
        directory: of the unpacked bundle.
        manifest: of the bundle.
        parameters: flat float32 (n,).
        local: running statistics that stay on a device, float32 (l,).

    Raises:
        TrainingError: no runtime, or it refuses the bundle; from what answers, too.
    """
    runtime.check_runtimes()
    trained, engine = manifest.trained_size, CompiledEngine(directory, manifest, threads=1)
    weights, statistics = np.ascontiguousarray(parameters[:trained]), np.concatenate([parameters[trained:], local])

    def answer(inputs: Sequence[Array]) -> F32:
        labels = np.zeros((len(inputs[0]), *manifest.labels.shape[1:]), manifest.labels.dtype)
        try:
            return engine.judge(weights, statistics, (*inputs, labels))[1]
        except IndexError:
            raise TrainingError("the bundle's evaluation graph gives a loss and no scores: it cannot answer") from None

    return answer


def difference(model: bytes, directory: Path, manifest: Manifest, answers: F32, inputs: Sequence[Array]) -> float:
    """How far a plain ONNX model's answers lie from these, relative to their norm; infinite where one is no number.

    Raises:
        TrainingError: no runtime, or it refuses the model.
    """
    names = [each.name for each in manifest.inputs]
    wanted = _session((directory / EVAL).read_bytes(), directory / EVAL).get_outputs()[1].name
    session = _session(model)
    if wanted not in {each.name for each in session.get_outputs()}:
        session = _session(with_output(model, wanted))
    (found,) = session.run([wanted], dict(zip(names, inputs, strict=True)))
    if found.shape != answers.shape or not (np.isfinite(found).all() and np.isfinite(answers).all()):
        return float("inf")
    return float(np.linalg.norm(found - answers) / max(float(np.linalg.norm(answers)), 1e-30))


def random_inputs(manifest: Manifest, seed: int = 0) -> tuple[Array, ...]:
    """A few examples: normal numbers; integers are 0 or 1, which every table has."""
    rng = np.random.default_rng(seed)
    return tuple(_random(each, rng) for each in manifest.inputs)


def _random(tensor: Tensor, rng: np.random.Generator) -> Array:
    shape = (_EXAMPLES, *tensor.shape[1:])
    if tensor.dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, 2, shape).astype(tensor.dtype)


def _session(model: bytes, path: Path | None = None) -> Any:
    """Of bytes; `path` says where they lie when external data is beside them."""
    try:
        return runtime.load().InferenceSession(
            model if path is None else str(path), runtime.session_options(1), providers=["CPUExecutionProvider"]
        )
    except TrainingError:
        raise
    except Exception as error:  # noqa: BLE001 (onnxruntime raises its own types)
        raise TrainingError(f"ONNX Runtime refuses the model: {(str(error).splitlines() or ['?'])[0][:300]}") from None
