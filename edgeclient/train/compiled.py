"""Training with a compiled bundle on the plain ONNX Runtime: any board that has the wheel."""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient import files
from edgeclient.bundle import safetensors
from edgeclient.bundle.archive import EVAL, PARAMETERS, TRAINING
from edgeclient.bundle.layout import Parameter
from edgeclient.bundle.manifest import Buffer, Manifest, read_manifest
from edgeclient.compress.arrays import F32, Array
from edgeclient.train import runtime
from edgeclient.train.batches import Batch
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.trainer import TrainingError

_LOSS: Final = "loss"
_STATISTICS: Final = "local.f32"


def compiled_trainer(directory: Path, threads: int = 1) -> RoundTrainer:
    """A trainer for the bundle unpacked in `directory`, with so many threads for each operator.

    Raises:
        TrainingError: no runtime is installed, or it refuses the bundle.
    """
    runtime.check_runtimes()
    manifest = read_manifest(directory)
    return RoundTrainer(manifest, CompiledEngine(directory, manifest, threads), initial_statistics(directory, manifest))


def initial_statistics(directory: Path, manifest: Manifest) -> F32:
    """The bundle's running statistics that stay on a device, float32 (l,)."""
    local = manifest.local_buffers
    if not local:
        return np.zeros(0, np.float32)
    arrays = safetensors.decode((directory / PARAMETERS).read_bytes())
    return np.concatenate([arrays[each.name].ravel() for each in local])


class Statistics:
    """Those of one unpacked bundle that stay on the device, kept between rounds beside it.

    They are no part of any account: after a power cut the last round's may be missing, and training moves them again.
    """

    def __init__(self, bundle_directory: Path) -> None:
        self._directory = bundle_directory

    def load(self) -> F32:
        """The last round's, else the bundle's own; float32 (l,)."""
        initial = initial_statistics(self._directory, read_manifest(self._directory))
        path = self._directory / _STATISTICS
        if not initial.size or not path.is_file():
            return initial
        content = path.read_bytes()
        found = np.frombuffer(content, "<f4").astype(np.float32) if len(content) == initial.nbytes else initial
        return found if np.isfinite(found).all() else initial

    def save(self, statistics: F32) -> None:
        """Replace the file; nothing to do for bundles without local statistics."""
        if statistics.size:
            files.replace(self._directory / _STATISTICS, statistics.astype("<f4").tobytes())


class CompiledEngine:
    """See Engine; a session is made when it is first needed: training and evaluation seldom share a process."""

    def __init__(self, directory: Path, manifest: Manifest, threads: int) -> None:
        self._directory = directory
        self._manifest = manifest
        self._threads = threads
        self._sessions: dict[str, Any] = {}
        self._binding: Any = None
        self._loss = np.zeros((), np.float32)
        # What the binding points into must live as long as it does.
        self._bound: tuple[F32, ...] = ()
        self._next: F32 = np.zeros(0, np.float32)

    def begin(self, parameters: F32, statistics: F32, gradients: F32) -> None:
        session = self._session(TRAINING)
        self._binding = session.io_binding()
        self._next = np.empty_like(statistics)
        self._bound = (parameters, statistics, gradients, self._next)
        reads = {each.name for each in session.get_inputs()}
        trained, buffers = self._manifest.trained, self._manifest.buffers
        _bind_each(self._binding.bind_input, parameters, trained, reads)
        _bind_each(self._binding.bind_input, statistics, buffers, reads)
        makes = {each.name for each in session.get_outputs()}
        _bind_each(self._binding.bind_output, gradients, trained, makes, "_grad")
        _bind_each(self._binding.bind_output, self._next, buffers, makes, "_next")
        self._binding.bind_output(_LOSS, "cpu", 0, np.float32, [], self._loss.ctypes.data)

    def learn(self, batch: Batch) -> float:
        _, statistics, _, _ = self._bound
        for tensor, array in zip((*self._manifest.inputs, self._manifest.labels), batch, strict=True):
            self._binding.bind_input(tensor.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._run(lambda: self._session(TRAINING).run_with_iobinding(self._binding))
        statistics[:] = self._next
        return float(self._loss)

    def judge(self, parameters: F32, statistics: F32, batch: Batch) -> tuple[float, F32]:
        session = self._session(EVAL)
        tensors = (*self._manifest.inputs, self._manifest.labels)
        feeds = {tensor.name: array for tensor, array in zip(tensors, batch, strict=True)}
        feeds |= _views(parameters, self._manifest.trained) | _views(statistics, self._manifest.buffers)
        reads = {each.name for each in session.get_inputs()}
        made = self._run(lambda: session.run(None, {name: feeds[name] for name in reads}))
        return float(made[0]), made[1]

    def _session(self, name: str) -> Any:
        if name not in self._sessions:
            operators = self._manifest.operators if name == TRAINING else 0
            path, options = self._directory / name, runtime.session_options(self._threads, operators)
            try:
                self._sessions[name] = runtime.load().InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # noqa: BLE001 (onnxruntime raises its own types)
                raise TrainingError(f"ONNX Runtime refuses {path}: {_first_line(error)}") from None
        return self._sessions[name]

    @staticmethod
    def _run(step: Any) -> Any:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 (as above)
            raise TrainingError(f"ONNX Runtime failed in the training graph: {_first_line(error)}") from None


def _views(flat: F32, tensors: Iterable[Parameter | Buffer]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    at = 0
    for each in tensors:
        size = prod(each.shape)
        found[each.name] = flat[at : at + size].reshape(each.shape)
        at += size
    return found


def _bind_each(bind: Any, flat: F32, tensors: Iterable[Parameter | Buffer], wanted: set[str], ending: str = "") -> None:
    """Hand out the flat vector piece by piece, in place; a graph may lack pieces that it does not need."""
    for name, view in _views(flat, tensors).items():
        if f"{name}{ending}" in wanted:
            bind(f"{name}{ending}", "cpu", 0, np.float32, view.shape, view.ctypes.data)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
