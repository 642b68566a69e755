"""The server's optimiser: how the mean update moves the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeclient.compress.arrays import F32, F64


@dataclass(frozen=True, slots=True)
class State:
    """What an optimiser keeps from version to version.

    Attributes:
        numbers: by name; recorded beside the version.
        content: arrays as bytes, kept in the registry; b"" for none.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Sgd:
    """new = old + learning_rate · mean (FedAvg with learning rate 1, 1602.05629); keeps nothing."""

    learning_rate: float = 1.0

    def step(self, parameters: F32, mean: F64, state: State) -> tuple[F32, State]:
        """New parameters, float32 (n,), and the next state.

        Args:
            parameters: current version (n,).
            mean: of the batch's updates by their weights (n,).
            state: after the current version.

        Example:
            >>> Sgd().step(np.zeros(1, np.float32), np.array([1.5]), State())[0]
            array([1.5], dtype=float32)
        """
        stepped = parameters.astype(np.float64) + self.learning_rate * mean
        largest = float(np.finfo(np.float32).max)
        return np.clip(stepped, -largest, largest).astype(np.float32), state
