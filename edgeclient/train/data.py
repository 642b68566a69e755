"""Local data: an .npz file, or `package.module:function`, as batches that fit the model.

Example of a function that streams, `source = "my_package.logs:batches"`:

    def batches(path="sensors.db"):
        for x, labels in read(path):     # x as the model's input, labels int64
            yield x, labels
"""

import importlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeclient.wire.bundle import Manifest, Tensor

Array: TypeAlias = npt.NDArray[Any]
# The arrays of a batch in the model's order, labels last.
Batch: TypeAlias = tuple[Array, ...]

EVALUATION_BATCH: Final = 256


class DataError(Exception):
    """Local data cannot be used; one line that says which, why and what to do."""


class Dataset(Protocol):
    """Something to learn from."""

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """One pass; shuffled when `rng` is given and the source allows.

        Raises:
            DataError: the data does not fit the model.
        """


def open_data(source: str, options: Mapping[str, Any], manifest: Manifest) -> Dataset:
    """The data that `source` names.

    Args:
        source: a path ending in .npz, or `package.module:function`.
        options: array names in the file by tensor name, or keyword arguments of the function. A function
            returns the arrays (inputs, then labels), or yields such batches and is called for every pass.
        manifest: what the model wants.

    Raises:
        DataError: it is not there, or does not fit the model.
    """
    tensors = (*manifest.inputs, manifest.labels)
    if source.endswith(".npz"):
        return _Arrays(_read_npz(Path(source), options, tensors), manifest, source)
    function = _function(source)
    first = _called(function, options, source)
    if isinstance(first, tuple):
        return _Arrays(first, manifest, source)
    if not isinstance(first, Iterable):
        raise DataError(f"{source} returns {type(first).__name__}: a tuple of arrays, or batches, are wanted")
    return _Stream(lambda: _called(function, options, source), manifest, source)


def check_source(source: str) -> None:
    """Notice at the door what `open_data` would stumble over once the model has come.

    Raises:
        DataError: no such file, module or function.
    """
    if not source.endswith(".npz"):
        _function(source)
    elif not Path(source).is_file():
        raise _no_file(source)


class _Arrays:
    """All examples in memory."""

    def __init__(self, arrays: Sequence[Any], manifest: Manifest, source: str) -> None:
        self._arrays = fitting(arrays, manifest, source)

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        count = len(self._arrays[-1])
        order = np.arange(count) if rng is None else rng.permutation(count)
        for first in range(0, count, batch_size):
            chosen = order[first : first + batch_size]
            yield tuple(array[chosen] for array in self._arrays)


class _Stream:
    """Batches as a function yields them, of any total size; the function says how large they are."""

    def __init__(self, begin: Callable[[], Any], manifest: Manifest, source: str) -> None:
        self._begin = begin
        self._manifest = manifest
        self._source = source

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:  # noqa: ARG002 (the function has decided both)
        yielded = False
        passing = iter(self._begin())
        while True:
            try:
                arrays = next(passing)
            except StopIteration:
                break
            except Exception as error:  # the user's own code
                raise _failed(self._source, error) from error
            yielded = True
            yield fitting(arrays, self._manifest, self._source)
        if not yielded:
            raise DataError(f"{self._source} yielded no batch")


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


def _read_npz(path: Path, options: Mapping[str, Any], tensors: Sequence[Tensor]) -> list[Array]:
    if unknown := sorted(options.keys() - {tensor.name for tensor in tensors}):
        known = ", ".join(tensor.name for tensor in tensors)
        raise DataError(f"[data.options] {unknown[0]} is no array of the model, which wants {known}")
    # np.load takes anything else for a pickle, or for a lone array.
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} cannot be read as .npz: it is no zip file; numpy.savez writes such")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [str(options.get(tensor.name, tensor.name)) for tensor in tensors]
            for name in names:
                if name not in file:
                    raise DataError(f"{path} has no array {name!r}; it has {', '.join(file) or 'none'}")
            return [file[name] for name in names]
    except FileNotFoundError:
        raise _no_file(path) from None
    except (OSError, ValueError, EOFError, NotImplementedError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
            zlib.error) as error:  # fmt: skip
        raise DataError(f"{path} cannot be read as .npz: {error}") from None


def _no_file(path: Path | str) -> DataError:
    return DataError(f"{path} does not exist: [data] source in the configuration names it")


def _function(source: str) -> Callable[..., Any]:
    module, _, name = source.partition(":")
    if not name:
        raise DataError(f"data source {source!r} is neither a .npz file nor package.module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        raise DataError(f"data source {source}: {error}: is the package installed here?") from None
    if not callable(found):
        raise DataError(f"data source {source} is no function")
    return found  # type: ignore[no-any-return]  # what a module holds is Any


def _called(function: Callable[..., Any], options: Mapping[str, Any], source: str) -> Any:
    try:
        return function(**options)
    except TypeError as error:
        raise DataError(f"data source {source}: {error}: see [data.options]") from error
    except Exception as error:  # the user's own code
        raise _failed(source, error) from error


def _failed(source: str, error: Exception) -> DataError:
    return DataError(f"data source {source} failed: {type(error).__name__}: {error}")
