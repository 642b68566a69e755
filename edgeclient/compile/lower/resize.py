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


@lowers("ResizeGrad")
def _resize(b: Builder, node: Node) -> Sequence[str]:
    """Every spatial axis is contracted with its matrix."""
    dy, x = node.inputs[:2]
    mode = node.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise node.refuse("tf_crop_and_resize is not supported: crop with Slice, then Resize")
    rank = b.rank(x)
    sizes = [1, 1, *b.fixed(x, range(2, rank), "Resize")]
    y_shape = [1, 1, *b.fixed(dy, range(2, rank), "Resize")]
    given = b.value_of(node.input(3)) if node.input(3) else None
    scales = [made / size for made, size in zip(y_shape, sizes, strict=True)]
    if given is not None and given.size:
        scales = [float(each) for each in given]
        if any(scale != 1 for scale in scales[:2]):
            raise node.refuse("batch and channel axes cannot be resized")
    attributes = {name: value for name in _ATTRIBUTES if (value := node.attribute(name, None)) is not None}
    for axis, size in enumerate(sizes):
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
    return [dy]
