"""Recurrent layers become basic ops, one copy of the cell for each time step."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import onnx

from edgeclient.compile.lower.builder import Node
from edgeclient.compile.prepare.cells import Cell, Gru, Lstm, Rnn, State, Weights
from edgeclient.compile.prepare.rewrite import Rewriter, rewritten
from edgeclient.compile.prepare.steps import Leaf, Reading, picked_again, reading

_ACTIVATIONS: Final = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}


def unroll(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without RNN, GRU and LSTM nodes.

    The sequence length must be fixed, the batch need not be. W, R, B, P and initial states stay the values they are.
    An output of which only some steps are read, as `output[:, -1]` does, is made of those alone.

    Raises:
        CompileError: a free sequence length, `sequence_lens`, `clip`, `input_forget`, or activations that are not the
            default.
    """
    return rewritten(model, "unrolled", _Unroll().rules)


class _Unroll:
    def __init__(self) -> None:
        self.rules = dict.fromkeys(_ACTIVATIONS, self.layer) | {"Gather": self.leaf, "Slice": self.leaf}
        self._leaves: dict[str, tuple[Leaf, tuple[int, ...]]] = {}

    def layer(self, b: Rewriter, node: Node) -> Sequence[str]:
        """One layer: Y, Y_h and, of an LSTM, Y_c."""
        layer = _Layer(b, node)
        read = None
        if node.wants(0) and (read := reading(b, node.outputs[0], layer.time_axis, layer.steps)) is not None:
            b.forget(read.between)
            self._leaves.update((name, (leaf, read.times)) for name, leaf in read.leaves.items())
        return layer.unrolled(read)

    def leaf(self, b: Rewriter, node: Node) -> Sequence[str] | None:
        """A node that picks steps from a sequence that became shorter."""
        found = self._leaves.get(node.outputs[0])
        return None if found is None else [picked_again(b, node, *found)]


# What one direction made: the state after each step by time, in the order of the steps.
_Run: TypeAlias = dict[int, State]


class _Layer:
    def __init__(self, b: Rewriter, node: Node) -> None:
        self._b, self._node = b, node
        self._kind = node.proto.op_type
        direction = node.attribute("direction", "forward")
        self._directions = ["forward", "reverse"] if direction == "bidirectional" else [direction]
        self._batch_first = node.attribute("layout", 0) == 1
        self.time_axis = 1 if self._batch_first else 0
        shape = b.shape(node.inputs[0])
        steps, inputs = shape[self.time_axis], shape[2]
        if not isinstance(steps, int) or steps < 1:
            raise node.refuse(
                f"the sequence length of {node.inputs[0]} is not fixed, its shape is {shape}: export the model with"
                " sequences of one length, or give that dimension a number"
            )
        if not isinstance(inputs, int):
            raise node.refuse(f"the last dimension of {node.inputs[0]} is not fixed: its shape is {shape}")
        self.steps, self._inputs = steps, inputs
        self._hidden = b.fixed(node.inputs[2], [2], "a recurrent layer")[0]
        _refuse_options(b, node, steps, len(self._directions))

    def unrolled(self, read: Reading | None) -> Sequence[str]:
        """Values for the node's outputs; an empty string where nobody reads one."""
        node = self._node
        times = range(self.steps) if read is None else read.times
        to_the_end = node.wants(1) or node.wants(2)
        w, r, bias, p = (self._per_direction(node.input(index)) for index in (1, 2, 3, 7))
        starts = [self._per_direction(node.input(index), state=True) for index in (5, 6)]
        runs = []
        for index, direction in enumerate(self._directions):
            reverse = direction == "reverse"
            order = range(self.steps)[::-1] if reverse else range(self.steps)
            if not to_the_end:
                order = order[: max(order.index(each) for each in times) + 1]
            cell = self._cell(Weights(w[index], r[index], bias[index], p[index], self._hidden), order)
            runs.append(self._run(cell, order, tuple(each[index] for each in starts)))
        made = [self._sequence(runs, times) if node.wants(0) else ""]
        for output, index in ((1, 0), (2, 1)):
            made.append(self._last([[*each.values()][-1][index] for each in runs]) if node.wants(output) else "")
        return made

    def _cell(self, weights: Weights, order: range) -> Cell:
        b, node = self._b, self._node
        x = node.inputs[0]
        if len(order) < self.steps:
            x = b.slice(x, self.time_axis, min(order), max(order) + 1)
        if self._batch_first:
            x = b.transpose(x, [1, 0, 2])
        x = b.reshape(x, [-1, self._inputs])
        if self._kind == "GRU":
            return Gru(b, weights, x, len(order), reset_after=bool(node.attribute("linear_before_reset", 0)))
        return (Lstm if self._kind == "LSTM" else Rnn)(b, weights, x, len(order))

    def _run(self, cell: Cell, order: range, start: State) -> _Run:
        state = start if self._kind == "LSTM" else start[:1]
        states = {}
        for t in order:
            states[t] = state = cell.step(t - min(order), state)
        return states

    def _per_direction(self, name: str, *, state: bool = False) -> list[str]:
        """A value for each direction, without that axis; empty strings if it is absent, or a state of zeros."""
        count = len(self._directions)
        if not name or (state and self._b.is_zero(name)):
            return [""] * count
        axis = 1 if state and self._batch_first else 0
        return [self._b.squeeze(each, axis) for each in self._b.split_evenly(name, count, axis)]

    def _sequence(self, runs: Sequence[_Run], times: Sequence[int]) -> str:
        """Y: (steps, directions, batch, hidden), or (batch, steps, directions, hidden).

        Joined along columns, whose number is fixed: the gradient then needs no shapes at run time.
        """
        b = self._b
        parts = [run[t][0] for t in times for run in runs]
        columns = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=1)
        made = b.reshape(columns, [0, len(times), len(runs), self._hidden])
        return made if self._batch_first else b.transpose(made, [1, 2, 0, 3])

    def _last(self, parts: Sequence[str]) -> str:
        """Y_h or Y_c: (directions, batch, hidden), or (batch, directions, hidden)."""
        axis = 1 if self._batch_first else 0
        made = [self._b.unsqueeze(each, axis) for each in parts]
        return made[0] if len(made) == 1 else self._b.op("Concat", *made, axis=axis)


def _refuse_options(b: Rewriter, node: Node, steps: int, directions: int) -> None:
    default = _ACTIVATIONS[node.proto.op_type] * directions
    named = node.attribute("activations", None)
    found = [each.decode().lower() for each in named] if named else default
    if found != default:
        raise node.refuse(
            f"activations {', '.join(found)} are not supported, {', '.join(default)} are: write the cell with basic ops"
        )
    if node.attribute("clip", 0) != 0:
        raise node.refuse("clip is not supported: export the model without it")
    if node.attribute("input_forget", 0):
        raise node.refuse("input_forget is not supported: export the model without it")
    if node.input(4):
        lengths = b.constant(node.input(4))
        if lengths is None or (lengths != steps).any():
            raise node.refuse("sequence_lens is not supported: export the model for sequences of one length")
