"""Training steps agree between processors: this one's against those that x86-64 took.

The demo bundle's step is committed. `tools/arm64` brings the zoo's, taken on its host, in the folder that
EDGECLIENT_STEPS names.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from edgeclient.compress.arrays import F32
from tools.training_steps import GOLDEN, demo_step, step

BROUGHT = os.environ.get("EDGECLIENT_STEPS")
FOLDERS = sorted(path.parent for path in Path(BROUGHT).glob("*/step.npz")) if BROUGHT else []


def close(found: F32, expected: F32) -> bool:
    """Within 1e-5 of the step's norm."""
    return bool(np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected))


def test_the_demo_bundle() -> None:
    digest, found = demo_step()
    with np.load(GOLDEN) as golden:
        assert str(golden["digest"]) == digest, "another bundle: python -m tools.training_steps --golden"
        assert close(found, golden["moved"])


if BROUGHT:

    @pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
    def test_the_zoo(folder: Path) -> None:
        with np.load(folder / "batch.npz") as batch, np.load(folder / "step.npz") as expected:
            assert close(step(folder, tuple(batch[name] for name in batch.files)), expected["arr_0"])
