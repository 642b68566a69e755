"""One time step of a recurrent layer in basic ops, and what can be computed for all steps before the first.

Formulas and the order of the gates are those of the ONNX operators RNN, GRU and LSTM. Every node counts: it runs once
a step, forward and backward. All biases but one are added where the input is projected, for all steps at once; the
recurrent product adds what was projected by the same Gemm.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

from edgeclient.compile.prepare.rewrite import Rewriter

# h, or h and c, each (batch, hidden); an empty string where it is zero.
State: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters of one direction.

    Attributes:
        w: of the input, (gates · hidden, inputs).
        r: of the state, (gates · hidden, hidden).
        b: of both, (2 · gates · hidden), or an empty string.
        p: peepholes of an LSTM, (3 · hidden), or an empty string.
        hidden: size of the state.
    """

    w: str
    r: str
    b: str
    p: str
    hidden: int


class Cell(ABC):
    """A layer in one direction.

    Args:
        b: where nodes go.
        weights: of the direction.
        x: the input at each step, step after step, (steps · batch, inputs).
        steps: how many.
    """

    def __init__(self, b: Rewriter, weights: Weights, x: str, steps: int) -> None:
        self.b = b
        self.weights = weights
        self._x = x
        self._steps = steps

    @abstractmethod
    def step(self, t: int, state: State) -> State:
        """The state after step t, given the state before."""

    def project(self, w: str, bias: str) -> tuple[str, ...]:
        """X wᵀ + bias at each step, (batch, rows of w)."""
        every = self.b.op("Gemm", self._x, w, *([bias] if bias else []), transB=1)
        return self.b.split_evenly(every, self._steps, 0)

    def recur(self, h: str, r: str, rest: str) -> str:
        """H rᵀ + rest; an empty string where all of it is zero."""
        if not h:
            return rest
        return self.b.op("Gemm", h, r, *([rest] if rest else []), transB=1)

    def gate(self, x: str, index: int) -> str:
        """Columns of one gate, where not all are read."""
        hidden = self.weights.hidden
        return self.b.slice(x, 1, index * hidden, (index + 1) * hidden)

    def biases(self) -> tuple[str, str]:
        """Of the input and of the state, (gates · hidden) each, or empty strings."""
        if not self.weights.b:
            return "", ""
        made = self.b.split_evenly(self.weights.b, 2, 0)
        return made[0], made[1]


class Rnn(Cell):
    """h' = tanh(x Wᵀ + h Rᵀ + b)."""

    def __init__(self, b: Rewriter, weights: Weights, x: str, steps: int) -> None:
        super().__init__(b, weights, x, steps)
        self._drive = self.project(weights.w, _added(b, *self.biases()))

    def step(self, t: int, state: State) -> State:
        return (self.b.op("Tanh", self.recur(state[0], self.weights.r, self._drive[t])),)


class Gru(Cell):
    """z, r = σ(…), n = tanh(x Wₙᵀ + (r h) Rₙᵀ + bₙ), or with reset after the product, h' = n + z (h − n)."""

    def __init__(self, b: Rewriter, weights: Weights, x: str, steps: int, *, reset_after: bool) -> None:
        super().__init__(b, weights, x, steps)
        self._reset_after = reset_after
        sizes = [2 * weights.hidden, weights.hidden]
        gates_w, new_w = b.split(weights.w, sizes, 0)
        gates_b = new_b = state_b = ""
        if weights.b:
            (gates_wb, new_wb), (gates_rb, new_rb) = (b.split(each, sizes, 0) for each in self.biases())
            gates_b = b.op("Add", gates_wb, gates_rb)
            new_b, state_b = (new_wb, new_rb) if reset_after else (b.op("Add", new_wb, new_rb), "")
        self._gates = self.project(gates_w, gates_b)
        self._new = self.project(new_w, new_b)
        # Broadcast once: added as a row, it would cost a sum over the batch at each step of the backward pass.
        self._state_b = b.op("Expand", state_b, b.op("Shape", self._new[0])) if state_b else ""
        self._r = b.split(weights.r, sizes, 0)

    def step(self, t: int, state: State) -> State:
        b, h, new = self.b, state[0], self._new[t]
        gates = self.recur(h, self._r[0], self._gates[t])
        if self._reset_after:
            drive = self.recur(h, self._r[1], self._state_b)
            z, r = self._opened(gates, both=bool(drive))
            new = b.op("Add", b.op("Mul", r, drive), new) if drive else new
        else:
            z, r = self._opened(gates, both=bool(h))
            new = self.recur(b.op("Mul", r, h) if h else "", self._r[1], new)
        n = b.op("Tanh", new)
        if not h:
            return (b.op("Sub", n, b.op("Mul", z, n)),)
        return (b.op("Add", n, b.op("Mul", z, b.op("Sub", h, n))),)

    def _opened(self, gates: str, *, both: bool) -> tuple[str, str]:
        """z and r, the latter only if it is read."""
        if not both:
            return self.b.op("Sigmoid", self.gate(gates, 0)), ""
        z, r = self.b.split_evenly(self.b.op("Sigmoid", gates), 2, 1)
        return z, r


class Lstm(Cell):
    """i, o, f = σ(…), c' = f c + i tanh(…), h' = o tanh(c'); with peepholes i and f see c, o sees c'."""

    def __init__(self, b: Rewriter, weights: Weights, x: str, steps: int) -> None:
        super().__init__(b, weights, x, steps)
        self._drive = self.project(weights.w, _added(b, *self.biases()))
        self._sizes = [3 * weights.hidden, weights.hidden]
        self._peepholes: dict[int, str] = {}

    def step(self, t: int, state: State) -> State:
        b, (h, c) = self.b, state
        every = self.recur(h, self.weights.r, self._drive[t])
        if self.weights.p:
            return self._peeping(every, c)
        gates, new = b.split(every, self._sizes, 1)
        gates, new = b.op("Sigmoid", gates), b.op("Tanh", new)
        if c:
            i, o, f = b.split_evenly(gates, 3, 1)
            c = b.op("Add", b.op("Mul", f, c), b.op("Mul", i, new))
        else:
            i, o = self.gate(gates, 0), self.gate(gates, 1)
            c = b.op("Mul", i, new)
        return b.op("Mul", o, b.op("Tanh", c)), c

    def _peeping(self, every: str, c: str) -> State:
        b = self.b
        i, o, new = (self.gate(every, index) for index in (0, 1, 3))
        added = b.op("Mul", b.op("Sigmoid", self._seeing(i, 0, c)), b.op("Tanh", new))
        if c:
            f = b.op("Sigmoid", self._seeing(self.gate(every, 2), 2, c))
            added = b.op("Add", b.op("Mul", f, c), added)
        return b.op("Mul", b.op("Sigmoid", self._seeing(o, 1, added)), b.op("Tanh", added)), added

    def _seeing(self, gate: str, index: int, c: str) -> str:
        """The gate with its peephole; those lie in the order i, o, f."""
        if not c:
            return gate
        if index not in self._peepholes:
            hidden = self.weights.hidden
            self._peepholes[index] = self.b.slice(self.weights.p, 0, index * hidden, (index + 1) * hidden)
        return self.b.op("Add", gate, self.b.op("Mul", self._peepholes[index], c))


def _added(b: Rewriter, first: str, second: str) -> str:
    return b.op("Add", first, second) if first else ""
