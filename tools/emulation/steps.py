"""Training steps of the zoo, taken on this machine's processor, to compare the emulated one's with."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from tools.zoo import ZOO

NATIVE: Final = Path(".venv-native/bin/python")
_BATCH: Final = 8
_LIMIT_S: Final = 300


class StepsError(Exception):
    """The zoo's bundles cannot be made; the last line that was said."""


def sources(checkout: Path) -> list[Path]:
    """The files that decide what the steps are."""
    folders = [checkout / "edgeclient" / name for name in ("compile", "train", "wire")]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted(found) + sorted((checkout / "tools").glob("zoo*.py")) + [checkout / "tools/training_steps.py"]


def take(folder: Path) -> None:
    """For each model of the zoo a folder: its bundle, unpacked, `batch.npz` and `step.npz`.

    Raises:
        StepsError: see there.
    """
    _run([str(NATIVE), "-m", "tools.zoo_bundles", str(folder)])
    for name, entry in ZOO.items():
        np.savez(folder / name / "batch.npz", *entry.batch(_BATCH, np.random.default_rng(0)))
    _run([sys.executable, "-m", "tools.training_steps", *(str(folder / name) for name in ZOO)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode:
        raise StepsError(f"{' '.join(command[:3])}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
