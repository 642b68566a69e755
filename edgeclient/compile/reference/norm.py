"""Normalisation by batch and by group."""

from typing import Any

import numpy as np

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array


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
