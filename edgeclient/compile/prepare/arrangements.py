"""Ops that move elements, and ops on two values, in a form whose gradient ONNX Runtime builds right.

Some of those here have a gradient builder that fails, or is silently wrong, for some of their forms: measured on
1.19.2, tests/native/test_prepare_gradients.py shows each.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter, Rule

# Beyond this many rows of border, one Gather instead of a Slice for each.
_SLICED_BORDER: Final = 32


def _split(b: Rewriter, node: Node) -> Sequence[str] | None:
    """Slices, where some part gets no gradient: the others would be taken for all there is.

    Parts that are read all the same, say for their shape, stay those of a Split: ONNX Runtime makes one out of slices
    that lie side by side.
    """
    trained = [name in b.differentiable for name in node.proto.output]
    if all(trained):
        return None
    x, axis = node.inputs[0], node.attribute("axis", 0) % b.rank(node.inputs[0])
    sizes = b.constant(node.input(1)) if node.input(1) else None
    if sizes is None:
        (size,) = b.fixed(x, [axis], "a Split of which some parts are not used")
        most = -(-size // len(trained))
        sizes = np.diff([min(most * index, size) for index in range(len(trained) + 1)])
    ends = np.cumsum(sizes).tolist()
    others = b.split(x, sizes.tolist(), axis)
    return [
        b.slice(x, axis, end - int(size), end) if gradient else other
        for gradient, size, end, other in zip(trained, sizes, ends, others, strict=True)
    ]


def _transpose(b: Rewriter, node: Node) -> Sequence[str] | None:
    """With its order written out."""
    if node.attribute("perm", None) is not None:
        return None
    return [b.op("Transpose", node.inputs[0], perm=list(range(b.rank(node.inputs[0])))[::-1])]


def _where(b: Rewriter, node: Node) -> Sequence[str] | None:
    """Branches in full size: the builder does not sum the gradient of one that is stretched."""
    condition, x, y = node.inputs
    full = [_stretched(b, x, (condition, y)), _stretched(b, y, (condition, x))]
    return None if full == [x, y] else [b.op("Where", condition, *full)]


def _pow(b: Rewriter, node: Node) -> Sequence[str] | None:
    """As for Where, the base."""
    x, power = node.inputs
    full = _stretched(b, x, (power,))
    return None if full == x else [b.op("Pow", full, power)]


def _stretched(b: Rewriter, x: str, others: Sequence[str]) -> str:
    """X expanded to the shapes of others where it has not got them; a constant needs no gradient and stays."""
    if b.constant(x) is not None:
        return x
    for other in others:
        if not (b.knows(x) and b.knows(other) and _covers(b, x, other)):
            x = b.op("Expand", x, b.op("Shape", other))
    return x


def _covers(b: Rewriter, x: str, other: str) -> bool:
    """Whether broadcasting `other` to x leaves the shape of x."""
    mine, its = b.shape(x), b.shape(other)
    if len(its) > len(mine):
        return False
    return all(theirs in (1, own) and theirs is not None for own, theirs in zip(mine[::-1], its[::-1], strict=False))


def _matmul(b: Rewriter, node: Node) -> Sequence[str] | None:
    """A vector on the right becomes a matrix of one column, and with it one on the left a row."""
    x, y = node.inputs
    if b.rank(y) != 1:
        return None
    row = b.rank(x) == 1
    made = b.op("MatMul", b.unsqueeze(x, 0) if row else x, b.unsqueeze(y, 1))
    return [b.op("Squeeze", made, b.int64([-2, -1] if row else [-1]))]


def _gemm(b: Rewriter, node: Node) -> Sequence[str] | None:
    """Without a C that counts nothing."""
    if node.attribute("beta", 1.0) != 0 or not node.input(2):
        return None
    attributes = {
        name: node.attribute(name, default) for name, default in (("alpha", 1.0), ("transA", 0), ("transB", 0))
    }
    return [b.op("Gemm", *node.inputs[:2], **attributes)]


def _cast_like(b: Rewriter, node: Node) -> Sequence[str] | None:
    kind = b.dtype(node.inputs[1])
    return None if kind is None else [b.op("Cast", node.inputs[0], to=kind)]


def _depth_to_space(b: Rewriter, node: Node) -> Sequence[str]:
    x, block = node.inputs[0], node.attribute("blocksize", 1)
    channels, height, width = b.fixed(x, [1, 2, 3], "DepthToSpace")
    depth = channels // block**2
    if node.attribute("mode", "DCR") == "DCR":
        cut, order = [0, block, block, depth, height, width], [0, 3, 4, 1, 5, 2]
    else:
        cut, order = [0, depth, block, block, height, width], [0, 1, 4, 2, 5, 3]
    moved = b.transpose(b.reshape(x, cut), order)
    return [b.reshape(moved, [0, depth, height * block, width * block])]


def _space_to_depth(b: Rewriter, node: Node) -> Sequence[str]:
    x, block = node.inputs[0], node.attribute("blocksize", 1)
    channels, height, width = b.fixed(x, [1, 2, 3], "SpaceToDepth")
    high, wide = height // block, width // block
    moved = b.transpose(b.reshape(x, [0, channels, high, block, wide, block]), [0, 3, 5, 1, 2, 4])
    return [b.reshape(moved, [0, channels * block**2, high, wide])]


def _scatter_elements(b: Rewriter, node: Node) -> Sequence[str] | None:
    """What is added stands beside the data: the builder takes the data's gradient away where anything is added."""
    how = node.attribute("reduction", "none")
    if how == "none":
        return None
    if how != "add":
        raise node.refuse(f"reduction {how} has no gradient: add, or write it with basic ops")
    data, indices, updates = node.inputs
    zeros = b.zeros(b.op("Shape", data))
    axis = node.attribute("axis", 0)
    return [b.op("Add", data, b.op("ScatterElements", zeros, indices, updates, axis=axis, reduction="add"))]


def _scatter_nd(_b: Rewriter, node: Node) -> Sequence[str] | None:
    how = node.attribute("reduction", "none")
    if how == "none":
        return None
    # And additions to one place get lost when it runs on several threads (microsoft/onnxruntime 18048).
    raise node.refuse(f"reduction {how} has no gradient: use ScatterElements with reduction add")


def _pad(b: Rewriter, node: Node) -> Sequence[str] | None:
    """Zeros (or a constant) on all axes; a mirrored, repeated or wrapped border joined on."""
    mode = node.attribute("mode", "constant")
    if mode == "constant" and not node.input(3):
        return None
    x, rank = node.inputs[0], b.rank(node.inputs[0])
    pads, axes = (b.constant(name) if name else None for name in (node.inputs[1], node.input(3)))
    if pads is None or (node.input(3) and axes is None):
        raise node.refuse("its pads are computed when it runs: export the model with constant pads")
    every = np.zeros((2, rank), np.int64)
    every[:, np.arange(rank) if axes is None else axes % rank] = pads.reshape(2, -1)
    if mode == "constant":
        value = [node.input(2)] if node.input(2) else []
        return [b.op("Pad", x, b.int64(every.ravel().tolist()), *value, mode="constant")]
    if (every < 0).any():
        raise node.refuse(f"negative pads in mode {mode} are not supported: slice first")
    for axis in np.flatnonzero(every.any(0)).tolist():
        x = _bordered(b, x, axis, mode, *every[:, axis].tolist())
    return [x]


def _bordered(b: Rewriter, x: str, axis: int, mode: str, before: int, after: int) -> str:
    (size,) = b.fixed(x, [axis], f"Pad in mode {mode}")
    places = np.arange(-before, size + after)
    if mode == "reflect":
        there_and_back = places % max(2 * size - 2, 1)
        rows = np.minimum(there_and_back, 2 * size - 2 - there_and_back)
    else:
        rows = places % size if mode == "wrap" else places.clip(0, size - 1)
    if before + after > _SLICED_BORDER:
        return b.op("Gather", x, b.int64(rows.tolist()), axis=axis)
    left, right = rows[:before].tolist(), rows[before + size :].tolist()
    border = {row: b.slice(x, axis, row, row + 1) for row in sorted({*left, *right})}
    return b.op("Concat", *(border[row] for row in left), x, *(border[row] for row in right), axis=axis)


RULES: Final[dict[str, Rule]] = {
    "CastLike": _cast_like,
    "DepthToSpace": _depth_to_space,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Pow": _pow,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Transpose": _transpose,
    "Where": _where,
}
