"""The zoo is valid, runs, and is what float64 says."""

import doctest
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx
import pytest

from edgeclient.compile.reference.evaluate import Reference
from edgeclient.compress.arrays import Array
from edgeclient.train import runtime
from tools import zoo
from tools.zoo import ZOO, Entry

SIZES = (1, 3, 17)
KINDS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.INT64: np.int64}

Feeds = dict[str, Array]


@pytest.fixture(params=ZOO.values(), ids=list(ZOO))
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    return found


def feeds(entry: Entry, model: onnx.ModelProto, size: int) -> tuple[Feeds, Array]:
    *inputs, labels = entry.batch(size, np.random.default_rng(size))
    return dict(zip((each.name for each in model.graph.input), inputs, strict=True)), labels


def shape(value: Any) -> list[Any]:
    return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]


def test_each_model_is_valid_and_always_the_same(entry: Entry) -> None:
    model = entry.build()
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString(deterministic=True) == entry.build().SerializeToString(deterministic=True)
    assert 8 <= model.ir_version <= 10
    assert [each.version for each in model.opset_import] == [20 if entry.name == "transformer" else 17]


def test_each_model_is_as_exporters_write_it(entry: Entry) -> None:
    model = entry.build()
    assert [each.name for each in model.graph.output] == ["logits"]
    assert {shape(each)[0] for each in (*model.graph.input, *model.graph.output)} == {"batch"}
    for node in model.graph.node:
        assert node.domain == ""
        match node.op_type:
            case "LayerNormalization" | "BatchNormalization":
                assert len(node.output) == 1
            case "GRU" | "LSTM":
                assert len(node.input) == 4


def test_patterns_choose_parameters(entry: Entry) -> None:
    names = [each.name for each in entry.build().graph.initializer]
    trained = [name for name in names if any(fnmatchcase(name, pattern) for pattern in entry.trainable)]
    assert len(trained) == (16 if entry.name == "lora" else len(names))


@pytest.mark.parametrize("size", SIZES)
def test_each_batch_fits_its_model(entry: Entry, size: int) -> None:
    model = entry.build()
    given, labels = feeds(entry, model, size)
    for value in model.graph.input:
        array = given[value.name]
        assert array.dtype == KINDS[value.type.tensor_type.elem_type]
        assert list(array.shape) == [size, *shape(value)[1:]]
    assert labels.dtype == np.int64
    assert labels.shape == (size,)
    assert 0 <= labels.min() <= labels.max() < shape(model.graph.output[0])[1]


def test_each_model_runs_as_it_does_in_float64(entry: Entry) -> None:
    model = entry.build()
    session = runtime.load().InferenceSession(model.SerializeToString(), runtime.session_options(1))
    reference = Reference(model)
    for size in SIZES:
        given, _ = feeds(entry, model, size)
        (logits,) = session.run(["logits"], given)
        exact = reference.run(given)["logits"]
        assert exact.dtype == np.float64
        assert logits.shape == exact.shape
        assert np.linalg.norm(logits - exact) <= 1e-5 * np.linalg.norm(exact)


def test_the_example_runs() -> None:
    assert doctest.testmod(zoo) == (0, 3)
