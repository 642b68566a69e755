"""One optimiser step of compiled bundles, to compare processors with.

`python -m tools.training_steps BUNDLE_FOLDER …` writes `step.npz` (batch and expected move) into each folder with an
unpacked bundle and its `batch.npz`; `--golden` writes the demo bundle's into tests/data.
"""

import io
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np

from broker.demo import data as demo_data
from edgeclient.bundle import safetensors
from edgeclient.bundle.archive import PARAMETERS
from edgeclient.bundle.manifest import Optimiser, read_manifest
from edgeclient.compress.arrays import F32, Array
from edgeclient.train.batches import Batch
from edgeclient.train.compiled import CompiledEngine, initial_statistics
from edgeclient.train.optimiser import stepper

GOLDEN = Path(__file__).parents[1] / "tests/data/training-step.npz"
RATE = 0.01


def step(directory: Path, batch: Batch) -> F32:
    """How one step moves the trained parameters of an unpacked bundle, float32 (m,)."""
    manifest = read_manifest(directory)
    arrays = safetensors.decode((directory / PARAMETERS).read_bytes())
    start = np.concatenate([arrays[each.name].ravel() for each in manifest.trained])
    shared = [arrays[each.name].ravel() for each in manifest.buffers if each.policy == "shared"]
    statistics = np.concatenate([*shared, initial_statistics(directory, manifest)])
    parameters, gradients = start.copy(), np.zeros_like(start)
    engine = CompiledEngine(directory, manifest, threads=1)
    engine.begin(parameters, statistics, gradients)
    engine.learn(batch)
    # AdamW's first step is the sign of each gradient, and one that is zero but for rounding has a sign of its own on
    # every processor.
    stepper(Optimiser("sgd"), len(parameters)).step(parameters, gradients, RATE)
    moved: F32 = parameters - start
    return moved


def demo_step() -> tuple[str, F32]:
    """(SHA-256 of the demo bundle, how one step on 16 of the first device's windows moves it)."""
    content = demo_data.bundle_bytes()
    x, labels = demo_data.device_windows(1, 0)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            bundle.extractall(folder)
        batch = np.ascontiguousarray(x[:16], np.float32), np.ascontiguousarray(labels[:16], np.int64)
        return sha256(content).hexdigest(), step(Path(folder), batch)


def main() -> None:
    """See above."""
    if sys.argv[1:] == ["--golden"]:
        digest, moved = demo_step()
        np.savez_compressed(GOLDEN, digest=np.array(digest), moved=moved)
        return
    for folder in map(Path, sys.argv[1:]):
        with np.load(folder / "batch.npz") as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
        np.savez(folder / "step.npz", step(folder, tuple(arrays.values())))


if __name__ == "__main__":
    main()
