"""The server's optimiser: how the mean update moves the model."""

from dataclasses import dataclass

import numpy as np

from edgeclient.compress.arrays import F32, I64


@dataclass(frozen=True, slots=True)
class Sgd:
    """new = old + learning_rate · mean (FedAvg with learning rate 1, 1602.05629)."""

    learning_rate: float = 1.0

    def step(self, parameters: F32, total: I64, total_weight: int, scale_bits: int) -> F32:
        """New parameters, float32 (n,).

        Args:
            parameters: current version (n,).
            total: weighted sum in units of 2^-scale_bits (n,).
            total_weight: sum of the weights of the updates in the batch, at least 1.
            scale_bits: s.

        Raises:
            ValueError: a batch in which no update begins has no mean.

        Example:
            >>> Sgd().step(np.zeros(1, np.float32), np.array([3 << 26]), total_weight=2, scale_bits=26)
            array([1.5], dtype=float32)
        """
        if total_weight < 1:
            raise ValueError(f"total weight {total_weight}: no update begins in this batch")
        mean = np.ldexp(total.astype(np.float64), -scale_bits) / total_weight
        stepped = parameters.astype(np.float64) + self.learning_rate * mean
        largest = float(np.finfo(np.float32).max)
        return np.clip(stepped, -largest, largest).astype(np.float32)
