"""Models of one recurrent layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import prepared
from onnx import helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS, HIDDEN, STEPS = 3, 4, 5


@dataclass(frozen=True)
class Reader:
    """What reads Y, and the rank of what it makes."""

    nodes: tuple[onnx.NodeProto, ...]
    rank: int = 3


def layer(
    kind: str,
    *,
    direction: str = "forward",
    layout: int = 0,
    has: str = "BH",
    outputs: str = "YHC",
    steps: int | str = STEPS,
    reader: Reader | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """One layer; `has` names optional inputs (B, H, C, P), `outputs` those that are read."""
    directions, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    rng = np.random.default_rng(0)
    shapes = {
        "W": (directions, gates * HIDDEN, INPUTS),
        "R": (directions, gates * HIDDEN, HIDDEN),
        "B": (directions, 2 * gates * HIDDEN),
        "P": (directions, 3 * HIDDEN),
    }
    if kind != "LSTM":
        has, outputs = has.translate({67: None, 80: None}), outputs.replace("C", "")
    parameters = {
        name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items() if name in "WR" + has
    }
    state: list[int | str] = ["batch", directions, HIDDEN] if layout else [directions, "batch", HIDDEN]
    inputs: dict[str, list[int | str]] = {"X": ["batch", steps, INPUTS] if layout else [steps, "batch", INPUTS]}
    inputs |= {name: state for name in "HC" if name in has}
    names = ["X", "W", "R", *(name if name in has else "" for name in "B HCP")]
    made = [name if name in outputs else "" for name in "YHC"]
    made = [name and f"{name}out" for name in (made if kind == "LSTM" else made[:2])]
    every = ["batch", steps, directions, HIDDEN] if layout else [steps, directions, "batch", HIDDEN]
    shown: dict[str, Any] = {name: every if name == "Yout" else state for name in made if name}
    if reader:
        shown = {reader.nodes[-1].output[-1]: [None] * reader.rank}
    while not names[-1]:
        names.pop()
    while not made[-1]:
        made.pop()
    attributes |= {"layout": layout} if layout else {}
    node = helper.make_node(kind, names, made, name="layer", direction=direction, hidden_size=HIDDEN, **attributes)
    return prepared.model([node, *(reader.nodes if reader else ())], inputs, shown, parameters)
