"""Makes training bundles from nothing but code; runs where the training package is.

`.venv-native/bin/python -m tools.bundles demo` writes the demo's, `chaos` the chaos fleet's, `statistics` the one of
`python -m tools.bench statistics`, the name of a task of `python -m tools.compare` that task's; with `--check` they are
compared instead, and the exit code is 1 when the committed file is another. They are made as a user would make them of
the forward model, which `--forward FILE` writes: `edgeclient compile FILE --licence Apache-2.0`, with the task's loss.
Those of the comparison are left with parameters of zero, and compressed: a run draws its own.
`zoo FOLDER [MODEL …]` writes folders with unpacked bundles of the zoo, `native/` and `verified.json`.
"""

import argparse
import gzip
import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from broker.demo import data
from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.manifest import MANIFEST, Optimiser
from edgeclient.commands.compile import compile_command
from edgeclient.compile import compiler, verify
from edgeclient.compile.compiler import Options
from tools.chaos import plan
from tools.compare.tasks import models
from tools.compare.tasks.task import path_of
from tools.zoo import ZOO

HIDDEN: Final = 64
STATISTICS: Final = Path(__file__).with_name("bench") / "statistics.bundle"


def demo_model() -> onnx.ModelProto:
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
    return _model("watch-har", nodes, width, data.CLASSES, weights)


def chaos_model() -> onnx.ModelProto:
    """x (batch, 128) → logits (batch, 10): every parameter has a gradient, so a dense delta has no zeros."""
    weights = {
        "output.weight": np.random.default_rng(0).normal(0, 0.1, (plan.FEATURES, plan.CLASSES)),
        "output.bias": np.zeros(plan.CLASSES),
    }
    nodes = [helper.make_node("Gemm", ["x", "output.weight", "output.bias"], ["logits"])]
    return _model("chaos", nodes, plan.FEATURES, plan.CLASSES, weights)


def statistics_model() -> onnx.ModelProto:
    """x (batch, 600) → 6 axes of 100 samples → two convolutions with batch normalisation → mean → logits (batch, 7)."""
    rng = np.random.default_rng(17)
    weights, nodes, at = {}, [], "axes"
    shape = numpy_helper.from_array(np.array([0, data.WINDOW, data.AXES]), "shape")
    nodes.append(helper.make_node("Constant", [], ["shape"], value=shape))
    nodes.append(helper.make_node("Reshape", ["x", "shape"], ["samples"]))
    nodes.append(helper.make_node("Transpose", ["samples"], ["axes"], perm=[0, 2, 1]))
    channels = data.AXES
    for number, (width, kernel) in enumerate([(32, 7), (64, 5)], 1):
        conv, norm = f"conv{number}", f"norm{number}"
        spread = np.sqrt(2 / (channels * kernel))
        weights[f"{conv}.weight"] = rng.normal(0, spread, (width, channels, kernel))
        weights |= {f"{norm}.weight": np.ones(width), f"{norm}.bias": np.zeros(width)}
        weights |= {f"{norm}.running_mean": np.zeros(width), f"{norm}.running_var": np.ones(width)}
        nodes.append(helper.make_node("Conv", [at, f"{conv}.weight"], [conv], kernel_shape=[kernel], strides=[2]))
        said = [f"{norm}.{each}" for each in ("weight", "bias", "running_mean", "running_var")]
        nodes.append(helper.make_node("BatchNormalization", [conv, *said], [norm], momentum=0.9, epsilon=1e-5))
        nodes.append(helper.make_node("Relu", [norm], [f"active{number}"]))
        at, channels = f"active{number}", width
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    weights["output.weight"] = rng.normal(0, np.sqrt(1 / channels), (channels, data.CLASSES))
    weights["output.bias"] = np.zeros(data.CLASSES)
    nodes.append(helper.make_node("Gemm", ["features", "output.weight", "output.bias"], ["logits"]))
    return _model("statistics", nodes, data.WINDOW * data.AXES, data.CLASSES, weights)


def _model(name: str, nodes: Sequence[Any], features: int, classes: int, weights: Mapping[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


# How each is built, where it lies, and what else `edgeclient compile` is told.
MODELS: Final[dict[str, tuple[Callable[[], onnx.ModelProto], Path, tuple[str, ...]]]] = {
    "demo": (demo_model, Path(data.__file__).with_name("watch-har.bundle"), ()),
    "chaos": (chaos_model, plan.BUNDLE, ()),
    "statistics": (statistics_model, STATISTICS, ()),
    **{name: (build, path_of(name), options) for name, (build, options) in models.MODELS.items()},
}


def _compiled(model: onnx.ModelProto, options: Sequence[str]) -> bytes:
    """The bundle, by the command line that README.md shows."""
    with tempfile.TemporaryDirectory() as folder:
        file, bundle = Path(folder) / f"{model.graph.name}.onnx", Path(folder) / "bundle"
        onnx.save(model, file)
        arguments = [str(file), "--licence", "Apache-2.0", "--out", str(bundle), *options]
        compile_command.main(arguments, prog_name="edgeclient compile", standalone_mode=False)
        return bundle.read_bytes()


def _without_parameters(bundle: bytes) -> bytes:
    """The same with zeros."""
    found = archive.decode(bundle)
    zeros = {name: np.zeros_like(each) for name, each in found.manifest.layout.split(found.parameters).items()}
    files = {name: content for name, content in found.files.items() if name != MANIFEST}
    return archive.encode(found.manifest, {**files, archive.PARAMETERS: safetensors.encode(zeros)})


def _unpack(name: str, place: Path) -> None:
    """A model of the zoo."""
    entry = ZOO[name]
    options = Options(trainable=entry.trainable, optimiser=Optimiser("adamw"), native=True, provenance="tools/zoo.py")
    made = compiler.compile_model(entry.build(), options)
    with zipfile.ZipFile(io.BytesIO(made.packed())) as packed:
        packed.extractall(place)
    (place / "verified.json").write_text(json.dumps(verify.verify(made).as_json()))


def main() -> None:
    """Write or compare."""
    parser = argparse.ArgumentParser("python -m tools.bundles", description=__doc__)
    parser.add_argument("which", choices=[*MODELS, "zoo"])
    parser.add_argument("zoo", nargs="*", metavar="FOLDER [MODEL ...]", help="of the zoo")
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    parser.add_argument("--forward", type=Path, help="write the forward model to this file, and nothing else")
    given = parser.parse_args()
    if given.which == "zoo":
        for name in given.zoo[1:] or ZOO:
            _unpack(name, Path(given.zoo[0]) / name)
        return
    build, path, options = MODELS[given.which]
    if given.forward is not None:
        onnx.save(build(), given.forward)
        return
    made = _compiled(build(), options)
    packed, same = path.suffix == ".gz", True
    if packed:
        made = _without_parameters(made)
    if given.check:
        committed = path.read_bytes()
        same = (gzip.decompress(committed) if packed else committed) == made
    else:
        path.write_bytes(gzip.compress(made, mtime=0) if packed else made)
    print(f"{path.name}: {'' if not given.check else 'the same, ' if same else 'DIFFERENT, '}{len(made)} bytes")
    sys.exit(given.check and not same)


if __name__ == "__main__":
    main()
