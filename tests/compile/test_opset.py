"""Old models are converted, foreign ops taken apart or refused."""

from typing import Any

import numpy as np
import onnx
import prepared
import pytest
from onnx import helper
from prepared import BATCHES, fed, model, same_outputs

from edgeclient.compile.errors import CompileError
from edgeclient.compile.prepare.opset import at_supported_opset
from edgeclient.compress.arrays import Array

RNG = np.random.default_rng(0)
MICROSOFT = "com.microsoft"


def weights(*shape: int) -> Array:
    return RNG.normal(0, 1, shape).astype(np.float32)


def one(
    kind: str, opset: int, shape: list[int], *, extra: dict[str, Array] | None = None, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node from x (batch, *shape), whose further inputs are `extra`."""
    node = helper.make_node(kind, ["x", *(extra or {})], ["y"], name="it", **attributes)
    rank = len(shape) + 1
    return model([node], {"x": ["batch", *shape]}, {"y": [None] * rank}, extra, opset=opset)


def versions(tested: onnx.ModelProto) -> dict[str, int]:
    return {each.domain: each.version for each in tested.opset_import}


@pytest.mark.parametrize("opset", range(13, 22))
def test_supported_opsets_stay(opset: int) -> None:
    tested = one("Relu", opset, [3])
    assert at_supported_opset(tested) == tested


OLD = {
    "Softmax over what is behind the axis": one("Softmax", 9, [3, 4], axis=1),
    "axes as attributes": one("ReduceSum", 11, [3, 4], axes=[1], keepdims=1),
    "BatchNormalization": one(
        "BatchNormalization", 7, [3, 4, 4], extra={name: abs(weights(3)) + 0.5 for name in "abcd"}
    ),
    "Upsample": one("Upsample", 9, [3, 4, 4], extra={"s": np.array([1, 1, 2, 2], np.float32)}, mode="nearest"),
    "Dropout": one("Dropout", 7, [3], ratio=0.3),
    "Clip by attributes": one("Clip", 10, [3], min=0.0, max=0.5),
    "Slice by attributes": one("Slice", 9, [3], axes=[1], starts=[0], ends=[2]),
    "Pad by attributes": one("Pad", 7, [3], pads=[0, 1, 0, 2]),
    "GRU": model(
        [helper.make_node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=2)],
        {"x": [4, "batch", 3]}, {"y": [1, "batch", 2]}, {"w": weights(1, 6, 3), "r": weights(1, 6, 2)}, opset=7,
    ),
    "AveragePool": one("AveragePool", 7, [3, 4, 4], kernel_shape=[2, 2]),
    "MaxPool": one("MaxPool", 8, [3, 4, 4], kernel_shape=[2, 2]),
    "Gemm": one("Gemm", 7, [4], extra={"w": weights(4, 2), "c": weights(2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_old_models_are_converted(name: str) -> None:
    after = same_outputs(OLD[name], at_supported_opset, *(fed(OLD[name], batch) for batch in BATCHES))
    assert versions(after) == {"": 17}


def test_initializers_are_no_inputs() -> None:
    """Before IR version 4 they had to be."""
    tested = one("Gemm", 9, [4], extra={"w": weights(4, 2), "c": weights(2)})
    for each in tested.graph.initializer:
        tested.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    tested.ir_version = 3
    after = at_supported_opset(tested)
    assert [each.name for each in after.graph.input] == ["x"]
    assert {each.name for each in after.graph.initializer} == {"w", "c"}
    assert after.ir_version >= 4


def test_ir_version_is_lowered() -> None:
    tested = one("Relu", 17, [3])
    tested.ir_version = 11
    assert at_supported_opset(tested).ir_version == 10


@pytest.mark.parametrize(
    ("opset", "said"),
    [
        (6, "opset 6 is too old, 7 is the oldest that can be converted: export the model again with opset 17"),
        (22, "opset 22 is too new, 21 is the newest that ONNX Runtime trains: export the model again with opset 17"),
    ],
)
def test_other_opsets_are_refused(opset: int, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        at_supported_opset(one("Relu", opset, [3]))


def test_no_opset_is_refused() -> None:
    tested = one("Relu", 17, [3])
    del tested.opset_import[:]
    with pytest.raises(CompileError, match=r"names no opset of ai\.onnx: export"):
        at_supported_opset(tested)


def test_what_the_converter_cannot_do_is_refused() -> None:
    statistics = {name: weights(3) for name in "abcd"}
    tested = one("BatchNormalization", 7, [3, 4, 4], extra=statistics, spatial=0)
    with pytest.raises(CompileError, match=r"opset 7 cannot be converted to 17: export .* \(reason: ."):
        at_supported_opset(tested)


def test_the_other_name_of_the_standard_domain() -> None:
    tested = one("Relu", 17, [3], domain="ai.onnx")
    tested.opset_import[0].domain = "ai.onnx"
    after = at_supported_opset(tested)
    assert versions(after) == {"": 17}
    assert not after.graph.node[0].domain


def test_functions_are_written_out() -> None:
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    tested = one("Twice", 17, [3], domain="local")
    tested.functions.append(twice)
    tested.opset_import.append(helper.make_opsetid("local", 1))
    after = same_outputs(tested, at_supported_opset, fed(tested, 3))
    assert prepared.kinds(after) == ["Add"]
    assert versions(after) == {"": 17}


def fused(
    kind: str, shape: list[int], *, opset: int = 17, extra: dict[str, Array] | None = None, **attributes: Any
) -> onnx.ModelProto:
    tested = one(kind, opset, shape, extra=extra, domain=MICROSOFT, **attributes)
    tested.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return tested


SKIP = {"s": weights(1, 2, 5), "g": weights(5), "b": weights(5), "c": weights(5)}
FUSED = {
    "FusedMatMul": fused("FusedMatMul", [4, 3], extra={"w": weights(5, 4)}, transA=1, transB=1, alpha=0.5),
    "FusedMatMul, plain": fused("FusedMatMul", [4, 3], extra={"w": weights(3, 5)}),
    "Gelu": fused("Gelu", [5]),
    "Gelu, opset 20": fused("Gelu", [5], opset=20),
    "BiasGelu": fused("BiasGelu", [5], extra={"b": weights(5)}),
    "FastGelu": fused("FastGelu", [5]),
    "FastGelu with bias": fused("FastGelu", [5], extra={"b": weights(5)}),
    "QuickGelu": fused("QuickGelu", [5]),
    "SiLU": fused("QuickGelu", [5], alpha=1.0),
    "SkipLayerNormalization": fused("SkipLayerNormalization", [2, 5], extra=SKIP),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_fused_ops_are_taken_apart(name: str) -> None:
    batches = (1,) if name.startswith("Skip") else BATCHES
    after = same_outputs(FUSED[name], at_supported_opset, *(fed(FUSED[name], batch) for batch in batches))
    assert versions(after) == {"": FUSED[name].opset_import[0].version}


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        (fused("FusedConv", [3, 4, 4]), r"FusedConv \(node 'it'\) is an op of ONNX Runtime's optimiser: compile"),
        (fused("Gelu", [3], opset=12), r"Gelu \(node 'it'\) is an op of ONNX Runtime's optimiser"),
        (fused("FusedMatMul", [3, 3], extra={"w": weights(3, 3)}, transBatchA=1), "transposed batches are not"),
        (fused("SkipLayerNormalization", [5], opset=16, extra={"s": weights(5), "g": weights(5)}), "export the model"),
        (one("Fancy", 17, [3]), r"Fancy \(node 'it'\) is no op of ai.onnx 17: export the model again"),
        (one("Fancy", 17, [3], domain="my.ops"), r"Fancy \(node 'it'\) is an op of the domain my.ops, and only those"),
        (one("Scaler", 17, [3], domain="ai.onnx.ml"), r"Scaler \(node 'it'\) is an op of the domain ai.onnx.ml"),
    ],
)  # fmt: skip
def test_foreign_ops_are_refused(tested: onnx.ModelProto, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        at_supported_opset(tested)


def test_foreign_ops_in_a_branch_are_refused() -> None:
    y = helper.make_tensor_value_info("inner", 1, [None, 3])
    branch = helper.make_graph([helper.make_node("Fancy", ["x"], ["inner"], domain="my.ops")], "branch", [], [y])
    tested = one("If", 17, [3], then_branch=branch, else_branch=branch)
    with pytest.raises(CompileError, match=r"Fancy \(node 'inner'\) is an op of the domain my.ops"):
        at_supported_opset(tested)
