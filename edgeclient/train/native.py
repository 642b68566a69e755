"""Training with ONNX Runtime's own training API (onnxruntime-training-cpu 1.19.2; x86-64, Python <= 3.12)."""

import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgeclient.train.data import EVALUATION_BATCH, Dataset
from edgeclient.train.trainer import Evaluation, LocalRound, Plan, TrainingError
from edgeclient.wire.bundle import MANIFEST, Manifest, read_manifest

F32 = npt.NDArray[np.float32]
_QUIET: Final = 3  # ONNX Runtime's "error": one level below, it logs dozens of lines a model


class NativeTrainer:
    """A bundle's model on the ORT training API.

    Args:
        directory: of the unpacked bundle.
        threads: for each operator.

    Raises:
        TrainingError: the training package is missing, or another runtime overwrites it.
    """

    def __init__(self, directory: Path, threads: int = 1) -> None:
        self._manifest: Manifest = read_manifest((directory / MANIFEST).read_bytes())
        api, options = _training_api(), _session_options(threads)
        native = directory / "native"
        try:
            self._state: Any = api.CheckpointState.load_checkpoint(native / "checkpoint")
            self._module: Any = api.Module(
                native / "training_model.onnx", self._state, native / "eval_model.onnx", session_options=options
            )
            self._optimiser: Any = api.Optimizer(native / "optimizer_model.onnx", self._module)
        except Exception as error:  # noqa: BLE001 (onnxruntime raises its own types, and RuntimeError)
            raise TrainingError(f"ONNX Runtime refuses the bundle in {directory}: {error}") from None

    def train(self, parameters: F32, data: Dataset, plan: Plan, rng: np.random.Generator) -> LocalRound:
        """See Trainer."""
        self._put(parameters)
        self._module.train()
        self._optimiser.set_learning_rate(plan.learning_rate)
        examples = steps = 0
        loss = float("nan")
        for _ in range(plan.epochs):
            examples, total = 0, 0.0
            for batch in data.batches(plan.batch_size, rng):
                total += self._loss(self._module(*batch)) * len(batch[-1])
                self._optimiser.step()
                self._module.lazy_reset_grad()
                examples += len(batch[-1])
                steps += 1
            loss = total / examples
        delta = self._get() - parameters
        if not (np.isfinite(loss) and np.isfinite(delta).all()):
            raise TrainingError(f"loss {loss}: the parameters diverge; a smaller learning rate may help")
        return LocalRound(delta, examples, steps, loss)

    def evaluate(self, parameters: F32, data: Dataset) -> Evaluation:
        """See Trainer."""
        self._put(parameters)
        self._module.eval()
        total, hits = 0.0, 0
        counts: npt.NDArray[np.int64] = np.zeros(self._manifest.classes or 0, np.int64)
        examples = 0
        for batch in data.batches(EVALUATION_BATCH, None):
            outputs = self._module(*batch)
            labels = batch[-1]
            total += self._loss(outputs) * len(labels)
            examples += len(labels)
            if self._manifest.classes is not None:
                hits += int((outputs[1].argmax(axis=1) == labels).sum())
                counts += np.bincount(labels, minlength=counts.size)
        if self._manifest.classes is None:
            return Evaluation(None, total / examples, examples, None)
        return Evaluation(hits / examples, total / examples, examples, int(counts.max()) / examples)

    def _put(self, parameters: F32) -> None:
        for name, values in self._manifest.layout.split(parameters).items():
            self._state.parameters[name].data = values

    def _get(self) -> F32:
        return self._manifest.layout.flatten(dict(self._named()))

    def _named(self) -> Iterator[tuple[str, F32]]:
        for parameter in self._manifest.layout.parameters:
            yield parameter.name, self._state.parameters[parameter.name].data

    @staticmethod
    def _loss(outputs: Any) -> float:
        return float(outputs[0] if isinstance(outputs, tuple | list) else outputs)


def _session_options(threads: int) -> Any:
    import onnxruntime  # noqa: PLC0415 (after the checks of _training_api; 64 MiB, only when training)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    return options


def _training_api() -> Any:
    import_training()
    return importlib.import_module("onnxruntime.training.api")


def import_training() -> None:
    """Make `onnxruntime.training.api` and `.artifacts` importable, without torch and without telemetry.

    `onnxruntime.training` itself imports torch; its parts do not. An empty module of that name, with the
    real folder as its path, lets them be imported (measured on 1.19.2).

    Raises:
        TrainingError: the training package is missing, or another runtime overwrites it.
    """
    # A broken installation leaves folders whose metadata have no name.
    check_runtimes({(each.metadata["Name"] or "").lower() for each in metadata.distributions()})
    # A product that promises privacy does not phone home; read at the first import, for the process's life.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415 (as above)

    onnxruntime.set_default_logger_severity(_QUIET)
    if "onnxruntime.training" not in sys.modules and importlib.util.find_spec("torch") is None:
        package = types.ModuleType("onnxruntime.training")
        package.__path__ = [str(Path(onnxruntime.__file__).parent / "training")]
        sys.modules["onnxruntime.training"] = package
        onnxruntime.training = package


def check_runtimes(installed: set[str]) -> None:
    """TrainingError unless exactly the training runtime is among the installed distributions."""
    training = installed & {"onnxruntime-training-cpu", "onnxruntime-training"}
    if training and "onnxruntime" in installed:
        raise TrainingError(
            f"onnxruntime and {min(training)} are both installed and overwrite each other's files: pip uninstall"
            f" both, then install one: pip install 'edgeclient[build]'"
        )
    if not training:
        raise TrainingError(
            "ONNX Runtime training is not installed: pip install 'edgeclient[build]' (x86-64, Python 3.11 or 3.12)"
        )
