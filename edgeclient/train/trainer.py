"""What a round of local training is, whatever runs the graphs underneath."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgeclient.compress.arrays import F32, I64
from edgeclient.train.batches import Dataset


class TrainingError(Exception):
    """Training cannot be done; one line that says what is wrong and what to do."""


class Interrupted(TrainingError):
    """Conditions ended before a first step was done; nothing was learnt and nothing is lost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train a round.

    Attributes:
        learning_rate: of the bundle's optimiser.
        epochs: passes over the data.
        batch_size: examples per optimiser step.
        micro_batch: examples that fit into memory at once; a step accumulates the gradients of several.
        clip_norm: a longer gradient is scaled down to this Euclidean norm; None leaves it.
        max_steps: optimiser steps after which the round ends; None for no limit.
        max_seconds: time after which no further step begins; None for no limit.
        proceed: asked before each step (and each part of one) whether training may go on; None for always.
        duty: share of the time that steps may take; the rest is slept.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    micro_batch: int | None = None
    clip_norm: float | None = None
    max_steps: int | None = None
    max_seconds: float | None = None
    proceed: Callable[[], bool] | None = None
    duty: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LocalRound:
    """What a round came to.

    Attributes:
        delta: local - base, float32 (n,); 0 where values are absolute.
        num_examples: different examples behind it: one pass over the data, or what a limit left of it.
        steps: optimiser steps.
        share: of the work that was asked for, the part that the time allowed; 1 without a time limit.
        loss: mean over the last pass.
        local: running statistics that stay on the device, float32 (l,), for the next round.
        absolute: what travels as it is, float32 (a,), within its bounds.
        places: coordinates of that, int64 (a,).
    """

    delta: F32
    num_examples: int
    steps: int
    share: float
    loss: float
    local: F32
    absolute: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    places: I64 = field(default_factory=lambda: np.empty(0, np.int64))

    def applied_to(self, parameters: F32) -> F32:
        """What was trained, float32 (n,), from the parameters (n,) that it began with."""
        trained: F32 = parameters + self.delta
        trained[self.places] = self.absolute
        return trained


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

    def train(
        self, parameters: F32, data: Dataset, plan: Plan, rng: np.random.Generator, local: F32 | None = None
    ) -> LocalRound:
        """Train from `parameters` (n,), which are left as they are.

        Args:
            parameters: the flat vector of the bundle's layout.
            data: what to learn from.
            plan: how.
            rng: orders the examples.
            local: running statistics of the last round, None for the bundle's own.

        Raises:
            TrainingError: the loss or the delta is not finite.
            DataError: the data does not fit the model.
        """

    def evaluate(self, parameters: F32, data: Dataset, local: F32 | None = None) -> Evaluation:
        """Measure `parameters` (n,) on all of the data once."""
