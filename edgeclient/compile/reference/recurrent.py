"""RNN, GRU and LSTM, step by step."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array

# (input's share of all gates (N, gates · H), state) → state; the first part of the state is h.
_State: TypeAlias = tuple[Array, ...]
_Step: TypeAlias = Callable[[Array, _State], _State]


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


_ACTIVATIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
}


def _activations(kind: str, a: dict[str, Any], default: list[str], directions: int) -> list[list[Any]]:
    """Functions per direction, in the order of the specification."""
    # The schema's default for RNN is as long as two directions need, whatever the direction.
    names = (a["activations"] or default * directions)[: len(default) * directions]
    unknown = sorted(set(names) - set(_ACTIVATIONS))
    if unknown or a["clip"] is not None or a.get("input_forget"):
        what = f"activation {unknown[0]}" if unknown else "clip or input_forget"
        raise CompileError(f"{kind} with {what} is not evaluated in float64: use Sigmoid, Tanh, Relu and no clip")
    found, per = [_ACTIVATIONS[name] for name in names], len(default)
    return [found[i * per : (i + 1) * per] for i in range(directions)]


def _run(
    x: Array, w: Array, starts: list[Array], lengths: Array | None, steps: list[_Step], a: dict[str, Any]
) -> _State:
    """x (T, N, I), w (D, gates · H, I), starts (D, N, H) each → Y (T, D, N, H), then the last states (D, N, H).

    A step past an example's length leaves its state and yields zeros.
    """
    if a["layout"]:
        x, starts = x.swapaxes(0, 1), [each.swapaxes(0, 1) for each in starts]
    time, size = x.shape[:2]
    valid = np.arange(time)[:, None] < (np.full(size, time) if lengths is None else lengths)
    y = np.zeros((time, len(steps), *starts[0].shape[1:]))
    ends: list[_State] = []
    for d, step in enumerate(steps):
        state: _State = tuple(each[d] for each in starts)
        share = x @ w[d].T
        backward = a["direction"] == "reverse" or d == 1
        for t in reversed(range(time)) if backward else range(time):
            alive = valid[t][:, None]
            state = tuple(np.where(alive, new, old) for new, old in zip(step(share[t], state), state, strict=True))
            y[t, d] = np.where(alive, state[0], 0)
        ends.append(state)
    last = [np.stack(each) for each in zip(*ends, strict=True)]
    if a["layout"]:
        return y.transpose(2, 0, 1, 3), *[each.swapaxes(0, 1) for each in last]
    return y, *last


def _start(given: Array | None, x: Array, r: Array, a: dict[str, Any]) -> Array:
    if given is not None:
        return given
    shape = (len(r), x.shape[0 if a["layout"] else 1], r.shape[-1])
    return np.zeros((shape[1], shape[0], shape[2]) if a["layout"] else shape)


def _biases(b: Array | None, r: Array) -> Array:
    """(D, 2, gates · H): of the input's share and of the state's."""
    return np.zeros((len(r), 2, r.shape[1])) if b is None else b.reshape(len(r), 2, -1)


@evaluates("RNN")
def rnn(
    x: Array, w: Array, r: Array, b: Array | None = None, lengths: Array | None = None, h: Array | None = None, **a: Any
) -> _State:
    """h' = f(x Wᵀ + h Rᵀ + b)."""
    functions, bias = _activations("RNN", a, ["Tanh"], len(r)), _biases(b, r).sum(1)

    def step(d: int) -> _Step:
        (f,) = functions[d]
        return lambda share, state: (f(share + state[0] @ r[d].T + bias[d]),)

    return _run(x, w, [_start(h, x, r, a)], lengths, [step(d) for d in range(len(r))], a)


@evaluates("GRU")
def gru(
    x: Array, w: Array, r: Array, b: Array | None = None, lengths: Array | None = None, h: Array | None = None, **a: Any
) -> _State:
    """Gates z, r, h; h' = (1 − z) h̃ + z h, with the reset before or after the state's product."""
    functions, biases = _activations("GRU", a, ["Sigmoid", "Tanh"], len(r)), _biases(b, r)
    size = r.shape[-1]

    def step(d: int) -> _Step:
        f, g = functions[d]
        (bias_w, bias_r), gates, new = biases[d], r[d][: 2 * size].T, r[d][2 * size :].T

        def run(share: Array, state: _State) -> _State:
            (h,) = state
            mixed = share + bias_w
            z, reset = np.split(f(mixed[:, : 2 * size] + h @ gates + bias_r[: 2 * size]), 2, 1)
            if a["linear_before_reset"]:
                candidate = reset * (h @ new + bias_r[2 * size :])
            else:
                candidate = (reset * h) @ new + bias_r[2 * size :]
            return ((1 - z) * g(mixed[:, 2 * size :] + candidate) + z * h,)

        return run

    return _run(x, w, [_start(h, x, r, a)], lengths, [step(d) for d in range(len(r))], a)


@evaluates("LSTM")
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    peepholes: Array | None = None,
    **a: Any,
) -> _State:
    """Gates i, o, f, c; c' = f c + i c̃, h' = o tanh(c'); peepholes let i, f see c and o see c'."""
    functions = _activations("LSTM", a, ["Sigmoid", "Tanh", "Tanh"], len(r))
    bias, size = _biases(b, r).sum(1), r.shape[-1]
    seen = np.zeros((len(r), 3, size)) if peepholes is None else peepholes.reshape(len(r), 3, size)

    def step(d: int) -> _Step:
        f, g, out = functions[d]
        see_i, see_o, see_f = seen[d]

        def run(share: Array, state: _State) -> _State:
            h, c = state
            i, o, forget, candidate = np.split(share + h @ r[d].T + bias[d], 4, 1)
            new = f(forget + see_f * c) * c + f(i + see_i * c) * g(candidate)
            return f(o + see_o * new) * out(new), new

        return run

    starts = [_start(h, x, r, a), _start(c, x, r, a)]
    return _run(x, w, starts, lengths, [step(d) for d in range(len(r))], a)
