"""Which trainer a device's configuration asks for."""

from pathlib import Path
from typing import Literal

from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.native import native_trainer
from edgeclient.train.trainer import Trainer


def open_trainer(directory: Path, runtime: Literal["compiled", "native"] = "compiled", threads: int = 1) -> Trainer:
    """A trainer for the bundle unpacked in `directory`.

    Raises:
        TrainingError: the runtime is missing, or refuses the bundle.
    """
    return {"compiled": compiled_trainer, "native": native_trainer}[runtime](directory, threads)
