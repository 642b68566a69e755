"""Unrolled layers give the outputs of ONNX Runtime's own RNN, GRU and LSTM."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import onnx
import prepared
import pytest
from onnx import helper
from prepared import BATCHES, constant, fed, same_outputs
from recurrent import GATES, HIDDEN, STEPS, Reader, layer

from edgeclient.compile.errors import CompileError
from edgeclient.compile.prepare.unroll import unroll


def subsets(names: str) -> list[str]:
    return ["".join(each) for size in range(len(names) + 1) for each in itertools.combinations(names, size)]


def kinds_of_layers() -> list[tuple[str, dict[str, Any], str]]:
    """Kind, attributes and which optional inputs exist."""
    return [
        (kind, attributes, has)
        for kind in GATES
        for attributes in (({"linear_before_reset": 0}, {"linear_before_reset": 1}) if kind == "GRU" else ({},))
        for has in subsets("BHCP" if kind == "LSTM" else "BH")
    ]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("kind", "attributes", "has"), kinds_of_layers())
def test_outputs_are_the_same(kind: str, attributes: dict[str, Any], has: str, direction: str) -> None:
    for steps, outputs in ((STEPS, "YHC"), (STEPS, "H"), (1, "YHC")):
        tested = layer(kind, direction=direction, has=has, outputs=outputs, steps=steps, **attributes)
        after = same_outputs(tested, unroll, *(fed(tested, batch) for batch in BATCHES))
        assert not GATES.keys() & set(prepared.kinds(after))


@pytest.mark.parametrize("opset", [14, 18, 21])
def test_every_opset(opset: int) -> None:
    tested = layer("GRU", direction="bidirectional")
    tested.opset_import[0].version = opset
    same_outputs(tested, unroll, fed(tested, 3))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_batch_first_is_batch_second_transposed(kind: str, direction: str) -> None:
    """ONNX Runtime has no kernel for layout 1."""
    first, second = (unroll(layer(kind, direction=direction, has="BHC", layout=layout)) for layout in (1, 0))
    feed = fed(first, 3)
    swapped = {name: value.swapaxes(0, 1) for name, value in feed.items()}
    have = prepared.run(first, feed)
    y, *states = prepared.run(second, swapped)
    want = [y.transpose(2, 0, 1, 3), *(each.swapaxes(0, 1) for each in states)]
    assert all(np.array_equal(*each) for each in zip(have, want, strict=True))
    assert not any(each.op_type in GATES for each in first.graph.node)


def test_parameters_stay_what_they_are() -> None:
    tested = layer("LSTM", has="BP")
    assert list(unroll(tested).graph.initializer) == list(tested.graph.initializer)


def test_a_state_of_zeros_costs_nothing() -> None:
    """Exporters write the absent initial state as zeros of a computed shape."""
    tested = layer("GRU", has="BH", outputs="H")
    del tested.graph.input[1]
    zeros = [
        constant("batch_axis", [1]),
        helper.make_node("Shape", ["X"], ["x_shape"]),
        helper.make_node("Gather", ["x_shape", "batch_axis"], ["batch_size"]),
        constant("one", [1]),
        constant("hidden", [HIDDEN]),
        helper.make_node("Concat", ["one", "batch_size", "hidden"], ["shape"], axis=0),
        constant("zero", [0], np.float32),
        helper.make_node("Expand", ["zero", "shape"], ["H"]),
    ]
    nodes = [*zeros, *tested.graph.node]
    del tested.graph.node[:]
    tested.graph.node.extend(nodes)
    after = same_outputs(tested, unroll, fed(tested, 3))
    assert prepared.kinds(after) == prepared.kinds(unroll(layer("GRU", has="B", outputs="H")))


def squeezed(batch_first: bool, *last: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
    swap = [helper.make_node("Transpose", ["z"], ["s"], perm=[1, 0, 2])] if batch_first else []
    axis = constant("direction_axis", [1])
    return axis, helper.make_node("Squeeze", ["Yout", "direction_axis"], ["z" if batch_first else "s"]), *swap, *last


def merged(*last: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
    """Both directions side by side."""
    return (
        helper.make_node("Transpose", ["Yout"], ["t"], perm=[0, 2, 1, 3]),
        constant("merged_shape", [0, 0, -1]),
        helper.make_node("Reshape", ["t", "merged_shape"], ["s"]),
        *last,
    )


def gathered(index: Any, axis: int) -> tuple[onnx.NodeProto, ...]:
    return constant("index", index), helper.make_node("Gather", ["s", "index"], ["picked"], axis=axis)


def sliced(start: int, end: int, axis: int) -> tuple[onnx.NodeProto, ...]:
    edges = (constant("start", [start]), constant("end", [end]), constant("axis", [axis]))
    return *edges, helper.make_node("Slice", ["s", "start", "end", "axis"], ["picked"])


# With the direction, and the steps that are read.
READERS = {
    "last": (Reader(squeezed(True, *gathered(-1, 1)), 2), "forward", {STEPS - 1}),
    "last, kept": (Reader(squeezed(True, *gathered([-1], 1)), 3), "forward", {STEPS - 1}),
    "first of reverse": (Reader(squeezed(False, *gathered(0, 0)), 2), "reverse", {0}),
    "third of reverse": (Reader(squeezed(False, *gathered([2], 0)), 3), "reverse", {2}),
    "several": (Reader(squeezed(True, *gathered([3, 1, 3], 1)), 3), "forward", {1, 3}),
    "a table of steps": (Reader(squeezed(False, *gathered([[3, 1], [0, 0]], 0)), 4), "forward", {0, 1, 3}),
    "a table of one": (Reader(squeezed(False, *gathered([[3]], 0)), 4), "forward", {3}),
    "last of both": (Reader(merged(*gathered(-1, 0)), 2), "bidirectional", {STEPS - 1}),
    "slice": (Reader(squeezed(False, *sliced(1, 3, -3)), 3), "forward", {1, 2}),
    "last slice": (Reader(squeezed(True, *sliced(-1, 2**62, 1)), 3), "forward", {STEPS - 1}),
    "slice of both": (Reader(merged(*sliced(-2, 2**62, 0)), 3), "bidirectional", {STEPS - 2, STEPS - 1}),
}


@pytest.mark.parametrize("name", READERS)
def test_steps_that_nobody_reads_are_not_made(name: str) -> None:
    reader, direction, times = READERS[name]
    tested = layer("LSTM", direction=direction, has="B", outputs="Y", reader=reader)
    after = same_outputs(tested, unroll, *(fed(tested, batch) for batch in BATCHES))
    forward = max(times) + 1 if direction != "reverse" else 0
    backward = STEPS - min(times) if direction != "forward" else 0
    assert Counter(prepared.kinds(after))["Tanh"] == 2 * (forward + backward)


@pytest.mark.parametrize(
    "reader",
    [
        Reader((helper.make_node("Neg", ["Yout"], ["picked"]),), 4),
        Reader((*squeezed(False), helper.make_node("Relu", ["s"], ["picked"]))),
        Reader(squeezed(False, *gathered(1, 1)), 2),
        Reader(squeezed(False, *sliced(0, 2, 2))),
    ],
)
def test_other_readers_get_every_step(reader: Reader) -> None:
    tested = layer("GRU", has="B", outputs="Y", reader=reader)
    after = same_outputs(tested, unroll, fed(tested, 3))
    assert Counter(prepared.kinds(after))["Tanh"] == STEPS


def test_layers_upon_layers() -> None:
    shapes = {"W": (1, 3 * HIDDEN, HIDDEN), "R": (1, 3 * HIDDEN, HIDDEN)}
    second = helper.make_node("GRU", ["s", "W2", "R2"], ["", "picked"], hidden_size=HIDDEN, name="second")
    tested = layer("GRU", has="B", outputs="Y", reader=Reader((*squeezed(False), second)))
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        value = rng.normal(0, 0.7, shape).astype(np.float32)
        tested.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}2"))
    after = same_outputs(tested, unroll, *(fed(tested, batch) for batch in BATCHES))
    assert "GRU" not in prepared.kinds(after)


def test_few_nodes_a_step() -> None:
    """Each runs once a step, and two or three more for it in the backward pass."""
    cells: list[tuple[str, dict[str, Any], int]] = [
        ("RNN", {}, 2),
        ("GRU", {}, 9),
        ("GRU", {"linear_before_reset": 1}, 10),
        ("LSTM", {}, 10),
    ]
    for kind, attributes, a_step in cells:
        counts = [len(unroll(layer(kind, has="B", outputs="H", steps=n, **attributes)).graph.node) for n in (10, 11)]
        assert counts[1] - counts[0] == a_step, kind


def test_a_model_without_recurrence_stays() -> None:
    tested = prepared.model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["batch", 2]}, {"y": ["batch", 2]})
    assert prepared.kinds(unroll(tested)) == ["Relu"]


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("GRU", {"steps": "length"}, r"GRU \(node 'layer'\): the sequence length of X is not fixed"),
        ("LSTM", {"clip": 3.0}, r"LSTM \(node 'layer'\): clip is not supported: export"),
        ("LSTM", {"input_forget": 1}, "input_forget is not supported: export"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations hardsigmoid, tanh are not supported, sigmoid"),
        ("RNN", {"activations": ["Relu"]}, r"RNN \(node 'layer'\): activations relu are not supported, tanh are"),
    ],
)
def test_what_cannot_be_unrolled_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CompileError, match=said):
        unroll(layer(kind, **changes))


def test_default_activations_may_be_named() -> None:
    tested = layer("GRU", activations=["Sigmoid", "Tanh"])
    same_outputs(tested, unroll, fed(tested, 3))


@pytest.mark.parametrize(("lengths", "refused"), [([STEPS] * 3, False), ([STEPS, 2, STEPS], True)])
def test_sequence_lengths(lengths: list[int], refused: bool) -> None:
    tested = layer("GRU")
    tested.graph.node[0].input[4] = "lengths"
    tested.graph.initializer.append(onnx.numpy_helper.from_array(np.array(lengths, np.int32), "lengths"))
    if refused:
        with pytest.raises(CompileError, match="sequence_lens is not supported: export"):
            unroll(tested)
    else:
        same_outputs(tested, unroll, fed(tested, 3))
