"""Resize, one axis at a time: each is a small matrix of interpolation weights."""

from typing import Any

import numpy as np

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array


def _source(positions: Array, old: int, new: int, scale: float, mode: str) -> Array:
    """Where output positions lie in the input's coordinates."""
    match mode:
        case "half_pixel":
            return (positions + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            return old / 2 * (1 - new / (scale * old)) + (positions + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (positions + 0.5) / scale - 0.5 if new > 1 else np.zeros_like(positions)
        case "align_corners":
            return positions * (old - 1) / (new - 1) if new > 1 else np.zeros_like(positions)
        case "asymmetric":
            return positions / scale
    raise CompileError(f"Resize with coordinate_transformation_mode {mode} is not evaluated in float64")


def _nearest(at: Array, how: str) -> Array:
    match how:
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
        case "round_prefer_ceil":
            return np.floor(at + 0.5)
        case _:
            return np.ceil(at - 0.5)


def _taps(at: Array, a: dict[str, Any]) -> tuple[Array, Array]:
    """Neighbours (out, taps) that an output reads, beyond the edge too, and their weights."""
    if a["mode"] == "nearest":
        return _nearest(at, a["nearest_mode"])[:, None].astype(int), np.ones((len(at), 1))
    low = np.floor(at).astype(int)
    t = at - low
    if a["mode"] == "linear":
        return low[:, None] + np.arange(2), np.stack([1 - t, t], 1)
    k = float(a["cubic_coeff_a"])

    def near(d: Array) -> Array:  # |d| ≤ 1
        return ((k + 2) * d - (k + 3)) * d * d + 1

    def far(d: Array) -> Array:  # 1 < |d| < 2
        return ((k * d - 5 * k) * d + 8 * k) * d - 4 * k

    return low[:, None] + np.arange(-1, 3), np.stack([far(1 + t), near(t), near(1 - t), far(2 - t)], 1)


def _matrix(old: int, new: int, scale: float, a: dict[str, Any]) -> Array:
    """(new, old) interpolation weights."""
    at = _source(np.arange(new, dtype=np.float64), old, new, scale, a["coordinate_transformation_mode"])
    taps, weights = _taps(at, a)
    if a["exclude_outside"]:
        weights = np.where((taps >= 0) & (taps < old), weights, 0)
        weights /= weights.sum(1, keepdims=True)
    made = np.zeros((new, old))
    np.add.at(made, (np.arange(new)[:, None], np.clip(taps, 0, old - 1)), weights)
    return made


@evaluates("Resize")
def resize(
    x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None, **a: Any
) -> tuple[Array, ...]:
    """Nearest, linear or cubic, by scales or to sizes (opset 11 on).

    Raises:
        CompileError: crops, antialiasing, or an aspect ratio to keep.
    """
    del roi
    if a["antialias"] or (a["keep_aspect_ratio_policy"] or "stretch") != "stretch":
        raise CompileError("Resize with antialias or keep_aspect_ratio_policy is not evaluated in float64")
    axes = [axis % x.ndim for axis in a["axes"]] if a["axes"] else list(range(x.ndim))
    if sizes is not None and sizes.size:
        new = [int(each) for each in sizes]
        factors = [n / x.shape[axis] for n, axis in zip(new, axes, strict=True)]
    else:
        assert scales is not None
        factors = [float(each) for each in scales]
        new = [int(np.floor(x.shape[axis] * s)) for s, axis in zip(factors, axes, strict=True)]
    for axis, n, scale in zip(axes, new, factors, strict=True):
        if n != x.shape[axis] or scale != 1:
            x = np.moveaxis(np.moveaxis(x, axis, -1) @ _matrix(x.shape[axis], n, scale, a).T, -1, axis)
    return (x,)
