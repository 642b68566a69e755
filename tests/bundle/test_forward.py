"""A bundle's forward graph with weights put back is the model that its user gave."""

from importlib import resources

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from broker.demo import data as demo_data
from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.archive import FORWARD, FROZEN
from edgeclient.bundle.forward import with_parameters
from edgeclient.compile import weights
from edgeclient.compress.arrays import F32
from edgeclient.train import runtime
from edgeclient.wire.errors import WireError
from tools import bundles
from tools.chaos import plan

RNG = np.random.default_rng(5)
WEIGHTS: dict[str, F32] = {
    "w": RNG.normal(size=(16, 4)).astype(np.float32),
    "b": RNG.normal(size=4).astype(np.float32),
    "scale": np.array(1.5, np.float32),
}


def scores(model: bytes, x: F32) -> F32:
    session = runtime.load().InferenceSession(model, runtime.session_options(1))
    (made,) = session.run(None, {session.get_inputs()[0].name: x})
    return made  # type: ignore[no-any-return]


def given_model(trained: dict[str, F32]) -> onnx.ModelProto:
    """A frozen layer of 2 KiB, a small one, and trained parameters: one a Constant node, one a lone number."""
    rng = np.random.default_rng(6)
    inside = {
        "large": rng.normal(size=(32, 16)).astype(np.float32),
        "small": rng.normal(size=16).astype(np.float32),
        **{name: value for name, value in trained.items() if name != "b"},
    }
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(trained["b"])),
            helper.make_node("Gemm", ["x", "large", "small"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w", "b"], ["raw"]),
            helper.make_node("Mul", ["raw", "scale"], ["scores"]),
        ],
        "given",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in inside.items()],
        doc_string="as its user wrote it",
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def packed(model: onnx.ModelProto) -> tuple[bytes, bytes]:
    """forward.onnx and frozen.safetensors, as the compiler makes them."""
    made = weights.without(model, {name: value.shape for name, value in WEIGHTS.items()})
    assert made is not None
    frozen: dict[str, F32] = {}
    placed = weights.externalised(made, frozen)
    content = safetensors.encode(frozen)
    weights.place(placed, safetensors.places(content))
    return placed.SerializeToString(), content


X = RNG.normal(size=(5, 32)).astype(np.float32)
GIVEN = given_model(WEIGHTS)
GRAPH, FROZEN_WEIGHTS = packed(GIVEN)


def test_the_graph_is_small_and_says_what_the_user_said() -> None:
    assert len(GRAPH) < 700
    made = onnx.load_model_from_string(with_parameters(GRAPH, WEIGHTS, FROZEN_WEIGHTS))
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == 13
    assert made.graph.doc_string == "as its user wrote it"
    assert {each.name for each in made.graph.initializer} == {"large", "small", *WEIGHTS}
    assert [each.op_type for each in made.graph.node] == ["Gemm", "Relu", "Gemm", "Mul"]


def test_it_computes_what_the_given_model_computes() -> None:
    assert np.array_equal(
        scores(with_parameters(GRAPH, WEIGHTS, FROZEN_WEIGHTS), X), scores(GIVEN.SerializeToString(), X)
    )


def test_changed_parameters_are_those_of_a_changed_model() -> None:
    changed = {name: (value * np.float32(0.5) + np.float32(0.25)).astype(np.float32) for name, value in WEIGHTS.items()}
    wanted = scores(given_model(changed).SerializeToString(), X)
    assert np.array_equal(scores(with_parameters(GRAPH, changed, FROZEN_WEIGHTS), X), wanted)
    assert not np.array_equal(wanted, scores(GIVEN.SerializeToString(), X))


def test_without_the_frozen_file_the_model_refers_to_it() -> None:
    made = onnx.load_model_from_string(with_parameters(GRAPH, WEIGHTS))
    (large,) = [each for each in made.graph.initializer if each.name == "large"]
    assert {each.key: each.value for each in large.external_data}["location"] == FROZEN


@pytest.mark.parametrize(
    ("content", "model"),
    [
        (demo_data.bundle_bytes(), bundles.demo_model()),
        (plan.BUNDLE.read_bytes(), bundles.chaos_model()),
    ],
    ids=["demo", "chaos"],
)
def test_committed_bundles_carry_their_forward_graph(content: bytes, model: onnx.ModelProto) -> None:
    opened = archive.decode(content)
    tensors = opened.manifest.layout.split(opened.parameters)
    made = with_parameters(opened.files[FORWARD], tensors, opened.files.get(FROZEN))
    x = RNG.normal(size=(9, opened.manifest.inputs[0].shape[1])).astype(np.float32)
    assert np.array_equal(scores(made, x), scores(model.SerializeToString(), x))


def test_the_starter_project_can_be_exported() -> None:
    place = resources.files("edgeclient.commands.new").joinpath("classifier", "model.bundle")
    opened = archive.decode(place.read_bytes())
    made = with_parameters(opened.files[FORWARD], opened.manifest.layout.split(opened.parameters))
    assert scores(made, RNG.normal(size=(2, 3, 32)).astype(np.float32)).shape == (2, 3)


def test_a_model_that_the_compiler_had_to_rewrite_gives_no_graph() -> None:
    assert weights.without(GIVEN, {"w": (4, 16)}) is None
    assert weights.without(GIVEN, {"w/unrolled": (16, 4)}) is None


@pytest.mark.parametrize("frozen", [b"", FROZEN_WEIGHTS[:-4]])
def test_a_frozen_file_that_is_too_short(frozen: bytes) -> None:
    with pytest.raises(WireError, match="truncated"):
        with_parameters(GRAPH, WEIGHTS, frozen)


def made_or_refused(graph: bytes) -> bytes | None:
    try:
        return with_parameters(graph, WEIGHTS, FROZEN_WEIGHTS)
    except WireError:
        return None


def test_prefixes_are_refused_up_to_the_end_of_the_graph() -> None:
    whole = [end for end in range(len(GRAPH)) if made_or_refused(GRAPH[:end]) is not None]
    assert len(whole) <= 2  # what follows the graph is the set of operators


@given(st.binary(max_size=200))
def test_junk(junk: bytes) -> None:
    made_or_refused(junk)
    made_or_refused(GRAPH[:40] + junk + GRAPH[40:])
