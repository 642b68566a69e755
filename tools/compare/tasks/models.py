"""The forward models of the tasks, for `python -m tools.bundles`; the one module here that needs onnx.

Weights are random, so that the compiler's check of the gradients means something; a run draws its own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.compare.tasks import fashion_mnist, watch_har


def mlp(name: str, widths: Sequence[int]) -> onnx.ModelProto:
    """x (batch, first) → Gemm → ReLU → … → logits (batch, last)."""
    nodes, weights = _layers("x", widths)
    return _model(name, nodes, weights, (TensorProto.FLOAT, widths[0]), widths[-1])


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


MODELS = {
    fashion_mnist.NAME: lambda: mlp(fashion_mnist.NAME, fashion_mnist.WIDTHS),
    watch_har.NAME: lambda: mlp(watch_har.NAME, watch_har.WIDTHS),
}
