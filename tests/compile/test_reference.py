"""The oracle is float64 throughout, and its differences notice what is wrong and nothing else."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.differences import gradient_error, probe
from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import F64, Array
from tools.zoo import ZOO

THIRD = np.float32(1 / 3)
FLOAT, X = TensorProto.FLOAT, helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
POINT = np.array([1.0, -2.0])


def model(nodes: list[onnx.NodeProto], *initializers: onnx.TensorProto, **a: Any) -> onnx.ModelProto:
    """x (2,) → y."""
    graph = helper.make_graph(nodes, "g", [X], [helper.make_tensor_value_info("y", FLOAT, None)], list(initializers))
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in ("", "local", "com.microsoft")]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **a)


def node(kind: str, inputs: str, output: str = "y", **a: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), output.split(), **a)


def tensor(value: Any, name: str = "") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def y(made: onnx.ModelProto, **feeds: Any) -> Any:
    return Reference(made).run({"x": POINT, **feeds})["y"]


# Float64


@pytest.mark.parametrize(
    "constant",
    [
        node("Constant", "", "c", value=tensor(THIRD)),
        node("Constant", "", "c", value_float=float(THIRD)),
        node("Constant", "", "c", value_floats=[float(THIRD)] * 2),
        node("ConstantOfShape", "two", "c", value=tensor([THIRD])),
    ],
    ids=["value", "value_float", "value_floats", "ConstantOfShape"],
)
def test_constants_become_float64(constant: onnx.NodeProto) -> None:
    two = numpy_helper.from_array(np.array([2]), "two")
    tiny = 1 + 1e-12
    found = y(model([constant, node("Mul", "x c")], two), x=POINT * tiny)
    assert found.dtype == np.float64
    assert np.array_equal(found, POINT * tiny * np.float64(THIRD))


def test_casts_and_default_types_become_float64() -> None:
    nodes = [
        node("Cast", "x", "a", to=FLOAT),
        node("Shape", "x", "two"),
        node("ConstantOfShape", "two", "zeros"),
        node("ConstantOfShape", "square", "ints", value=numpy_helper.from_array(np.array([0]))),
        node("EyeLike", "ints", "eye", dtype=FLOAT),
        node("Add", "a zeros", "sum"),
        node("MatMul", "eye sum"),
    ]
    assert np.array_equal(y(model(nodes, numpy_helper.from_array(np.array([2, 2]), "square")), x=POINT / 3), POINT / 3)


def test_subgraphs_become_float64() -> None:
    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    scaled = [node("Constant", "", "c", value=tensor(THIRD)), node("Mul", "outer c", "then")]
    chosen = node(
        "If",
        "condition",
        then_branch=branch("then", *scaled),
        else_branch=branch("else", node("Cast", "outer", "else", to=FLOAT)),
    )
    nodes = [node("Mul", "x third", "outer"), chosen]
    third = tensor([THIRD], "third")
    for condition, factor in ((True, np.float64(THIRD)), (False, 1.0)):
        made = model(nodes, third, numpy_helper.from_array(np.array(condition), "condition"))
        assert np.array_equal(y(made), POINT * np.float64(THIRD) * factor)


def test_local_functions_become_float64() -> None:
    body = [node("Constant", "", "c", value=tensor(THIRD)), node("Mul", "a c", "b")]
    function = helper.make_function("local", "Third", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    made = model([node("Third", "x", domain="local")], functions=[function])
    assert np.array_equal(y(made), POINT * np.float64(THIRD))


def test_what_stays_narrower_is_refused_by_name() -> None:
    nodes = [node("Cast", "x", "half", to=TensorProto.FLOAT16), node("Cast", "half", to=FLOAT)]
    with pytest.raises(CompileError, match=r"Cast .* is float16"):
        y(model(nodes))


def test_ops_beyond_the_standard_are_refused_by_name() -> None:
    with pytest.raises(CompileError, match="FusedMatMul"):
        Reference(model([node("FusedMatMul", "x x", domain="com.microsoft")]))


# Feeds and outputs


def test_feeds_may_replace_initializers() -> None:
    reference = Reference(model([node("Mul", "x w")], tensor([2, 2], "w")))
    assert np.array_equal(reference.run({"x": POINT})["y"], 2 * POINT)
    given: dict[str, Array] = {
        "x": POINT.astype(np.float32),
        "w": np.array([1, 3], np.float32),
        "unknown": POINT,
    }
    assert np.array_equal(reference.run(given)["y"], [1, -6])
    with pytest.raises(ValueError, match="no value for the input x"):
        reference.run({})


def test_only_what_the_outputs_need_is_evaluated() -> None:
    made = model([node("Neg", "x", "a"), node("FusedMatMul", "a a", domain="com.microsoft")])
    assert np.array_equal(Reference(made, ["a"]).run({"x": POINT})["a"], -POINT)
    with pytest.raises(ValueError, match="no value named z"):
        Reference(made, ["z"])
    assert made.graph.node[1].op_type == "FusedMatMul"


def test_an_unused_output_is_no_input() -> None:
    nodes = [
        node("TopK", "x one", "best", axis=0),
        helper.make_node("TopK", ["x", "one"], ["", "place"], axis=0),
        helper.make_node("Clip", ["x", "", "best"], ["y"]),
    ]
    assert np.array_equal(y(model(nodes, numpy_helper.from_array(np.array([1]), "one")), x=POINT), POINT)


# Differences


def test_derivatives_of_smooth_functions() -> None:
    direction = np.array([0.5, -1.0])
    found = probe(lambda p: float(np.exp(p).sum()), POINT, direction)
    assert found.value == pytest.approx(float(np.exp(POINT) @ direction), rel=1e-10)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.2, 1 / 3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("side", [-1, 1])
def test_bends_within_the_step_are_stepped_over(share: float, side: int) -> None:
    bend = side * share * 1e-5

    def f(p: F64) -> float:
        return float(np.sin(p[0]) + max(0.0, p[0] - bend))

    found = probe(f, np.zeros(1), np.ones(1))
    if share > 0.01:
        assert found.value == pytest.approx(1 if side > 0 else 2, abs=1e-7)
        assert found.doubt < 1e-6
    else:
        assert found.doubt > 0.1


def test_bends_at_the_point_itself_are_doubted() -> None:
    assert probe(lambda p: float(abs(p[0])), np.zeros(1), np.ones(1)).doubt > 0.1


def loss_and_gradients(size: int) -> tuple[Any, dict[str, F64], dict[str, F64]]:
    """The MLP of the zoo with cross-entropy; gradients by hand."""
    entry, made = ZOO["mlp"], ZOO["mlp"].build()
    x, labels = entry.batch(size, np.random.default_rng(3))
    parameters = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in made.graph.initializer}
    reference, rows = Reference(made), np.arange(size)

    def loss(values: dict[str, F64]) -> float:
        z = reference.run({"x": x, **values})["logits"]
        z = z - z.max(1, keepdims=True)
        return float((np.log(np.exp(z).sum(1)) - z[rows, labels]).mean())

    x64 = x.astype(np.float64)
    hidden = np.maximum(x64 @ parameters["hidden.weight"].T + parameters["hidden.bias"], 0)
    z = hidden @ parameters["output.weight"].T + parameters["output.bias"]
    d_z = np.exp(z - z.max(1, keepdims=True))
    d_z /= d_z.sum(1, keepdims=True)
    d_z[rows, labels] -= 1
    d_z /= size
    d_hidden = (d_z @ parameters["output.weight"]) * (hidden > 0)
    gradients = {
        "hidden.weight": d_hidden.T @ x64,
        "hidden.bias": d_hidden.sum(0),
        "output.weight": d_z.T @ hidden,
        "output.bias": d_z.sum(0),
    }
    return loss, parameters, gradients


@pytest.mark.parametrize("size", [1, 3, 17])
def test_a_right_gradient_is_right_to_eight_digits(size: int) -> None:
    loss, parameters, gradients = loss_and_gradients(size)
    found = gradient_error(loss, parameters, gradients, np.random.default_rng(size))
    assert found.relative < 1e-9
    assert found.norm == pytest.approx(float(np.linalg.norm([np.linalg.norm(each) for each in gradients.values()])))
    assert not found.unchecked


@pytest.mark.parametrize("name", ["hidden.weight", "hidden.bias", "output.weight", "output.bias"])
def test_a_factor_wrong_by_1e4_in_one_tensor_is_noticed(name: str) -> None:
    loss, parameters, gradients = loss_and_gradients(3)
    share = 1e-4 * np.linalg.norm(gradients[name]) / np.linalg.norm([np.linalg.norm(g) for g in gradients.values()])
    found = gradient_error(
        loss, parameters, {**gradients, name: gradients[name] * (1 + 1e-4)}, np.random.default_rng(1)
    )
    assert found.worst == name
    # Differences along the gradient see the error itself; random directions may see a few times as much.
    assert 0.99 * share < found.relative < 5 * share
    errors = {each.name: each.error for each in found.tensors}
    assert errors[name] / found.norm == pytest.approx(found.relative, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_one_wrong_coordinate_among_38400_is_noticed(seed: int) -> None:
    loss, parameters, gradients = loss_and_gradients(3)
    rng = np.random.default_rng(seed)
    wrong = gradients["hidden.weight"].copy()
    wrong.reshape(-1)[rng.integers(wrong.size)] += 1e-4 * np.linalg.norm(wrong)
    found = gradient_error(loss, parameters, {**gradients, "hidden.weight": wrong}, rng, coordinates=4)
    assert found.worst == "hidden.weight"
    assert found.relative > 5e-5


def test_bends_everywhere_are_no_error() -> None:
    rng = np.random.default_rng(5)
    # With 20 000 bends, one lies about 1e-5 away in any direction.
    rows, w = rng.normal(size=(20_000, 6)), rng.normal(size=6)
    gradient = rows.T @ (rows @ w > 0) / len(rows)

    def loss(values: dict[str, F64]) -> float:
        return float(np.maximum(rows @ values["w"], 0).mean())

    assert gradient_error(loss, {"w": w}, {"w": gradient}, rng).relative < 1e-8
    assert gradient_error(loss, {"w": w}, {"w": gradient * (1 + 1e-4)}, rng).relative == pytest.approx(1e-4, rel=1e-3)


def test_what_cannot_be_known_is_said() -> None:
    def loss(values: dict[str, F64]) -> float:
        return float(np.maximum(values["b"], 0).sum() + values["w"].sum())

    parameters = {"w": np.ones(3), "b": np.zeros(3)}
    found = gradient_error(loss, parameters, {"w": np.ones(3), "b": np.zeros(3)}, np.random.default_rng(1))
    assert found.unchecked == ("b",)
    assert found.relative < 1e-9
    assert {each.name: each.bent for each in found.tensors}["b"] > 0


def test_zero_and_infinite_gradients() -> None:
    def loss(values: dict[str, F64]) -> float:
        return float((values["w"] ** 2).sum())

    def relative(at: F64, gradient: F64) -> float:
        return gradient_error(loss, {"w": at}, {"w": gradient}, np.random.default_rng(1)).relative

    assert relative(np.zeros(3), np.zeros(3)) < 1e-9
    assert relative(np.ones(3), np.zeros(3)) == 1
    assert relative(np.ones(3), np.array([2, np.nan, 2])) == np.inf


def test_parameters_without_a_gradient_stay() -> None:
    def loss(values: dict[str, F64]) -> float:
        return float(values["w"] @ values["frozen"])

    parameters = {"w": np.ones(2), "frozen": np.array([1.0, 2.0])}
    found = gradient_error(loss, parameters, {"w": parameters["frozen"]}, np.random.default_rng(1))
    assert found.relative < 1e-9
    for wrong in ({"v": np.ones(2)}, {"w": np.ones(3)}):
        with pytest.raises(ValueError, match="no parameter's"):
            gradient_error(loss, parameters, wrong, np.random.default_rng(1))
