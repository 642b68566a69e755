"""Batches that fit the model, and what they are drawn from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import Array

# The arrays of a batch in the model's order, labels last.
Batch: TypeAlias = tuple[Array, ...]

# Of a block that is read at once: 26,000 rows of 20 columns. Sources are shuffled within it, so larger is better.
BLOCK_BYTES: Final = 4 << 20


class DataError(Exception):
    """Local data cannot be used; one line that says which, why and what to do."""


class NoExamplesError(DataError):
    """The source is in order, but there is nothing to draw yet; more data may come."""


class Dataset(Protocol):
    """Something to learn from."""

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """One pass; shuffled when `rng` is given and the source allows.

        Raises:
            DataError: the data does not fit the model.
        """


# How far a growing source has been read: the cursor column's value; None for its beginning.
Cursor: TypeAlias = int | float | str | None
# Examples as `fitting` leaves them, each block with the cursor behind it.
Blocks: TypeAlias = Iterator[tuple[Batch, Cursor]]


class Source(ABC):
    """Where examples come from, whole or in parts that fit into memory.

    Attributes:
        name: as the configuration names it, for errors.
        sized: its blocks are batches as they are, because somebody else has decided their size and order.
        grows: it tells new examples from old ones.
    """

    name: str
    sized = False
    grows = False

    @abstractmethod
    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:
        """One pass.

        Args:
            rng: parts may come in any order where it is given.
            cursor: a source that grows gives what is behind it, oldest first; all others give everything.

        Raises:
            DataError: the data does not fit the model.
        """


def fitting(arrays: Any, manifest: Manifest, source: str) -> Batch:
    """The arrays as the model wants them.

    Raises:
        DataError: number, type, shape, length or values do not fit.
    """
    tensors = (*manifest.inputs, manifest.labels)
    if not isinstance(arrays, tuple | list) or len(arrays) != len(tensors):
        names = ", ".join(tensor.name for tensor in tensors)
        raise DataError(f"{source}: {len(tensors)} arrays are wanted ({names})")
    made = tuple(_fit(array, tensor, source) for array, tensor in zip(arrays, tensors, strict=True))
    lengths = {len(array) for array in made}
    if lengths == {0}:
        raise DataError(f"{source} has no examples")
    if len(lengths) > 1:
        raise DataError(f"{source}: the arrays have different lengths: {sorted(lengths)}")
    labels, classes = made[-1], manifest.classes
    if manifest.ignored is not None:
        labels = labels[labels != manifest.ignored]
    if classes is not None and labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise DataError(f"{source}: labels go from {labels.min()} to {labels.max()}, the model has 0 to {classes - 1}")
    return made


def _fit(value: Any, tensor: Tensor, source: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{source}: {tensor.name} is no array: {error}") from None
    wanted = np.dtype(tensor.dtype)
    if array.dtype.kind not in ("iub" if wanted.kind == "i" else "fiub"):
        raise DataError(f"{source}: {tensor.name} is {array.dtype}, the model wants {tensor.dtype}")
    if array.shape[1:] != tensor.shape[1:] or array.ndim != len(tensor.shape):
        raise DataError(
            f"{source}: {tensor.name} has shape {array.shape}, the model wants {('batch', *tensor.shape[1:])}"
        )
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, wanted)
    if wanted.kind == "f" and not np.isfinite(converted).all():
        raise DataError(f"{source}: {tensor.name} has values that are NaN or infinite")
    return converted


def example_bytes(manifest: Manifest) -> int:
    """Bytes of one example, labels included."""
    tensors = (*manifest.inputs, manifest.labels)
    return sum(np.dtype(each.dtype).itemsize * int(np.prod(each.shape[1:])) for each in tensors)
