"""Parameters out of an ONNX Runtime training checkpoint, without the training package.

The file is a flatbuffer (onnxruntime/core/flatbuffers/schema/ort_training_checkpoint.fbs): Checkpoint holds a
ModuleState, which holds two vectors of Tensor. Field numbers are those of the schema.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from edgeclient.compile.errors import CompileError
from edgeclient.compress.arrays import Array

_IDENTIFIER: Final = b"ODTC"
_DTYPES: Final = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


def read(data: bytes) -> tuple[dict[str, Array], dict[str, Array]]:
    """The trainable and the frozen parameters in `data`, in its order.

    Raises:
        CompileError: not a checkpoint, a truncated one, or one whose data lies in another file.
    """
    if len(data) < 8 or data[4:8] != _IDENTIFIER:
        raise CompileError("the checkpoint is not one of ONNX Runtime training 1.16 or later")
    try:
        root = Table(data, encode.Get(packer.uoffset, data, 0))
        state = _table(root, 6)
        if _flag(state, 10):
            raise CompileError("the checkpoint keeps its data in another file: save it again with its data inside")
        if _flag(state, 8):
            raise CompileError("the checkpoint is nominal, it has no values: give the complete one")
        return dict(_tensors(state, 4)), dict(_tensors(state, 6))
    except (struct.error, IndexError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise CompileError(f"the checkpoint cannot be read: {error}") from None


def _table(of: Table, field: int) -> Table:
    if not (offset := of.Offset(field)):
        raise ValueError("it holds no model")
    return Table(of.Bytes, of.Indirect(offset + of.Pos))


def _flag(of: Table, field: int) -> bool:
    offset = of.Offset(field)
    return bool(offset and of.Get(number_types.BoolFlags, offset + of.Pos))


def _tensors(state: Table, field: int) -> Iterator[tuple[str, Array]]:
    if not (offset := state.Offset(field)):
        return
    first = state.Vector(offset)
    for index in range(state.VectorLen(offset)):
        tensor = Table(state.Bytes, state.Indirect(first + 4 * index))
        name = tensor.String(tensor.Offset(4) + tensor.Pos).decode()
        kind = tensor.Get(number_types.Int32Flags, tensor.Offset(10) + tensor.Pos) if tensor.Offset(10) else 0
        if kind not in _DTYPES:
            raise CompileError(f"{name} in the checkpoint is of type {kind}, which is not supported")
        content = _vector(tensor, 12, "u1").tobytes()
        yield name, np.frombuffer(content, _DTYPES[kind]).reshape(_vector(tensor, 8, "<i8"))


def _vector(of: Table, field: int, dtype: str) -> Array:
    if not (offset := of.Offset(field)):
        return np.zeros(0, dtype)
    begin, count = of.Vector(offset), of.VectorLen(offset)
    return np.frombuffer(of.Bytes, dtype, count, begin)
