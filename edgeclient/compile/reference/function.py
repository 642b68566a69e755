"""Erf, Gelu, the logarithm of softmax and the cross-entropy made of it."""

import math
from typing import Any

import numpy as np

from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array


def _erf(x: Array) -> Array:
    # numpy has none; libm's, an element at a time, is exact and costs 60 ns.
    return np.fromiter(map(math.erf, x.reshape(-1).tolist()), np.float64, x.size).reshape(x.shape)


@evaluates("Erf")
def erf(x: Array, **_: Any) -> tuple[Array, ...]:
    """2/√π ∫₀ˣ exp(−t²) dt."""
    return (_erf(x),)


@evaluates("Gelu")
def gelu(x: Array, *, approximate: str, **_: Any) -> tuple[Array, ...]:
    """x Φ(x), or its approximation through tanh."""
    if approximate == "tanh":
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
    return (0.5 * x * (1 + _erf(x / math.sqrt(2))),)


def _log_softmax(x: Array, axis: int) -> Array:
    # Not log(softmax(x)): that is −∞ where softmax underflows.
    below = x - x.max(axis, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(axis, keepdims=True)))


@evaluates("LogSoftmax")
def log_softmax(x: Array, *, axis: int, **_: Any) -> tuple[Array, ...]:
    """Along one axis (opset 13 on)."""
    return (_log_softmax(x, axis),)


@evaluates("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(scores: Array, labels: Array, weight: Array | None = None, **a: Any) -> tuple[Array, ...]:
    """Scores (N, C, …), labels (N, …) → loss and log-probabilities; the mean is over the weights that count."""
    ignored, classes = a["ignore_index"], scores.shape[1]
    log_p = _log_softmax(scores, 1)
    counts = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    known = np.where(counts, labels, 0)
    weights = counts * (np.ones(classes) if weight is None else weight)[known]
    loss = -weights * np.take_along_axis(log_p, known[:, None], 1)[:, 0]
    if a["reduction"] == "mean":
        loss = loss.sum() / weights.sum()
    elif a["reduction"] == "sum":
        loss = loss.sum()
    return np.asarray(loss), log_p
