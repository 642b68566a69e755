"""Weights outside the graphs: frozen ones in a file that all graphs read, those that training moves in none."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeclient.bundle import archive
from edgeclient.compile.graph import copied, refill, with_initialisers
from edgeclient.compress.arrays import F32

# Smaller constants stay inside the graphs: a header entry would cost as much as it saves.
_EXTERNAL_BYTES: Final = 1024


def without(model: onnx.ModelProto, moving: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto | None:
    """The model as its user gave it, without these tensors, whose places their names keep: forward.onnx of a bundle.

    Exporters write some weights as Constant nodes: what is large or moves becomes an initialiser first.

    Args:
        model: forward, weights inside.
        moving: shapes of parameters and running statistics, by name.

    Returns:
        None when a tensor is not in the model as it is trained: the compiler had to rewrite it.
    """
    made = with_initialisers(model, lambda name, value: name in moving or _is_large(value))
    values = {each.name: each for each in made.graph.initializer}
    for name, shape in moving.items():
        if name not in values or (values[name].data_type, tuple(values[name].dims)) != (TensorProto.FLOAT, shape):
            return None
    refill(made.graph.initializer, [each for each in made.graph.initializer if each.name not in moving])
    return made


def _is_large(value: onnx.TensorProto) -> bool:
    return value.data_type == TensorProto.FLOAT and int(numpy_helper.to_array(value).nbytes) >= _EXTERNAL_BYTES


def externalised(model: onnx.ModelProto, frozen: dict[str, F32]) -> onnx.ModelProto:
    """Large float32 constants of all graphs go, once, into a file of their own."""
    made = copied(model)
    for tensor in made.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.nbytes < _EXTERNAL_BYTES or not np.isfinite(value).all():
            continue
        name = sha256(value.tobytes() + repr(value.shape).encode()).hexdigest()[:16]
        frozen[name] = value
        dims, own = list(tensor.dims), tensor.name
        tensor.Clear()
        tensor.name, tensor.data_type = own, TensorProto.FLOAT
        tensor.dims.extend(dims)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
    return made


def place(model: onnx.ModelProto, places: Mapping[str, tuple[int, int]]) -> None:
    """Say where in the file each of them lies: (offset, length) by the names that `externalised` gave."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            offset, length = places[tensor.external_data[0].value]
            del tensor.external_data[:]
            for key, value in (("location", archive.FROZEN), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
