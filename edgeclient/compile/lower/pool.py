"""Pooling: gradients go back to where the values came from."""

from collections.abc import Sequence

import numpy as np

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.conv import Geometry, geometry
from edgeclient.compile.lower.registry import lowers
from edgeclient.compress.arrays import F64, I64


def _scattered(b: Builder, values: str, indices: str, shape: str) -> str:
    """Zeros of `shape` with `values` added at flat `indices`.

    ScatterElements, never ScatterND: the latter loses additions to one place when it runs on several threads.
    """
    size = b.reduce("ReduceProd", shape, [0], keepdims=True)
    flat_values, flat_indices = (b.reshape(each, [-1]) for each in (values, indices))
    added = b.op("ScatterElements", b.zeros(size), flat_indices, flat_values, axis=0, reduction="add")
    return b.reshape(added, shape)


@lowers("AveragePoolGrad")
def _average_pool(b: Builder, node: Node) -> Sequence[str]:
    """Each input of a window gets dY / (inputs in that window), by a transposed convolution with ones."""
    if node.attribute("ceil_mode", 0):
        raise node.refuse("ceil_mode is not supported: export with explicit pads")
    x = b.forward(node, "AveragePool").input[0]
    form = geometry(b, node, node.attribute("kernel_shape", None), x)
    channels, *sizes = b.fixed(x, range(1, b.rank(x)), "average pooling")
    outputs = [
        (size + form.begin[i] + form.end[i] - form.span(i)) // form.strides[i] + 1 for i, size in enumerate(sizes)
    ]
    counts: F64 = np.ones(())
    for i, size in enumerate(sizes):
        inside = form.kernel[i] if node.attribute("count_include_pad", 0) else _inside(size, outputs[i], i, form)
        counts = np.multiply.outer(counts, np.broadcast_to(inside, outputs[i]))
    share = b.op("Mul", node.inputs[0], b.float(1 / counts if counts.min() < counts.max() else 1 / counts.max()))
    rest = [
        size + form.begin[i] + form.end[i] - ((outputs[i] - 1) * form.strides[i] + form.span(i))
        for i, size in enumerate(sizes)
    ]
    return [b.op(
        "ConvTranspose", share, b.float(np.ones((channels, 1, *form.kernel))), strides=list(form.strides),
        dilations=list(form.dilations), pads=form.pads, group=channels, output_padding=rest,
    )]  # fmt: skip


def _inside(size: int, outputs: int, axis: int, form: Geometry) -> I64:
    """How many positions of each window are no padding."""
    starts = np.arange(outputs) * form.strides[axis] - form.begin[axis]
    positions = starts[:, None] + np.arange(form.kernel[axis]) * form.dilations[axis]
    found: I64 = ((positions >= 0) & (positions < size)).sum(axis=1)
    return found


@lowers("MaxPoolGrad")
def _max_pool(b: Builder, node: Node) -> Sequence[str]:
    """dY at the flat positions of the maxima; where windows overlap, several are added."""
    dy, indices = node.inputs
    x = b.producer(indices).input[0]
    form = geometry(b, node, node.attribute("kernel_shape", None), x)
    shape = b.op("Shape", x)
    overlaps = any(form.span(axis) > stride for axis, stride in enumerate(form.strides))
    if overlaps or node.attribute("ceil_mode", 0) or any(form.pads):
        return [_scattered(b, dy, indices, shape)]
    return [b.op("MaxUnpool", dy, indices, shape, kernel_shape=list(form.kernel), strides=list(form.strides))]
