"""Resize is linear and separable: its adjoint multiplies by the transposed matrix of each axis."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgeclient.compile.errors import CompileError
from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers
from edgeclient.compress.arrays import F32

_ATTRIBUTES = {"coordinate_transformation_mode", "mode", "nearest_mode", "cubic_coeff_a", "exclude_outside"}


def resize_matrix(size: int, scale: float, made: int, **attributes: str | float) -> F32:
    """R (made, size) with resized = R · line, found by resizing the unit vectors."""
    inputs = ["x", "", "scales"]
    node = helper.make_node("Resize", inputs, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, made])],
        [helper.make_tensor("scales", TensorProto.FLOAT, [2], [1.0, scale])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (found,) = ReferenceEvaluator(model).run(None, {"x": np.eye(size, dtype=np.float32)})
    if found.shape != (size, made):
        raise CompileError(f"Resize: {size} positions times {scale} are {found.shape[1]}, not {made}")
    return np.ascontiguousarray(found.T, np.float32)


def resize_adjoint(
    b: Builder, dy: str, x: str, y_shape: Sequence[int], scales: Sequence[float], **attributes: str | float
) -> str:
    """Contract every spatial axis with its matrix; y_shape and scales are those of all axes."""
    rank = b.rank(x)
    for axis in range(2, rank):
        (size,) = b.fixed(x, [axis], "Resize")
        if size == y_shape[axis] and scales[axis] == 1:
            continue
        matrix = resize_matrix(size, scales[axis], y_shape[axis], **attributes)
        if axis == rank - 1:
            dy = b.op("MatMul", dy, b.float(matrix))
        elif axis == rank - 2:
            dy = b.op("MatMul", b.float(matrix.T), dy)
        else:
            last = [each for each in range(rank) if each != axis] + [axis]
            back = [last.index(each) for each in range(rank)]
            dy = b.transpose(b.op("MatMul", b.transpose(dy, last), b.float(matrix)), back)
    return dy


@lowers("ResizeGrad")
def _resize(b: Builder, node: Node) -> Sequence[str]:
    dy, x = node.inputs[:2]
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise node.refuse("tf_crop_and_resize is not supported: crop with Slice, then Resize")
    rank = b.rank(x)
    sizes = b.shape(x)
    resized = [axis for axis in range(rank) if axis >= 2]
    b.fixed(x, resized, "Resize")
    y_shape = [0 if axis < 2 else b.fixed(dy, [axis], "Resize")[0] for axis in range(rank)]
    given = b.value_of(node.input(3)) if node.input(3) else None
    if given is not None and given.size and any(scale != 1 for scale in given[:2]):
        raise node.refuse("batch and channel axes cannot be resized")
    if given is not None and given.size:
        scales = [float(each) for each in given]
    else:
        scales = [1.0 if axis < 2 else y_shape[axis] / int(sizes[axis] or 1) for axis in range(rank)]
    attributes = {name: value for name in _ATTRIBUTES if (value := node.attribute(name, None)) is not None}
    return [resize_adjoint(b, dy, x, y_shape, scales, **attributes)]
