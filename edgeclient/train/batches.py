"""Batches that fit the model, and what they are drawn from."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import Array

_LOG = logging.getLogger(__name__)

# The arrays of a batch in the model's order, labels last.
Batch: TypeAlias = tuple[Array, ...]

# Of a block that is read at once: 26,000 rows of 20 columns.
BLOCK_BYTES: Final = 4 << 20


class DataError(Exception):
    """Local data cannot be used; one line that says which, why and what to do."""


class NoExamplesError(DataError):
    """The source is in order, but there is nothing to draw yet; more data may come."""


class AbsentError(DataError):
    """The source has no column or array of a name that is wanted, nor one called nearly so."""


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
        overlaps: examples share rows.
        notes: what its owner should know, a line each, by what it is about; of the last pass.
    """

    sized = False
    grows = False
    overlaps = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: dict[str, str] = {}
        self._logged: set[str] = set()

    def note(self, about: str, line: str) -> None:
        """Tell the owner, in the log the first time; an empty line takes it back."""
        self.notes.pop(about, None)
        if not line:
            return
        self.notes[about] = line
        if about not in self._logged:
            self._logged.add(about)
            _LOG.warning("%s: %s", self.name, line)

    @abstractmethod
    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:
        """One pass.

        Args:
            rng: parts may come in any order where it is given.
            cursor: a source that grows gives what is behind it, oldest first; all others give everything.

        Raises:
            DataError: the data does not fit the model.
        """


def fitting(arrays: Any, manifest: Manifest, source: str, words: Sequence[str] = ()) -> Batch:
    """The arrays as the model wants them.

    Labels may also come as `words` (their places in it count), as one-hot rows or as a column; integers as floats.

    Raises:
        DataError: number, type, shape, length or values do not fit.
    """
    tensors = (*manifest.inputs, manifest.labels)
    if not isinstance(arrays, tuple | list) or len(arrays) != len(tensors):
        names = ", ".join(tensor.name for tensor in tensors)
        raise DataError(f"{source} gives {described(arrays)}: {len(tensors)} arrays are wanted, a tuple ({names})")
    made = tuple(
        _fit(_array(each, tensor, source), tensor, source)
        for each, tensor in zip(arrays[:-1], manifest.inputs, strict=True)
    )
    labels = _labels(_array(arrays[-1], manifest.labels, source), manifest, source, words)
    made = (*made, _fit(labels, manifest.labels, source))
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


@contextmanager
def in_memory(source: str) -> Iterator[None]:
    """Around what may need more memory than there is: that is a DataError."""
    try:
        yield
    except MemoryError as error:
        raise too_large(source, str(error) or "there is no more memory") from None


def too_large(source: str, why: str) -> DataError:
    """Data that memory cannot hold."""
    return DataError(f"{source} is too large: {why}: a folder of .npy files, a CSV file and SQLite are read in parts")


def described(value: Any) -> str:
    """A value that is no tuple of arrays, for errors."""
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{size}"


def _array(value: Any, tensor: Tensor, source: str) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{source}: {tensor.name} is no array: {error}") from None


def _labels(array: Array, manifest: Manifest, source: str, words: Sequence[str]) -> Array:
    """Labels as numbers in the model's shape, where it is clear what is meant; else as they are."""
    tensor = manifest.labels
    if array.dtype.kind in "USO":
        found = sorted({str(each).strip() for each in array.flat})
        if unknown := [each for each in found if each not in words]:
            many = ", ".join(map(repr, unknown[:5]))
            raise DataError(f"{source}: {tensor.name} has {many}: classes = [...] in [data.options] numbers words")
        place: Mapping[str, int] = {word: at for at, word in enumerate(words)}
        array = np.array([place[str(each).strip()] for each in array.flat], np.int64).reshape(array.shape)
    wanted, rest = tensor.shape[1:], array.shape[1:]
    if manifest.classes not in {None, 1} and not wanted and rest == (manifest.classes,):
        if not (((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
            raise DataError(
                f"{source}: {tensor.name} has shape {array.shape}, class numbers are wanted: {tensor.name}.argmax(1)"
            )
        array = array.argmax(axis=1)
    elif array.ndim and [size for size in rest if size != 1] == [size for size in wanted if size != 1]:
        array = array.reshape(len(array), *wanted)
    return array


def _fit(array: Array, tensor: Tensor, source: str) -> Array:
    wanted = np.dtype(tensor.dtype)
    if wanted.kind == "i" and array.dtype.kind == "f" and np.isfinite(array).all():
        whole = array.astype(np.int64)
        if (different := whole != array).any():
            raise DataError(f"{source}: {tensor.name} has {array[different][0]:g}, the model wants whole numbers")
        array = whole
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
