"""Which time steps of a sequence are read: often only the last, and then the others need not be put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.rewrite import Rewriter
from edgeclient.compress.arrays import I64


@dataclass(frozen=True, slots=True)
class Leaf:
    """A node that picks steps.

    Attributes:
        axis: of time, in what the node reads.
        times: one for each step it picks, or a lone number when the axis is dropped.
    """

    axis: int
    times: I64


@dataclass(frozen=True, slots=True)
class Reading:
    """All readers of a sequence.

    Attributes:
        times: that are read, rising.
        leaves: by output of the node that picks.
        between: values that hold the time axis, the sequence itself among them.
    """

    times: tuple[int, ...]
    leaves: dict[str, Leaf]
    between: frozenset[str]


def reading(b: Rewriter, sequence: str, axis: int, steps: int) -> Reading | None:
    """What is read of a sequence, or None when all of it may be.

    Args:
        b: knows the readers.
        sequence: a value with `steps` steps along `axis`.
        axis: of time.
        steps: the length.
    """
    leaves: dict[str, Leaf] = {}
    between: set[str] = set()
    waiting = [(sequence, axis)]
    while waiting:
        name, axis = waiting.pop()
        if name in b.outputs or not b.knows(name):
            return None
        between.add(name)
        for node in b.readers[name]:
            if list(node.input[:1]) != [name]:
                return None
            plain = Node(node, node.input, node.output)
            if (picked := _picked(b, plain, axis, steps)) is not None:
                leaves[node.output[0]] = Leaf(axis, picked)
            elif (moved := _moved(b, plain, name, axis)) is not None:
                waiting.append((node.output[0], moved))
            else:
                return None
    times = sorted({int(each) for leaf in leaves.values() for each in leaf.times.ravel()})
    return Reading(tuple(times), leaves, frozenset(between)) if times else None


def picked_again(b: Rewriter, node: Node, leaf: Leaf, times: Sequence[int]) -> str:
    """The same steps out of a sequence that holds only `times`."""
    if len(times) == leaf.times.size == 1 and leaf.times.ndim < 2:
        return node.inputs[0] if leaf.times.ndim else b.squeeze(node.inputs[0], leaf.axis)
    positions = np.searchsorted(np.array(times), leaf.times)
    return b.op("Gather", node.inputs[0], b.int64(positions.tolist()), axis=leaf.axis)


def _picked(b: Rewriter, node: Node, axis: int, steps: int) -> I64 | None:
    """The constant steps that a Gather or Slice picks."""
    rank = b.rank(node.inputs[0])
    constants = [b.constant(name) for name in node.inputs[1:]]
    known = [each for each in constants if each is not None]
    if len(known) < len(constants):
        return None
    if node.proto.op_type == "Gather" and node.attribute("axis", 0) % rank == axis:
        index = np.asarray(np.where(known[0] < 0, known[0] + steps, known[0]), np.int64)
        return index if ((index >= 0) & (index < steps)).all() else None
    if node.proto.op_type == "Slice" and len(known) >= 3 and all(each.size == 1 for each in known):
        start, end, of, *stride = (int(each.item()) for each in known)
        if of % rank == axis:
            return np.arange(steps)[start : end : stride[0] if stride else 1]
    return None


def _moved(b: Rewriter, node: Node, name: str, axis: int) -> int | None:
    """Where the time axis is after a node that only rearranges."""
    kind, rank = node.proto.op_type, b.rank(name)
    axes = b.constant(node.input(1)) if node.input(1) else None
    if kind == "Identity":
        return axis
    if kind == "Transpose":
        return list(node.attribute("perm", range(rank)[::-1])).index(axis)
    if kind == "Squeeze" and axes is not None:
        gone = {int(each) % rank for each in axes}
        return None if axis in gone else axis - sum(each < axis for each in gone)
    if kind == "Unsqueeze" and axes is not None:
        added = {int(each) % (rank + len(axes)) for each in axes}
        return [each for each in range(rank + len(added)) if each not in added][axis]
    if kind == "Reshape" and axes is not None and not node.attribute("allowzero", 0):
        return axis if not axes[: axis + 1].any() and len(axes) > axis else None
    return None
