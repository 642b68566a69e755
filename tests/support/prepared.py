"""Models in and out of a preparation pass, compared in ONNX Runtime."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Read at the first import, for the process's life.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

from edgeclient.compress.arrays import Array

Shape = Sequence[int | str | None]
Pass = Callable[[onnx.ModelProto], onnx.ModelProto]
BATCHES = (1, 3, 17)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    parameters: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    integers: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are float32, those named in `integers` int64."""
    kinds = dict.fromkeys(integers, TensorProto.INT64)

    def value(name: str, shape: Shape | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)

    graph = helper.make_graph(
        list(nodes),
        "test",
        [value(*each) for each in inputs.items()],
        [value(*each) for each in outputs.items()],
        [numpy_helper.from_array(each, name) for name, each in (parameters or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def constant(name: str, value: Any, kind: type[np.generic] = np.int64) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value, kind)))


def run(tested: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs in plain ONNX Runtime, without graph optimisations: they cost more than the run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tested.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return list(session.run(None, {name: value for name, value in feeds.items() if name in names}))


def fed(tested: onnx.ModelProto, batch: int, seed: int = 0) -> dict[str, Array]:
    """Normal values for the inputs; every dimension without a number is the batch."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for each in tested.graph.input:
        shape = [dim.dim_value or batch for dim in each.type.tensor_type.shape.dim]
        made[each.name] = rng.normal(0, 1, shape).astype(np.float32)
    return made


def same_outputs(
    before: onnx.ModelProto, change: Pass, *feeds: Mapping[str, Array], within: float = 1e-5
) -> onnx.ModelProto:
    """The changed model, after it gave the outputs of the one before for each of the feeds; that one is untouched."""
    bytes_before = before.SerializeToString()
    after = change(before)
    assert before.SerializeToString() == bytes_before
    checker.check_model(after, full_check=True)
    assert [each.name for each in after.graph.output] == [each.name for each in before.graph.output]
    for feed in feeds:
        for want, have in zip(run(before, feed), run(after, feed), strict=True):
            assert have.shape == want.shape
            assert have.dtype == want.dtype
            scale = max(float(np.abs(want).max(initial=0)), 1e-30)
            assert float(np.abs(have - want).max(initial=0)) <= within * scale
    return after


def kinds(tested: onnx.ModelProto) -> list[str]:
    return [each.op_type for each in tested.graph.node]
