"""The model as its user gave it, without what training moves: forward.onnx of a bundle."""

from collections.abc import Mapping
from typing import Final

import onnx
from onnx import TensorProto, numpy_helper

# Smaller constants stay inside the graphs: a header entry would cost as much as it saves.
EXTERNAL_BYTES: Final = 1024


def without(model: onnx.ModelProto, moving: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto | None:
    """`model` without these tensors, whose places their names keep.

    Exporters write some weights as Constant nodes: what is large or moves becomes an initialiser first.

    Args:
        model: forward, weights inside.
        moving: shapes of parameters and running statistics, by name.

    Returns:
        None when a tensor is not in the model as it is trained: the compiler had to rewrite it.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.initializer[:]
    values = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" and node.attribute[0].name == "value" else None
        if value is not None and (node.output[0] in moving or _is_large(value)):
            values[node.output[0]] = value
        else:
            made.graph.node.add().CopyFrom(node)
    for name, value in values.items():
        if name not in moving:
            made.graph.initializer.add().CopyFrom(value)
            made.graph.initializer[-1].name = name
        elif (value.data_type, tuple(value.dims)) != (TensorProto.FLOAT, moving[name]):
            return None
    return made if moving.keys() <= values.keys() else None


def _is_large(value: onnx.TensorProto) -> bool:
    return value.data_type == TensorProto.FLOAT and int(numpy_helper.to_array(value).nbytes) >= EXTERNAL_BYTES
