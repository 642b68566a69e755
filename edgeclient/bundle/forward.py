"""The user's forward graph, with weights put back: a model that anybody can run, made with NumPy alone.

A bundle's forward.onnx lacks the initialisers that training moves (FORMAT.md, section 8). It is spliced where its bytes
say so, since devices have no ONNX package: a message of protobuf is a list of fields, (number · 8 + wire type) and
content, and initialisers are field 5 of the graph, which is field 7 of the model (onnx.proto).
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Final

import numpy as np

from edgeclient.bundle.archive import FORWARD, FROZEN
from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import F32, Array
from edgeclient.wire.errors import WireError
from edgeclient.wire.reader import varint

_GRAPH: Final = 7
_INITIALISER: Final = 5
_OUTPUT: Final = 12
_VALUE_NAME: Final = 1  # of a ValueInfoProto
_DIMENSION, _TYPE, _NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13  # of a TensorProto
_KEY, _VALUE = 1, 2  # of an entry of its external data
_FLOAT: Final = 1
_CONTENT: Final = 2  # the wire type of what begins with its length


def exported(files: Mapping[str, bytes], manifest: Manifest, parameters: F32, local: F32) -> bytes:
    """The user's own model, names and opset and all, with what was learnt: one file that needs nothing beside it.

    Args:
        files: of the bundle, by name; forward.onnx and frozen.safetensors are read.
        manifest: of the bundle.
        parameters: flat float32 (n,).
        local: running statistics that stay on a device, float32 (l,).

    Raises:
        WireError: the bundle has no forward graph, or a damaged one.
    """
    if FORWARD not in files:
        raise WireError(
            "layout",
            "the bundle has no forward graph, so there is no model to put together: training artifacts have none, and"
            " some models had to be rewritten; edgeclient compile of the forward model says which",
        )
    tensors, at = manifest.layout.split(parameters), 0
    for each in manifest.local_buffers:
        size = prod(each.shape)
        tensors[each.name] = local[at : at + size].reshape(each.shape)
        at += size
    return with_parameters(files[FORWARD], tensors, files.get(FROZEN))


def with_output(model: bytes, name: str) -> bytes:
    """The ONNX model with one more output, a value that it computes inside."""
    added = _field(_OUTPUT, _field(_VALUE_NAME, name.encode()))
    return b"".join(
        _field(_GRAPH, bytes(content) + added) if number == _GRAPH else bytes(whole)
        for number, content, whole in _fields(memoryview(model))
    )


def with_parameters(forward: bytes, tensors: Mapping[str, F32], frozen: bytes | None = None) -> bytes:
    """The ONNX model that `forward` is with these initialisers.

    Args:
        forward: forward.onnx of a bundle.
        tensors: trained parameters and running statistics, by the names of the layout and of local buffers.
        frozen: frozen.safetensors of the bundle; without it the model keeps that file as external data beside it.

    Raises:
        WireError: `forward` is no ONNX model, or `frozen` is not what it was compiled with.
    """
    added = b"".join(_field(_INITIALISER, _tensor(name, each.shape, each)) for name, each in tensors.items())
    made, graphs = [], 0
    for number, content, whole in _fields(memoryview(forward)):
        if number == _GRAPH:
            graphs += 1
            made.append(_field(_GRAPH, b"".join((*_inlined(content, frozen), added))))
        else:
            made.append(bytes(whole))
    if graphs != 1:
        raise WireError("magic", f"an ONNX model has one graph, this has {graphs}")
    return b"".join(made)


def _inlined(graph: memoryview, frozen: bytes | None) -> Iterator[bytes]:
    for number, content, whole in _fields(graph):
        if number == _INITIALISER and frozen is not None and (place := _external(content)) is not None:
            offset, length = place
            fields = list(_fields(content))
            name = next((bytes(each).decode() for number, each, _ in fields if number == _NAME), "")
            shape = tuple(_number(whole, 1)[0] for number, _, whole in fields if number == _DIMENSION)
            if offset + length > len(frozen):
                raise WireError("truncated", f"{name[:80]} lies at {offset} of {len(frozen)} bytes")
            values = np.frombuffer(frozen, "<f4", length // 4, offset)
            yield _field(_INITIALISER, _tensor(name, shape, values))
        else:
            yield bytes(whole)


def _external(tensor: memoryview) -> tuple[int, int] | None:
    said = {}
    for number, entry, _ in _fields(tensor):
        if number == _EXTERNAL:
            pair = {number: bytes(content) for number, content, _ in _fields(entry)}
            said[pair.get(_KEY, b"")] = pair.get(_VALUE, b"")
    try:
        return (int(said[b"offset"]), int(said[b"length"])) if said else None
    except (KeyError, ValueError):
        raise WireError("magic", f"external data {str(said)[:80]} has no place") from None


def _tensor(name: str, shape: tuple[int, ...], values: Array) -> bytes:
    said = b"".join(varint(_DIMENSION << 3) + varint(size) for size in shape) + varint(_TYPE << 3) + varint(_FLOAT)
    return said + _field(_NAME, name.encode()) + _field(_RAW, values.astype("<f4", copy=False).tobytes())


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | _CONTENT) + varint(len(content)) + content


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """(number, content, whole field) of each field."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _number(message, at)
        start = at
        match key & 7:
            case 0:
                _, at = _number(message, at)
            case 1:
                at += 8
            case 2:
                length, start = _number(message, at)
                at = start + length
            case 5:
                at += 4
            case kind:
                raise WireError("magic", f"wire type {kind} at {begin}: not an ONNX model")
        if at > len(message):
            raise WireError("truncated", f"a field at {begin} ends beyond {len(message)} bytes")
        yield key >> 3, message[start:at], message[begin:at]


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """A number at `at`, and where it ends; unlike ours, negative ones take ten bytes."""
    value = 0
    for shift, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise WireError("truncated", f"a number at {at} has no end")
