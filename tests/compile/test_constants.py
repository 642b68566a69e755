"""What is constant is computed; parameters and free dimensions stay."""

import numpy as np
import onnx
import prepared
import pytest
from onnx import helper
from prepared import BATCHES, constant, fed, model, same_outputs

from edgeclient.compile.prepare.constants import fold


def folded(*nodes: onnx.NodeProto, rank: int = 2, shape: tuple[int, ...] = (4,), opset: int = 17) -> onnx.ModelProto:
    """The folded model from x (batch, *shape) to y, which gives what the model gives."""
    weight = {"w": np.random.default_rng(0).normal(0, 1, (4, 4)).astype(np.float32), "k": np.array([2, 2])}
    tested = model(nodes, {"x": ["batch", *shape]}, {"y": [None] * rank}, weight, opset=opset)
    return same_outputs(tested, fold, *(fed(tested, batch) for batch in BATCHES))


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def test_formulas_of_constants() -> None:
    after = folded(
        constant("a", 2.0, np.float32), node("Sqrt", "a", "b"), node("Neg", "b", "c"), node("Mul", "x c", "y")
    )
    assert prepared.kinds(after) == ["Constant", "Mul"]


def test_integer_initializers_are_constants() -> None:
    after = folded(node("Mul", "k k", "double"), node("Tile", "x double", "y"))
    assert prepared.kinds(after) == ["Constant", "Tile"]


@pytest.mark.parametrize("attributes", [{}, {"start": 1}, {"start": -1, "end": 3}])
def test_fixed_dimensions(attributes: dict[str, int]) -> None:
    index = 0 if attributes else 2
    nodes = [
        node("Shape", "x", "s", **attributes),
        constant("i", [index]),
        node("Gather", "s i", "d"),
        node("Cast", "d", "f", to=1),
        node("Div", "x f", "y"),
    ]
    assert prepared.kinds(folded(*nodes, rank=3, shape=(4, 5))) == ["Constant", "Div"]


def test_free_dimensions_are_computed_when_it_runs() -> None:
    nodes = [
        node("Shape", "x", "s"),
        constant("zero", 0),
        constant("axes", [0]),
        node("Gather", "s zero", "b"),
        node("Unsqueeze", "b axes", "u"),
        constant("two", [2, 2]),
        node("Concat", "u two", "shape", axis=0),
        node("Reshape", "x shape", "y"),
    ]
    after = folded(*nodes, rank=3)
    assert prepared.kinds(after).count("Shape") == prepared.kinds(after).count("Concat") == 1


def test_a_fixed_part_of_a_shape_with_a_free_one() -> None:
    nodes = [
        node("Shape", "x", "s"),
        constant("one", [1]),
        node("Concat", "s one", "longer", axis=0),
        constant("i", 2),
        node("Gather", "longer i", "d"),
        node("Cast", "d", "f", to=1),
        node("Mul", "x f", "y"),
    ]
    assert prepared.kinds(folded(*nodes, rank=3, shape=(4, 5))) == ["Constant", "Mul"]


def test_parameters_are_no_constants() -> None:
    nodes = [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "y")]
    assert prepared.kinds(folded(*nodes)) == ["Transpose", "MatMul"]


def test_shared_weights_are_one_parameter() -> None:
    nodes = [node("Identity", "w", "copy"), node("MatMul", "x w", "a"), node("MatMul", "a copy", "y")]
    after = folded(*nodes)
    assert prepared.kinds(after) == ["MatMul", "MatMul"]
    assert [each.input[1] for each in after.graph.node] == ["w", "w"]


def test_an_output_keeps_its_identity() -> None:
    assert prepared.kinds(folded(node("Identity", "x", "y"))) == ["Identity"]


def test_random_numbers_stay_random() -> None:
    nodes = [
        constant("shape", [4]),
        node("ConstantOfShape", "shape", "zeros"),
        node("RandomNormalLike", "zeros", "noise"),
        constant("null", 0.0, np.float32),
        node("Mul", "noise null", "nothing"),
        node("Add", "x nothing", "y"),
    ]
    assert "RandomNormalLike" in prepared.kinds(folded(*nodes))


def test_large_constants_are_not_written_out() -> None:
    nodes = [
        constant("shape", [1000, 4]),
        node("ConstantOfShape", "shape", "zeros"),
        node("ReduceSum", "zeros", "sum", keepdims=0),
        node("Add", "x sum", "y"),
    ]
    assert "ConstantOfShape" not in prepared.kinds(folded(*nodes))
    nodes[0] = constant("shape", [100_000, 4])
    assert "ConstantOfShape" in prepared.kinds(folded(*nodes))


def test_values_that_a_branch_captures_keep_their_names() -> None:
    inner = helper.make_tensor_value_info("inner", 1, ["batch", 4])
    branch = helper.make_graph([node("Add", "copy copy", "inner")], "branch", [], [inner])
    nodes = [
        node("Identity", "x", "copy"),
        constant("yes", True, np.bool_),
        node("If", "yes", "y", then_branch=branch, else_branch=branch),
    ]
    assert "Identity" in prepared.kinds(folded(*nodes))
