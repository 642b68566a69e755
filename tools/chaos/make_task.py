"""Makes the chaos fleet's training bundle from nothing but code; runs where the training package is.

`.venv-native/bin/python -m tools.chaos.make_task` writes tools/chaos/task.bundle.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeclient.commands.compile import compile_command
from tools.chaos import task


def forward() -> onnx.ModelProto:
    """x (batch, 128) → logits (batch, 10): every parameter has a gradient, so a dense delta has no zeros."""
    weights = {
        "output.weight": np.random.default_rng(0).normal(0, 0.1, (task.FEATURES, task.CLASSES)),
        "output.bias": np.zeros(task.CLASSES),
    }
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "output.weight", "output.bias"], ["logits"])],
        "chaos",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", task.FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", task.CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def main() -> None:
    """Write it."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "chaos.onnx"
        onnx.save(forward(), model)
        arguments = [str(model), "--licence", "Apache-2.0", "--out", str(task.BUNDLE)]
        compile_command.main(arguments, prog_name="edgeclient compile", standalone_mode=False)
    print(f"{task.BUNDLE.name}: {task.BUNDLE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
