"""Gather, slice, split and concatenation: gradients are added where values were taken from."""

from collections.abc import Sequence

import numpy as np

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers

# Exporters write "to the end" as the largest integer, or as a thousand million.
_WHOLE = 10**9


def gather_adjoint(b: Builder, shape: str, rank: int, indices: str, dy: str, axis: int) -> str:
    """Zeros of `shape` with dY added along `axis` at `indices`, which may repeat.

    ScatterElements, never ScatterND (see pool.py); it wants an index for every element of dY.
    """
    axis %= rank
    after = rank - axis - 1
    index_rank = b.rank(indices)
    if index_rank == 0:
        dy = b.op("Unsqueeze", dy, b.int64([axis]))
    elif index_rank > 1:
        # dY has the indices' axes in place of `axis`: they become one.
        tail = b.slice(b.op("Shape", dy), 0, axis + index_rank, axis + index_rank + after)
        dy = b.reshape(dy, b.op("Concat", b.int64([0] * axis + [-1]), tail, axis=0))
    flat = b.reshape(indices, [1] * axis + [-1] + [1] * after)
    stretched = flat if rank == 1 else b.op("Expand", flat, b.op("Shape", dy))
    return b.op("ScatterElements", b.zeros(shape), stretched, dy, axis=axis, reduction="add")


@lowers("GatherNDGrad")
def _gather_nd(b: Builder, node: Node) -> Sequence[str]:
    """Zeros of `shape` with the slices of dY added at the positions that the last axis of `indices` names."""
    shape, indices, dy = node.inputs
    batch_dims = node.attribute("batch_dims", 0)
    if batch_dims > 1:
        raise node.refuse(f"batch_dims {batch_dims} is not supported, 0 and 1 are: reshape before and after")
    x = b.producer(shape).input[0]
    index_rank = b.rank(indices)
    (width,) = b.fixed(indices, [index_rank - 1], "GatherND")
    if batch_dims:
        first = b.op("Range", b.int64(0), b.op("Squeeze", b.slice(shape, 0, 0, 1), b.int64([0])), b.int64(1))
        like = b.op("Concat", b.slice(b.op("Shape", indices), 0, 0, index_rank - 1), b.int64([1]), axis=0)
        first = b.op("Expand", b.reshape(first, [-1] + [1] * (index_rank - 1)), like)
        indices, width = b.op("Concat", first, indices, axis=-1), width + 1
    sizes = b.slice(shape, 0, 0, width)
    positive = b.op("Where", b.op("Less", indices, b.int64(0)), b.op("Add", indices, sizes), indices)
    strides = np.cumprod([1, *reversed(b.fixed(x, range(1, width), "GatherND"))])[::-1]
    rows = b.reduce("ReduceSum", b.op("Mul", positive, b.int64(strides.tolist())), [-1], keepdims=False)
    rank = b.rank(x)
    rest = b.slice(shape, 0, width, rank)
    flat_shape = b.op("Concat", b.reduce("ReduceProd", sizes, [0], keepdims=True), rest, axis=0)
    values = b.reshape(dy, b.op("Concat", b.int64([-1]), rest, axis=0))
    added = gather_adjoint(b, flat_shape, rank - width + 1, b.reshape(rows, [-1]), values, 0)
    return [b.reshape(added, shape)]


@lowers("GatherGrad")
def _gather(b: Builder, node: Node) -> Sequence[str]:
    shape, indices, dy = node.inputs
    return [gather_adjoint(b, shape, b.fixed(shape, [0], "Gather")[0], indices, dy, node.attribute("axis", 0))]


@lowers("GatherElementsGrad")
def _gather_elements(b: Builder, node: Node) -> Sequence[str]:
    dy, shape, indices = node.inputs
    axis = node.attribute("axis", 0)
    return [b.op("ScatterElements", b.zeros(shape), indices, dy, axis=axis, reduction="add")]


@lowers("SliceGrad")
def _slice(b: Builder, node: Node) -> Sequence[str]:
    """Padding with zeros where the step is 1, scattering along the axis elsewhere."""
    made, shape = node.inputs[:2]
    x = b.producer(shape).input[0]
    rank = b.rank(x)
    bounds = [b.value_of(node.input(index)) if node.input(index) else None for index in range(2, 6)]
    starts, ends = bounds[:2]
    if starts is None or ends is None or (node.input(4) and bounds[2] is None) or (node.input(5) and bounds[3] is None):
        raise node.refuse("its bounds must be constants of the graph: export the model with fixed dimensions")
    axes = np.arange(len(starts)) if bounds[2] is None else bounds[2] % rank
    steps = np.ones(len(starts), np.int64) if bounds[3] is None else bounds[3]
    pads = np.zeros((2, rank), np.int64)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if (start, step) == (0, 1) and end >= _WHOLE:
            continue
        (size,) = b.fixed(x, [int(axis)], "a slice")
        taken = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if step == 1:
            pads[:, axis] = taken.start, size - taken.stop if taken else size - taken.start
            continue
        dims = b.op("Shape", made)
        parts = [b.slice(dims, 0, 0, int(axis)), b.int64([size]), b.slice(dims, 0, int(axis) + 1, rank)]
        made = gather_adjoint(b, b.op("Concat", *parts, axis=0), rank, b.int64(list(taken)), made, int(axis))
    return [b.op("Pad", made, b.int64(pads.ravel().tolist())) if pads.any() else made]


@lowers("ConcatTraining")
def _concat(b: Builder, node: Node) -> Sequence[str | None]:
    axis = node.attribute("axis", 0)
    made = b.op("Concat", *node.inputs, axis=axis)
    if not node.wants(1):
        return [made, None]
    sizes = [b.shape(each)[axis] for each in node.inputs]
    if all(isinstance(size, int) for size in sizes):
        return [made, b.int64([int(size or 0) for size in sizes])]
    at = axis % b.rank(node.inputs[0])
    return [made, b.op("Concat", *(b.slice(b.op("Shape", each), 0, at, at + 1) for each in node.inputs), axis=0)]


@lowers("SplitTraining")
def _split(b: Builder, node: Node) -> Sequence[str]:
    return b.ops("Split", node.inputs[:2], len(node.outputs), axis=node.attribute("axis", 0))


@lowers("Trilu")
def _trilu(b: Builder, node: Node) -> Sequence[str]:
    return [b.op("Trilu", *node.inputs, upper=node.attribute("upper", 1))]
