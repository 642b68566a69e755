"""Writes model.onnx: 32 moments of a three-axis accelerometer in, one of three activities out.

    python export_model.py      # needs numpy and onnx

With PyTorch (pip install torch onnx onnxscript), instead of all this:

    torch.onnx.export(model.eval(), (torch.zeros(1, 3, 32),), "model.onnx", input_names=["x"], output_names=["logits"],
                      opset_version=18, dynamic_shapes=({0: "batch"},), optimize=False)

Without optimize=False, batch normalisation is put into other weights, and devices do not normalise.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3


def make_model() -> Any:
    """A small 1-D convolutional network; change it to yours."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(0, 0.3, (8, 3, 5)),
        "conv.bias": np.zeros(8),
        "dense.weight": rng.normal(0, 0.2, (8 * 14, CLASSES)),
        "dense.bias": np.zeros(CLASSES),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2], strides=[2]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "dense.weight", "dense.bias"], ["logits"]),
        ],
        "activity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


if __name__ == "__main__":
    onnx.save(make_model(), str(Path(__file__).with_name("model.onnx")))
