"""Makes the demo's training bundle from nothing but code; runs where the training package is.

`.venv-native/bin/python -m tools.make_demo_task` writes broker/demo/data/watch-har.bundle; with `--check` it
compares instead, and exits with 1 when the committed file is another. It does what a user would do with the forward
model, which `--forward FILE` writes: `edgeclient compile watch-har.onnx --licence Apache-2.0 --out …`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from broker.demo import data
from edgeclient.commands.compile import compile_command

PATH = Path(data.__file__).parent / "watch-har.bundle"
HIDDEN = 64


def forward() -> onnx.ModelProto:
    """x (batch, 600) → normalised → 64 → ReLU → logits (batch, 7), with He initialisation."""
    rng = np.random.default_rng(20261124)
    width = data.WINDOW * data.AXES
    weights = {
        "hidden.weight": rng.normal(0, np.sqrt(2 / width), (width, HIDDEN)),
        "hidden.bias": np.zeros(HIDDEN),
        "output.weight": rng.normal(0, np.sqrt(1 / HIDDEN), (HIDDEN, data.CLASSES)),
        "output.bias": np.zeros(data.CLASSES),
    }
    constants = {
        "mean": np.tile(data.MEAN, data.WINDOW),
        "scale": np.tile(1 / np.array(data.SPREAD), data.WINDOW),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value.astype(np.float32)))
        for name, value in constants.items()
    ]
    nodes += [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["normalised"]),
        helper.make_node("Gemm", ["normalised", "hidden.weight", "hidden.bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "output.weight", "output.bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "watch-har",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", data.CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def compiled() -> bytes:
    """The bundle, by the command line that README.md shows."""
    with tempfile.TemporaryDirectory() as folder:
        model, bundle = Path(folder) / "watch-har.onnx", Path(folder) / "watch-har.bundle"
        onnx.save(forward(), model)
        arguments = [str(model), "--licence", "Apache-2.0", "--out", str(bundle)]
        compile_command.main(arguments, prog_name="edgeclient compile", standalone_mode=False)
        return bundle.read_bytes()


def main() -> None:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    parser.add_argument("--forward", type=Path, help="write the forward model to this file, and nothing else")
    given = parser.parse_args()
    if given.forward is not None:
        onnx.save(forward(), given.forward)
        return
    made = compiled()
    if given.check:
        same = PATH.read_bytes() == made
        print(f"{PATH.name}: {'the same' if same else 'DIFFERENT'}, {len(made)} bytes")
        sys.exit(0 if same else 1)
    PATH.write_bytes(made)
    print(f"{PATH.name}: {len(made)} bytes")


if __name__ == "__main__":
    main()
