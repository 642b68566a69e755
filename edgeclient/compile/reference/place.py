"""Gathering, scattering and unpooling: values by computed places."""

import math
from typing import Any, Final

import numpy as np

from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array

_REDUCTIONS: Final[dict[str, Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _scatter(y: Array, places: tuple[Array, ...], updates: Array, reduction: str | None) -> None:
    if reduction in {None, "none"}:
        y[places] = updates
    else:
        _REDUCTIONS[str(reduction)].at(y, places, updates)


def _along(indices: Array, axis: int, size: int) -> tuple[Array, ...]:
    """Indices of every axis that read `indices` at one of them; negative ones count from the end."""
    grid: list[Array] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = np.where(indices < 0, indices + size, indices)
    return tuple(grid)


@evaluates("GatherElements")
def gather_elements(data: Array, indices: Array, *, axis: int, **_: Any) -> tuple[Array, ...]:
    """y[i, j, …] = data[indices[i, j, …], j, …] for axis 0, and so on; indices may be smaller than data."""
    return (data[_along(indices, axis, data.shape[axis])],)


@evaluates("ScatterElements")
def scatter_elements(data: Array, indices: Array, updates: Array, **a: Any) -> tuple[Array, ...]:
    """A copy of data with y[indices[i, j, …], j, …] set to, or reduced with, updates[i, j, …]."""
    y = data.copy()
    _scatter(y, _along(indices, a["axis"], data.shape[a["axis"]]), updates, a["reduction"])
    return (y,)


@evaluates("GatherND")
def gather_nd(data: Array, indices: Array, *, batch_dims: int, **_: Any) -> tuple[Array, ...]:
    """y[…] = data[b…, indices[b…, …, :]] for the leading batch axes b."""
    batch = data.shape[:batch_dims]
    rows = np.arange(math.prod(batch)).reshape(*batch, *[1] * (indices.ndim - 1 - batch_dims))
    flat = data.reshape(-1, *data.shape[batch_dims:])
    return (flat[(rows, *np.moveaxis(indices, -1, 0))],)


@evaluates("ScatterND")
def scatter_nd(data: Array, indices: Array, updates: Array, **a: Any) -> tuple[Array, ...]:
    """A copy of data with y[indices[…, :]] set to, or reduced with, updates[…]."""
    y = data.copy()
    _scatter(y, tuple(np.moveaxis(indices, -1, 0)), updates, a["reduction"])
    return (y,)


@evaluates("MaxUnpool")
def max_unpool(x: Array, indices: Array, output_shape: Array | None = None, **a: Any) -> tuple[Array, ...]:
    """Zeros of the shape that the pool read, with x at the flat places `indices` of it."""
    rank = x.ndim - 2
    if output_shape is not None:
        shape = tuple(int(each) for each in output_shape)
    else:
        stride, pads = a["strides"] or [1] * rank, a["pads"] or [0] * (2 * rank)
        sizes = zip(x.shape[2:], stride, a["kernel_shape"], pads[:rank], pads[rank:], strict=True)
        shape = (*x.shape[:2], *[(n - 1) * s + k - b - e for n, s, k, b, e in sizes])
    y = np.zeros(shape)
    y.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
    return (y,)


@evaluates("OneHot")
def one_hot(indices: Array, depth: Array, values: Array, *, axis: int, **_: Any) -> tuple[Array, ...]:
    """`values` (off, on) with on at the index along a new axis; an index out of range leaves all off."""
    size = int(np.asarray(depth).reshape(()))
    places = np.where(indices < 0, indices + size, indices)
    places = np.expand_dims(places, axis)
    at = axis % places.ndim
    columns = np.arange(size).reshape(*[1] * at, -1, *[1] * (places.ndim - 1 - at))
    return (np.where(places == columns, values[1], values[0]),)
