"""Tables: which columns are inputs and which are labels, and rows of numbers as a batch."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import F64, Array
from edgeclient.settings import nearest
from edgeclient.train.batches import Batch, DataError, fitting


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row things are.

    Attributes:
        names: of all columns.
        inputs: positions of the model's input numbers, in order.
        labels: positions of the label; several for a model that predicts several numbers.
        classes: number by text, for labels that are words.
    """

    names: tuple[str, ...]
    inputs: tuple[int, ...]
    labels: tuple[int, ...]
    classes: Mapping[str, int]


def chosen(
    names: Sequence[str], options: Mapping[str, Any], labels: str, where: str, without: Sequence[str] = ()
) -> Columns:
    """The columns that [data.options] name: `columns` (default: the rest), `labels` (default: `labels`), `classes`.

    `where` names the table in errors; the columns in `without` are neither.

    Example:
        >>> chosen(["t", "a", "b", "class"], {"labels": "class", "columns": ["a", "b"]}, "labels", "d.csv").inputs
        (1, 2)
    """
    label_names = strings(options.get("labels", labels), "labels")
    rest = [name for name in names if name not in (*label_names, *without)]
    input_names = strings(options.get("columns", rest), "columns")
    if not input_names:
        raise DataError(f"{where} has no column beside {', '.join([*label_names, *without])}")
    for name in (*label_names, *input_names):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise DataError(f"{where} has no column {name!r}: {hint} ([data.options] labels and columns name them)")
    if both := [name for name in input_names if name in label_names]:
        raise DataError(f"[data.options] {both[0]!r} cannot be both a label and an input")
    return Columns(
        tuple(names),
        tuple(names.index(name) for name in input_names),
        tuple(names.index(name) for name in label_names),
        {name: at for at, name in enumerate(strings(options.get("classes", []), "classes"))},
    )


def checked_options(options: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse options that would be ignored."""
    for key in options:
        if key not in known:
            raise DataError(f"[data.options] {key} means nothing for {where}: {nearest(key, known)}")


def strings(value: Any, key: str) -> list[str]:
    """One name or several; anything else is a DataError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise DataError(f"[data.options] {key} is {value!r}: a name or a list of names is wanted")
    return values


def one_input(manifest: Manifest, where: str) -> Tensor:
    """The input that columns make; a model with several inputs is a DataError."""
    if len(manifest.inputs) != 1:
        names = ", ".join(each.name for each in manifest.inputs)
        raise DataError(f"{where}: a table feeds models with one input, this one has {names}: use a function as source")
    return manifest.inputs[0]


def label_number(cell: Any, columns: Columns) -> float:
    """A label cell as a number.

    Raises:
        ValueError: it is neither a number nor one of the classes; the text goes on from the cell's name.
    """
    try:
        return float(columns.classes[cell] if columns.classes else cell)
    except (KeyError, ValueError, TypeError):
        known = f"[data.options] classes has {', '.join(columns.classes)}" if columns.classes else ""
        raise ValueError(f"is {repr(cell)[:40]}, {known or 'no number: words need classes = [...]'}") from None


def batch_of(inputs: F64, labels: F64, manifest: Manifest, where: str) -> Batch:
    """Rows as a batch: inputs (n, numbers of an example), labels (n, numbers of a label)."""
    tensor = one_input(manifest, where)
    return fitting(
        [_shaped(inputs, tensor, where, "columns"), _shaped(labels, manifest.labels, where, "labels")], manifest, where
    )


def _shaped(numbers: F64, tensor: Tensor, where: str, option: str) -> Array:
    shape = tensor.shape[1:]
    if numbers.shape[1] != math.prod(shape):
        size = " x ".join(map(str, shape)) or "1"
        raise DataError(
            f"{where}: a row gives {numbers.shape[1]} numbers for {tensor.name}, the model wants {size}:"
            f" see [data.options] {option}"
        )
    if not tensor.dtype.startswith("int"):
        return numbers.reshape(len(numbers), *shape)
    whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise DataError(f"{where}: {tensor.name} has {numbers[whole != numbers][0]:g}, the model wants whole numbers")
    return whole.reshape(len(numbers), *shape)
