"""What every trainer does, whatever runs the graphs underneath."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeclient.train.data import Dataset

F32 = npt.NDArray[np.float32]


class TrainingError(Exception):
    """Training cannot be done; one line that says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train a round: learning rate, passes over the data, examples per step."""

    learning_rate: float
    epochs: int
    batch_size: int


@dataclass(frozen=True, slots=True, eq=False)
class LocalRound:
    """What a round came to.

    Attributes:
        delta: local - base, float32 (n,).
        num_examples: different examples behind it: one pass over the data.
        steps: optimiser steps.
        loss: mean over the last pass.
    """

    delta: F32
    num_examples: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on some data.

    Attributes:
        accuracy: fraction of labels hit; None when labels are no classes.
        loss: mean.
        num_examples: how many there were.
        majority: fraction of the most common label, what a constant answer would reach; None as above.
    """

    accuracy: float | None
    loss: float
    num_examples: int
    majority: float | None


class Trainer(Protocol):
    """Trains and evaluates the model of one bundle."""

    def train(self, parameters: F32, data: Dataset, plan: Plan, rng: np.random.Generator) -> LocalRound:
        """Train from `parameters` (n,), which are left as they are.

        Raises:
            TrainingError: the loss or the delta is not finite.
        """

    def evaluate(self, parameters: F32, data: Dataset) -> Evaluation:
        """Measure `parameters` (n,) on all of the data once."""
