"""Decomposed ops give the outputs of ONNX Runtime's own."""

from typing import Any

import numpy as np
import onnx
import prepared
import pytest
from decomposed import CASES, MISSING, case, node, padded, unary
from prepared import BATCHES, fed, same_outputs

from edgeclient.compile.errors import CompileError
from edgeclient.compile.prepare.decompose import RULES, decompose


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_same(name: str) -> None:
    tested = CASES[name]
    after = same_outputs(tested, decompose, *(fed(tested, batch) for batch in BATCHES))
    assert not MISSING & set(prepared.kinds(after))


def test_every_rule_has_a_case() -> None:
    seen = {each.op_type for tested in CASES.values() for each in tested.graph.node}
    assert seen >= RULES.keys() - {"ScatterND"}


@pytest.mark.parametrize("kind", ["Elu", "Celu", "Selu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish"])
def test_extreme_values(kind: str) -> None:
    tested = case([node(kind, ["xp"], ["y"])], (6,), opset=18)
    p = np.array([1, 1, 1, -1, -1, -1], np.float32)
    tested.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(p, "p"))
    feed = {"x": np.array([[0, 1e-3, 20, 90, 1e4, 1e30]], np.float32)}
    before, after = prepared.run(tested, feed)[0], prepared.run(decompose(tested), feed)[0]
    assert np.isfinite(after[np.isfinite(before)]).all()
    assert np.allclose(before, after, rtol=1e-5, atol=2e-7, equal_nan=True)


def test_integers_stay() -> None:
    """They have no gradient, and need none."""
    nodes = [
        node("Cast", ["xp"], ["whole"], to=7),
        node("ReduceMax", ["whole"], ["most"], axes=[1], keepdims=1),
        node("Cast", ["most"], ["z"], to=1),
        node("Mul", ["xp", "z"], ["y"]),
    ]
    assert "ReduceMax" in prepared.kinds(decompose(case(nodes, (3,))))


def test_a_split_with_all_its_parts_stays() -> None:
    nodes = [node("Split", ["xp"], ["a", "b"], axis=1), node("Mul", ["a", "b"], ["y"])]
    assert prepared.kinds(decompose(case(nodes, (4,)))) == ["Mul", "Split", "Mul"]


def test_layer_normalization_in_full_stays() -> None:
    nodes = [node("LayerNormalization", ["xp", "g", "b"], ["y", "m", "s"])]
    tested = case(nodes, (4,), {"g": (4,), "b": (4,)})
    assert prepared.kinds(decompose(tested)) == ["Mul", "LayerNormalization"]


def test_a_free_spatial_size() -> None:
    """One that inference does not know is taken at run time."""
    tested = case([node("InstanceNormalization", ["xp", "g", "h"], ["y"])], (2, 1, 1), {"g": (2,), "h": (2,)})
    for axis in (2, 3):
        tested.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    feeds = [
        {"x": np.random.default_rng(1).normal(0, 1, (3, 2, *size)).astype(np.float32)} for size in ((4, 5), (2, 7))
    ]
    same_outputs(tested, decompose, *feeds)


def test_an_attention_mask_of_a_free_length() -> None:
    """A mask (batch, 1, time) that chooses between scores and a number costs no Expand."""
    nodes = [node("Greater", ["x", "null"], ["open"]), node("Where", ["open", "xp", "least"], ["y"])]
    tested = case(nodes, (3, 4), constants={"null": 0.0, "least": -1e9})
    assert "Expand" not in prepared.kinds(decompose(tested))


def scattered(kind: str, reduction: str) -> onnx.ModelProto:
    nodes = [node(kind, ["w", "places", "v"], ["z"], reduction=reduction), node("Mul", ["xp", "z"], ["y"])]
    places = [[0, 1]] if kind == "ScatterElements" else [[0], [1]]
    shape = (1, 2) if kind == "ScatterElements" else (2, 4)
    return case(nodes, (3, 4), {"w": (3, 4), "v": shape}, constants={"places": places}, opset=18)


def free(tested: onnx.ModelProto, axis: int) -> onnx.ModelProto:
    tested.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "free"
    tested.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "p"))
    return tested


def with_input(tested: onnx.ModelProto, name: str, shape: list[Any]) -> onnx.ModelProto:
    """A constant becomes an input."""
    tested.graph.node.remove(next(each for each in tested.graph.node if name in each.output))
    tested.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape))
    return tested


REFUSED = {
    "CumSum": (
        case([node("CumSum", ["xp", "axis"], ["y"], name="it")], (2000,), constants={"axis": 1}),
        r"CumSum \(node 'it'\): 2000 steps are more than 1024: sum over shorter pieces",
    ),
    "CumSum axis": (
        with_input(case([node("CumSum", ["xp", "axis"], ["y"])], (4,), constants={"axis": 1}), "axis", []),
        r"CumSum \(node 'y'\): its axis is computed when it runs: export",
    ),
    "reduction axes": (
        with_input(
            case([node("ReduceL1", ["xp", "axes"], ["y"])], (4,), constants={"axes": [1]}, opset=18), "axes", [1]
        ),
        r"ReduceL1 \(node 'y'\): its axes are computed when it runs: export",
    ),
    "norm": (unary("GlobalLpPool", (2, 3, 4), p=3), r"GlobalLpPool \(node 'y'\): p = 3 is not supported, 1 and 2 are"),
    "ScatterElements": (scattered("ScatterElements", "mul"), "reduction mul has no gradient: add, or"),
    "ScatterND": (scattered("ScatterND", "add"), "reduction add has no gradient: use ScatterElements"),
    "diagonal": (
        case([node("Einsum", ["xp"], ["y"], equation="bii->bi")], (3, 3)),
        "a letter occurs twice in an operand of bii->bi: take the diagonal",
    ),
    "Pad": (
        with_input(
            case([node("Pad", ["xp", "p2"], ["y"], mode="edge")], (4,), constants={"p2": [0, 1, 0, 1]}), "p2", [4]
        ),
        r"Pad \(node 'y'\): its pads are computed when it runs",
    ),
    "negative Pad": (padded("reflect", [0, -1, 0, 1], (4,)), "negative pads in mode reflect are not supported"),
    "free Pad": (free(padded("reflect", [0, 1, 0, 1], (4,)), 1), "Pad in mode reflect needs axes"),
    "free CumSum": (
        free(case([node("CumSum", ["xp", "axis"], ["y"])], (4,), constants={"axis": 1}), 1),
        "CumSum needs axes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_gradient_is_refused(name: str) -> None:
    tested, said = REFUSED[name]
    with pytest.raises(CompileError, match=said):
        decompose(tested)
