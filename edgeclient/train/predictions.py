"""Examples for a first look at what a model says: files as the data source reads them, with labels or without."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import F32, Array
from edgeclient.train.batches import AbsentError, Batch, DataError, Dataset, NoExamplesError
from edgeclient.train.data import open_data
from edgeclient.train.holdout import Examples
from edgeclient.train.sources.arrays import Whole, array_names, read_npz

_BATCH: Final = 256
_NEAR_ONE: Final = 1e-3


def examples(
    source: str, options: Mapping[str, Any], manifest: Manifest
) -> Iterator[tuple[tuple[Array, ...], Array | None]]:
    """(inputs, labels) in the order of the source; labels are None where it has none.

    Args:
        source: as [data] source, or an .npy file with the one input of the model.
        options: as [data.options].
        manifest: of the model.

    Raises:
        DataError: it is not there, or fits the model neither with labels nor without; of a source without a name
            for labels, what is wrong beside that.
    """
    found, labelled = _begun(source, options, manifest)
    for batch in found:
        yield batch[:-1], batch[-1] if labelled else None


def probabilities(scores: F32) -> F32:
    """What scores (batch, classes, …) say of each class; those that are probabilities, as behind a Softmax, stay.

    Example:
        >>> probabilities(np.log(np.array([[1, 3]], np.float32))).tolist()
        [[0.25, 0.75]]
    """
    if (scores >= 0).all() and (abs(scores.sum(axis=1) - 1) < _NEAR_ONE).all():
        return scores
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    made: F32 = raised / raised.sum(axis=1, keepdims=True)
    return made


def _begun(source: str, options: Mapping[str, Any], manifest: Manifest) -> tuple[Iterator[Batch], bool]:
    if Path(source).suffix.lower() == ".npy":
        return _first_and_rest(_unlabelled(source, options, manifest)), False
    try:
        return _first_and_rest(open_data(source, options, manifest)), True
    except NoExamplesError:
        raise
    except DataError as error:
        try:
            return _first_and_rest(_unlabelled(source, options, manifest)), False
        except DataError as second:
            raise (second if isinstance(error, AbsentError) else error) from None


def _first_and_rest(found: Dataset) -> Iterator[Batch]:
    batches = found.batches(_BATCH, None)
    return chain([next(batches)], batches)


def _unlabelled(source: str, options: Mapping[str, Any], manifest: Manifest) -> Dataset:
    """As a source without labels has it: here they are arrays (batch, 0)."""
    bare = replace(manifest, labels=Tensor(manifest.labels.name, "float32", (-1, 0)), classes=None, ignored=None)
    match Path(source).suffix.lower():
        case ".npy":
            arrays = [_array(Path(source))]
        case ".npz":
            names, _ = array_names(options, manifest)
            arrays = read_npz(Path(source), names[: len(manifest.inputs)])
        case _:
            return open_data(source, {**options, "labels": []}, bare)
    count = len(arrays[0]) if arrays[0].ndim else 0
    return Examples(Whole([*arrays, np.zeros((count, 0), np.float32)], bare, source))


def _array(path: Path) -> Array:
    try:
        made: Array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy: {error}") from None
    return made
