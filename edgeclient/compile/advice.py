"""What a user should hear before devices train: a loss on the wrong value, constants that are not trained."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import Final

import onnx
from onnx import TensorProto

from edgeclient.compile.loss import Loss

# What only these read is a constant of a formula, such as mean and spread of the inputs: nothing learnt is divided by.
_FORMULAS: Final = frozenset({"Sub", "Div", "Pow", "Mod", "Max", "Min", "Clip"})
_PASSING: Final = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
# Each loss applies the first itself, and makes little of the others either.
_SQUASHING: Final = {"cross_entropy": ("Softmax", "Sigmoid"), "bce_with_logits": ("Sigmoid", "Softmax")}
_SHOWN: Final = 8
_RULE: Final = "pkg.onnxscript.rewriter.rule_name"


def formulas(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Initialisers of several numbers that formulas alone read, which are trained when they are named: their shapes."""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    return {
        each.name: tuple(each.dims)
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT and prod(each.dims) > 1 and readers.get(each.name, {""}) <= _FORMULAS
    }


def squashed(model: onnx.ModelProto, loss: Loss) -> str:
    """A line where the loss is put on a value that is squashed already; "" for none."""
    makers = {name: node for node in model.graph.node for name in node.output}
    output = model.graph.output[0].name
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in _SQUASHING.get(loss.name, ()):
        return ""
    return (
        f"the output {output} is a {node.op_type} already, and {loss.name} applies one itself, so that learning is slow"
        f" and stops early: --output {node.input[0]} takes what goes into it"
    )


def folded(model: onnx.ModelProto) -> str:
    """A line where PyTorch's exporter says that it has put batch normalisation into other weights; "" for none."""
    rules = [each.value for node in model.graph.node for each in node.metadata_props if each.key == _RULE]
    count = sum("BatchNorm" in rule for rule in rules)
    if not count:
        return ""
    return (
        f"the exporter has put batch normalisation (layers: {count}) into other weights, so that devices do not"
        " normalise and --batch-norm means nothing: torch.onnx.export(model.eval(), ..., optimize=False) keeps it"
    )


def untrained(model: onnx.ModelProto, trained: Collection[str], frozen: Sequence[str]) -> str:
    """A line that names what is not trained, though nobody froze it: formulas, and Constant nodes; "" for none."""
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    left = formulas(model) | {
        name: tuple(each.dims)
        for name, each in constants.items()
        if each.data_type == TensorProto.FLOAT and prod(each.dims) > 1
    }
    names = [name for name in left if name not in trained and not any(fnmatchcase(name, each) for each in frozen)]
    if not names:
        return ""
    return (
        f"not trained, as constants: {listed([(name, left[name]) for name in names])};"
        f" --trainable '*' --trainable '{names[0]}' would train that too"
    )


def listed(tensors: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Names with their shapes, the first few of many.

    Example:
        >>> listed([("w", (6, 8)), ("scale", ())])
        'w 6x8, scale 1'
    """
    shown = [f"{name} {'x'.join(map(str, shape)) or '1'}" for name, shape in tensors[:_SHOWN]]
    more = len(tensors) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
