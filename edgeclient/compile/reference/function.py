"""Sigmoid, Erf, Gelu, the logarithm of softmax and the cross-entropy made of it; normalisation by batch, by group."""

import math
from typing import Any

import numpy as np

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array


def _erf(x: Array) -> Array:
    # numpy has none; libm's, an element at a time, is exact and costs 60 ns.
    return np.fromiter(map(math.erf, x.reshape(-1).tolist()), np.float64, x.size).reshape(x.shape)


@evaluates("Sigmoid")
def sigmoid(x: Array, **_: Any) -> tuple[Array, ...]:
    """1 / (1 + exp(−x)); nothing overflows."""
    below = np.exp(-np.abs(x))
    return (np.where(x > 0, 1, below) / (1 + below),)


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


def _per_channel(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@evaluates("BatchNormalization")
def batch_normalization(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, **a: Any
) -> tuple[Array, ...]:
    """Inference: y. training_mode 1 (opset 14 on): y by the batch's statistics, running mean, running variance.

    Both variances are biased, as the specification has it since opset 14 and ONNX Runtime does.
    """
    running: tuple[Array, ...] = ()
    if a["training_mode"]:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        old, new = a["momentum"], 1 - a["momentum"]
        now = x.mean(axes), x.var(axes)
        running = mean * old + now[0] * new, variance * old + now[1] * new
        mean, variance = now
    scale = gamma / np.sqrt(variance + a["epsilon"])
    y = (x - _per_channel(mean, x)) * _per_channel(scale, x) + _per_channel(beta, x)
    return y, *running


@evaluates("GroupNormalization")
def group_normalization(x: Array, gamma: Array, beta: Array, **a: Any) -> tuple[Array, ...]:
    """Zero mean and unit variance per example and group; scale per channel, before opset 21 per group."""
    groups, channels = a["num_groups"], x.shape[1]
    if channels % groups:
        raise CompileError(f"GroupNormalization: {channels} channels do not make {groups} groups")
    parts = x.reshape(len(x), groups, -1)
    normal = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + a["epsilon"])
    gamma, beta = (np.repeat(each, channels // len(each)) for each in (gamma, beta))
    return (normal.reshape(x.shape) * _per_channel(gamma, x) + _per_channel(beta, x),)
