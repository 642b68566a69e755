"""Training with ONNX Runtime's own training API (onnxruntime-training-cpu 1.19.2; x86-64, Python <= 3.12).

The reference that compiled bundles are checked against, and an alternative where that package is installed.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.compress.arrays import F32
from edgeclient.train import runtime
from edgeclient.train.batches import Batch
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.trainer import TrainingError

FOLDER: Final = "native"


def native_trainer(directory: Path, threads: int = 1) -> RoundTrainer:
    """A trainer for the bundle unpacked in `directory`, which must hold the artifacts (`edgeclient compile --native`).

    Raises:
        TrainingError: the training package is missing, the bundle has no artifacts or running statistics, which
            the native runtime does not move.
    """
    manifest = read_manifest(directory)
    if not (directory / FOLDER).is_dir():
        raise TrainingError(f"{directory} has no native artifacts: compile the model with --native")
    if manifest.buffers:
        raise TrainingError("the native runtime does not move running statistics: use the compiled one")
    return RoundTrainer(manifest, NativeEngine(directory / FOLDER, manifest, threads), np.zeros(0, np.float32))


class NativeEngine:
    """See Engine."""

    def __init__(self, artifacts: Path, manifest: Manifest, threads: int) -> None:
        import_training()
        from onnxruntime.training import api  # noqa: PLC0415 (only after import_training)

        self._layout = manifest.layout
        try:
            self._state: Any = api.CheckpointState.load_checkpoint(artifacts / "checkpoint")
            self._module: Any = api.Module(
                artifacts / "training_model.onnx",
                self._state,
                artifacts / "eval_model.onnx",
                session_options=runtime.session_options(threads),
            )
        except Exception as error:  # noqa: BLE001 (onnxruntime raises its own types, and RuntimeError)
            raise TrainingError(f"ONNX Runtime refuses the artifacts in {artifacts}: {error}") from None
        self._bound: tuple[F32, F32] = (np.zeros(0, np.float32),) * 2

    def begin(self, parameters: F32, statistics: F32, gradients: F32) -> None:  # noqa: ARG002 (there are none)
        self._bound = (parameters, gradients)

    def learn(self, batch: Batch) -> float:
        parameters, gradients = self._bound
        self._put(parameters)
        self._module.train()
        self._module.lazy_reset_grad()
        outputs = self._module(*batch)
        for name, view in self._layout.split(gradients).items():
            view[...] = self._state.parameters[name].grad
        return float(outputs[0] if isinstance(outputs, tuple | list) else outputs)

    def judge(self, parameters: F32, statistics: F32, batch: Batch) -> tuple[float, F32]:  # noqa: ARG002 (as above)
        self._put(parameters)
        self._module.eval()
        outputs = self._module(*batch)
        return float(outputs[0]), outputs[1]

    def _put(self, parameters: F32) -> None:
        for name, view in self._layout.split(parameters).items():
            self._state.parameters[name].data = view


def import_training() -> None:
    """Make `onnxruntime.training.api` and `.artifacts` importable, without torch and without telemetry.

    `onnxruntime.training` itself imports torch; its parts do not. An empty module of that name, with the
    real folder as its path, lets them be imported (measured on 1.19.2).

    Raises:
        TrainingError: the training package is missing, or another runtime overwrites it.
    """
    onnxruntime = runtime.load()
    folder = Path(onnxruntime.__file__).parent / "training"
    if not folder.is_dir():
        raise TrainingError(
            "ONNX Runtime training is not installed: pip install '.[build]' in the clone (x86-64, Python 3.11 or 3.12),"
            " in an environment without onnxruntime"
        )
    if "onnxruntime.training" not in sys.modules and importlib.util.find_spec("torch") is None:
        package = types.ModuleType("onnxruntime.training")
        package.__path__ = [str(folder)]
        sys.modules["onnxruntime.training"] = package
        onnxruntime.training = package
