"""The optimisers of ONNX Runtime's training artifacts, in NumPy, in place on the flat vector.

State is fresh for every round: the base has changed, and what moments knew of the old one misleads.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compress.arrays import F32

# 256 KiB of each array: a block's passes stay in the cache of a Cortex-A72.
_BLOCK: Final = 1 << 16


class Stepper(Protocol):
    """Moves parameters."""

    def step(self, parameters: F32, gradients: F32, rate: float) -> None:
        """Update `parameters` (m,) in place; `gradients` (m,) are scratch afterwards."""


def stepper(described: Optimiser, size: int) -> Stepper:
    """A fresh optimiser for m = size parameters.

    Example:
        >>> parameters = np.ones(2, np.float32)
        >>> stepper(Optimiser("sgd"), 2).step(parameters, np.ones(2, np.float32), 0.5)
        >>> parameters.tolist()
        [0.5, 0.5]
    """
    return _AdamW(described, size) if described.name == "adamw" else _Sgd(described.momentum, size)


class _Sgd:
    """p ← p − rate·v, v ← momentum·v + g (SGDOptimizerV2 when momentum is 0)."""

    def __init__(self, momentum: float, size: int) -> None:
        self._momentum = np.float32(momentum)
        self._velocity = np.zeros(size, np.float32) if momentum else None

    def step(self, parameters: F32, gradients: F32, rate: float) -> None:
        direction = gradients
        if self._velocity is not None:
            self._velocity *= self._momentum
            self._velocity += gradients
            direction = self._velocity
        np.multiply(direction, np.float32(rate), out=gradients)
        parameters -= gradients


class _AdamW:
    """AdamWOptimizer of ONNX Runtime 1.19.2, adam_mode 1 (decay last, the artifacts' own) and 0 (decay first)."""

    def __init__(self, described: Optimiser, size: int) -> None:
        self._described = described
        self._first = np.zeros(size, np.float32)
        self._second = np.zeros(size, np.float32)
        self._scratch = np.empty(min(size, _BLOCK), np.float32)
        self._steps = 0

    def step(self, parameters: F32, gradients: F32, rate: float) -> None:
        of = self._described
        self._steps += 1
        correction_1 = 1 - of.beta1**self._steps if of.correct_bias else 1.0
        correction_2 = 1 - of.beta2**self._steps if of.correct_bias else 1.0
        kept = np.float32(1 - rate * of.weight_decay)
        for block in _blocks(len(parameters)):
            p, g, m, v = parameters[block], gradients[block], self._first[block], self._second[block]
            scratch = self._scratch[: len(p)]
            m *= np.float32(of.beta1)
            np.multiply(g, np.float32(1 - of.beta1), out=scratch)
            m += scratch
            v *= np.float32(of.beta2)
            np.multiply(g, g, out=g)
            g *= np.float32(1 - of.beta2)
            v += g
            if of.decay_first and of.weight_decay:
                p *= kept
            if of.decay_first:
                # rate / (1 − β1ᵗ) · m / (√(v / (1 − β2ᵗ)) + ε)
                np.multiply(v, np.float32(1 / correction_2), out=scratch)
                np.sqrt(scratch, out=scratch)
                size = rate / correction_1
            else:
                # rate · √(1 − β2ᵗ) / (1 − β1ᵗ) · m / (√v + ε)
                np.sqrt(v, out=scratch)
                size = rate * correction_2**0.5 / correction_1
            scratch += np.float32(of.epsilon)
            np.divide(m, scratch, out=scratch)
            scratch *= np.float32(size)
            p -= scratch
            if of.weight_decay and not of.decay_first:
                p *= kept


def _blocks(size: int) -> Iterator[slice]:
    for first in range(0, size, _BLOCK):
        yield slice(first, min(first + _BLOCK, size))
