"""The forward models of the tasks, for `python -m tools.bundles`; the one module here that needs onnx.

Weights are random, so that the compiler's check of the gradients means something; a run draws its own.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.compare.tasks import convex, fashion_mnist, next_word, watch_har


def mlp(name: str, widths: Sequence[int]) -> onnx.ModelProto:
    """x (batch, first) → Gemm → ReLU → … → logits (batch, last)."""
    nodes, weights = _layers("x", widths)
    return _model(name, nodes, weights, (TensorProto.FLOAT, widths[0]), widths[-1])


def embedded(name: str) -> onnx.ModelProto:
    """x (batch, 4) word numbers → rows of the embedding side by side → Gemm → ReLU → Gemm → logits (batch, words)."""
    width = next_word.CONTEXT * next_word.EMBEDDING
    embedding = np.random.default_rng(18).normal(0, 1, (next_word.WORDS, next_word.EMBEDDING))
    nodes, weights = _layers("side_by_side", (width, next_word.HIDDEN, next_word.WORDS))
    before = [
        helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(np.array([-1, width]), "shape")),
        helper.make_node("Gather", ["embedding", "x"], ["rows"], axis=0),
        helper.make_node("Reshape", ["rows", "shape"], ["side_by_side"]),
    ]
    taken = TensorProto.INT64, next_word.CONTEXT
    return _model(name, [*before, *nodes], {"embedding": embedding, **weights}, taken, next_word.WORDS)


def line(name: str) -> onnx.ModelProto:
    """x (batch, 100) → MatMul → score (batch, 1), the logarithm of the odds of a yes."""
    weights = {"weight": np.random.default_rng(18).normal(0, 1, (convex.FEATURES, 1))}
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["logits"])]
    return _model(name, nodes, weights, (TensorProto.FLOAT, convex.FEATURES), 1)


def _layers(at: str, widths: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
    rng = np.random.default_rng(18)
    nodes, weights = [], {}
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        last = number == len(widths) - 1
        made = "logits" if last else f"layer{number}"
        weights[f"{number}.weight"] = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
        weights[f"{number}.bias"] = np.zeros(outputs)
        nodes.append(helper.make_node("Gemm", [at, f"{number}.weight", f"{number}.bias"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"active{number}"]))
            at = f"active{number}"
    return nodes, weights


def _model(
    name: str, nodes: Sequence[Any], weights: dict[str, Any], takes: tuple[int, int], classes: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", takes[0], ["batch", takes[1]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


# Each with the options of `edgeclient compile`.
MODELS: Final[dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]]] = {
    fashion_mnist.NAME: (lambda: mlp(fashion_mnist.NAME, fashion_mnist.WIDTHS), ()),
    watch_har.NAME: (lambda: mlp(watch_har.NAME, watch_har.WIDTHS), ()),
    next_word.NAME: (lambda: embedded(next_word.NAME), ()),
    convex.NAME: (lambda: line(convex.NAME), ("--loss", "bce_with_logits")),
}
