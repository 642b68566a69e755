"""Training steps of the zoo, taken on this machine's processor, to compare the emulated one's with."""

import sys
from pathlib import Path
from typing import Final

import numpy as np

from tools.emulation.machine import EmulationError
from tools.output import output
from tools.zoo import ZOO

NATIVE: Final = Path(".venv-native/bin/python")
_BATCH: Final = 8
_LIMIT_S: Final = 300


def sources(checkout: Path) -> list[Path]:
    """The files that decide what the steps are."""
    folders = [checkout / "edgeclient" / name for name in ("compile", "train", "wire")]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted(found) + [checkout / "tools" / f"{name}.py" for name in ("bundles", "training_steps", "zoo")]


def take(folder: Path) -> None:
    """For each model of the zoo a folder: its bundle, unpacked, `batch.npz` and `step.npz`.

    Raises:
        EmulationError: the zoo's bundles cannot be made.
    """
    output([NATIVE, "-m", "tools.bundles", "zoo", folder], EmulationError, limit_s=_LIMIT_S)
    for name, entry in ZOO.items():
        np.savez(folder / name / "batch.npz", *entry.batch(_BATCH, np.random.default_rng(0)))
    take_steps = [sys.executable, "-m", "tools.training_steps"]
    output([*take_steps, *(folder / name for name in ZOO)], EmulationError, limit_s=_LIMIT_S)
