"""Gradients by ONNX Runtime's own training runtime, in a process of its own: some of its kernels end theirs.

`python -m edgeclient.compile.native_gradients ARTIFACTS BATCH.npz OUT.npz` writes the gradient of every trainable
parameter; BATCH.npz holds inputs and labels in the graph's order.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeclient.compress.arrays import F32, Array
from edgeclient.train.native import import_training
from edgeclient.train.trainer import TrainingError


def available() -> bool:
    """Whether the training package can be imported."""
    try:
        import_training()
    except TrainingError:
        return False
    return True


def native_gradients(files: Mapping[str, bytes], batch: Sequence[Array]) -> dict[str, F32] | None:
    """The gradients, by parameter; None when the runtime refused the artifacts or died."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, content in files.items():
            (place / name).write_bytes(content)
        np.savez(place / "batch.npz", *batch)
        command = [sys.executable, "-m", __name__, folder, str(place / "batch.npz"), str(place / "out.npz")]
        done = subprocess.run(command, capture_output=True, check=False, timeout=600)  # noqa: S603 (this module, this interpreter)
        if done.returncode:
            return None
        with np.load(place / "out.npz") as found:
            return {name: found[name] for name in found.files}


def main() -> None:
    """See above."""
    import_training()
    from onnxruntime.training import api  # noqa: PLC0415 (only after import_training)

    artifacts, source, target = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with np.load(source) as file:
        batch = [file[name] for name in file.files]
    state = api.CheckpointState.load_checkpoint(artifacts / "checkpoint")
    module = api.Module(artifacts / "training_model.onnx", state, artifacts / "eval_model.onnx")
    module.train()
    module(*batch)
    np.savez(target, **{name: each.grad for name, each in state.parameters if each.requires_grad})


if __name__ == "__main__":
    main()
