"""The border of a forward model: which inputs of which shapes go in, which output comes out."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from edgeclient.compile import graph
from edgeclient.compile.errors import CompileError, first_line
from edgeclient.train import runtime


def selected_output(model: onnx.ModelProto, name: str | None) -> onnx.ModelProto:
    """The model with one output, which may be any value inside it, and what that needs.

    Raises:
        CompileError: no such value, or one of another type than float32.
    """
    if name is None:
        return model
    made = shape_inference.infer_shapes(model)
    values = {each.name: each for each in (*made.graph.value_info, *made.graph.output)}
    if name not in {each for node in made.graph.node for each in node.output}:
        near = difflib.get_close_matches(name, values, n=3) or [each.name for each in made.graph.output]
        raise CompileError(f"the model computes no {name!r}: did you mean {' or '.join(near)}?")
    del made.graph.output[:]
    made.graph.output.append(values.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    nodes, names = graph.needed(made.graph.node, {name})
    graph.refill(made.graph.node, nodes)
    for group in (made.graph.initializer, made.graph.input):
        graph.refill(group, [each for each in group if each.name in names])
    return made


def with_shapes(
    model: onnx.ModelProto, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> onnx.ModelProto:
    """Inputs with a free batch and numbers elsewhere.

    Args:
        model: forward.
        sizes: numbers for named dimensions.
        shapes: of inputs, by name, whole; what is below 1 stays free.

    Raises:
        CompileError: no input has a dimension or a name as given.
    """
    made = graph.copied(model)
    inputs = {each.name: each.type.tensor_type for each in made.graph.input}
    names = {each.dim_param for of in inputs.values() for each in of.shape.dim if each.dim_param}
    if unknown := sorted(sizes.keys() - names):
        raise CompileError(
            f"no input has a dimension named {unknown[0]!r}: there are {', '.join(sorted(names)) or 'none'}"
        )
    if unknown := sorted(shapes.keys() - inputs.keys()):
        raise CompileError(f"the model has no input {unknown[0]!r}: there are {', '.join(inputs)}")
    constants = {each.name for each in made.graph.initializer}
    for name, of in inputs.items():
        if name in constants:
            continue
        if name in shapes:
            given = [size if size > 0 else None for size in shapes[name]]
            of.shape.CopyFrom(helper.make_tensor_type_proto(of.elem_type, given).tensor_type.shape)
        for index, each in enumerate(of.shape.dim):
            if each.dim_param in sizes:
                each.dim_value = sizes[each.dim_param]
            # Some exporters write a free dimension as -1; all first dimensions are one batch.
            if not index and each.dim_value <= 0:
                each.dim_param = "batch"
    if sizes or shapes:
        # What was inferred, or written by the exporter, from the old shapes.
        del made.graph.value_info[:]
        for output in made.graph.output:
            output.type.tensor_type.ClearField("shape")
        return shape_inference.infer_shapes(made, data_prop=True)
    return made


def with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Outputs of unknown shape get theirs by a run with two and with three examples.

    Inference gives up where a shape is computed, as some exporters do even for flattening.

    Raises:
        CompileError: the model does not run.
    """
    unknown = [each for each in model.graph.output if not each.type.tensor_type.HasField("shape")]
    if not unknown:
        return model
    made = graph.copied(model)
    small, large = (_run(model, size) for size in (2, 3))
    for output in made.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            two, three = small[output.name], large[output.name]
            dims = ["batch" if (a, b) == (2, 3) else a for a, b in zip(two, three, strict=True)]
            output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, dims))
    return made


def _run(model: onnx.ModelProto, size: int) -> dict[str, tuple[int, ...]]:
    given = graph.copied(model)
    given.ir_version = min(given.ir_version, graph.NEWEST_IR)
    try:
        session = runtime.load().InferenceSession(given.SerializeToString(), runtime.session_options(1))
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
        feeds = {each.name: np.zeros([size, *each.shape[1:]], kinds[each.type]) for each in session.get_inputs()}
        names = [each.name for each in session.get_outputs()]
        return {name: value.shape for name, value in zip(names, session.run(names, feeds), strict=True)}
    except Exception as error:  # noqa: BLE001 (onnxruntime raises its own types)
        raise CompileError(f"the model does not run on {size} examples: {first_line(error)}") from None
