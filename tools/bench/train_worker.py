"""One trainer in a process of its own, for `tools.bench train`: steps on demand, CPU time back.

Loads no more than a device would, so that its memory can be compared. Standard input: numbers of steps; standard
output: a JSON object when ready, then one per line with CPU seconds per step.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgeclient.bundle import safetensors
from edgeclient.bundle.archive import PARAMETERS
from edgeclient.bundle.manifest import read_manifest
from edgeclient.compress.arrays import Array
from edgeclient.train import compiled, runtime
from edgeclient.train.native import FOLDER, import_training
from edgeclient.train.optimiser import stepper

Batch = tuple[Array, ...]
RATE = 1e-4


def compiled_step(directory: Path, batch: Batch) -> Callable[[], None]:
    """A step of the product: gradients on the plain runtime, the optimiser in NumPy."""
    manifest = read_manifest(directory)
    engine = compiled.CompiledEngine(directory, manifest, threads=1)
    arrays = safetensors.decode((directory / PARAMETERS).read_bytes())
    flat = np.concatenate([arrays[each.name].ravel() for each in manifest.trained])
    statistics = np.concatenate([arrays[each.name].ravel() for each in manifest.buffers] or [np.zeros(0, np.float32)])
    gradients = np.zeros_like(flat)
    optimiser = stepper(manifest.optimiser, len(flat))
    del arrays
    engine.begin(flat, statistics, gradients)

    def step() -> None:
        engine.learn(batch)
        optimiser.step(flat, gradients, RATE)

    return step


def native_step(directory: Path, batch: Batch) -> Callable[[], None]:
    """A step as ONNX Runtime's documentation writes it."""
    import_training()
    from onnxruntime.training import api  # noqa: PLC0415 (only after import_training)

    native = directory / FOLDER
    state = api.CheckpointState.load_checkpoint(native / "checkpoint")
    options = runtime.session_options(1)
    module = api.Module(native / "training_model.onnx", state, native / "eval_model.onnx", session_options=options)
    optimiser = api.Optimizer(native / "optimizer_model.onnx", module)
    optimiser.set_learning_rate(RATE)
    module.train()

    def step() -> None:
        module(*batch)
        optimiser.step()
        module.lazy_reset_grad()

    return step


def main() -> None:
    """Arguments: native or compiled, the unpacked bundle, an .npz file with the batch."""
    kind, directory, data = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with np.load(data) as file:
        batch = tuple(file[name] for name in file.files)
    began = time.perf_counter()
    step = {"native": native_step, "compiled": compiled_step}[kind](directory, batch)
    session_s = time.perf_counter() - began
    step()
    print(json.dumps({"session_s": session_s}), flush=True)
    for line in sys.stdin:
        count = int(line)
        before = time.process_time()
        for _ in range(count):
            step()
        spent = (time.process_time() - before) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"cpu_s": spent, "rss_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
