"""Examples in files of arrays: one .npz file, or a folder of .npz or .npy files."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import Array
from edgeclient.train.batches import BLOCK_BYTES, Batch, Blocks, Cursor, DataError, Source, example_bytes, fitting

# What numpy.load raises for damaged files.
_DAMAGED: Final = (
    OSError, ValueError, EOFError, NotImplementedError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class Whole(Source):
    """All examples in memory: inputs in the model's order, then labels; `name` is for errors."""

    def __init__(self, arrays: Sequence[Any], manifest: Manifest, name: str) -> None:
        self.name = name
        self._arrays = fitting(arrays, manifest, name)

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (a single block)
        """All of them."""
        yield self._arrays, cursor


class Folder(Source):
    """A folder: .npz files with some examples each, or one .npy file per array of the model, of any size.

    Files that come later are found by the next pass. An .npz file is read whole, .npy files in blocks.

    `options` are array names by tensor name, where they differ.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest) -> None:
        self.name = str(path)
        self._path = path
        self._manifest = manifest
        self._names = array_names(options, manifest)
        self._packed = is_packed(path)

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:
        """File by file, or slice by slice."""
        return ((block, cursor) for block in (self._files(rng) if self._packed else self._slices(rng)))

    def _files(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        files = sorted(self._path.glob("*.npz"))
        for at in _order(len(files), rng):
            yield fitting(read_npz(files[at], self._names), self._manifest, str(files[at]))

    def _slices(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        arrays = [_mapped(self._path / f"{name}.npy") for name in self._names]
        counts = [len(array) if array.ndim else 0 for array in arrays]
        if len(set(counts)) > 1:
            told = ", ".join(f"{name}.npy {count}" for name, count in zip(self._names, counts, strict=True))
            raise DataError(f"{self.name}: the arrays have different lengths: {told}")
        rows = max(1, BLOCK_BYTES // max(1, example_bytes(self._manifest)))
        for at in _order(-(-counts[0] // rows), rng):
            part = slice(at * rows, (at + 1) * rows)
            yield fitting([np.array(array[part]) for array in arrays], self._manifest, self.name)


def array_names(options: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """The array of a file for every tensor of the model; an option that is no tensor is a DataError."""
    tensors: tuple[Tensor, ...] = (*manifest.inputs, manifest.labels)
    if unknown := sorted(options.keys() - {tensor.name for tensor in tensors}):
        known = ", ".join(tensor.name for tensor in tensors)
        raise DataError(f"[data.options] {unknown[0]} is no array of the model, which wants {known}")
    return [str(options.get(tensor.name, tensor.name)) for tensor in tensors]


def read_npz(path: Path, names: Sequence[str]) -> list[Array]:
    """Some arrays of a file; a DataError if it is not there, damaged, or has no such array."""
    # np.load takes anything else for a pickle, or for a lone array.
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} cannot be read as .npz: it is no zip file; numpy.savez writes such")
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in names:
                if name not in file:
                    raise DataError(f"{path} has no array {name!r}; it has {', '.join(file) or 'none'}")
            return [file[name] for name in names]
    except FileNotFoundError:
        raise missing(path) from None
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from None


def is_packed(folder: Path) -> bool:
    """Whether a folder's examples are in .npz files, or else in .npy files; in neither or in both: a DataError."""
    kinds = [kind for kind in (".npz", ".npy") if next(folder.glob(f"*{kind}"), None) is not None]
    if len(kinds) != 1:
        has = "has both" if kinds else "has no"
        raise DataError(f"{folder} {has} .npz and .npy files: give .npz files, or one .npy file per array of the model")
    return kinds == [".npz"]


def missing(path: Path | str) -> DataError:
    """A file or folder is not there."""
    return DataError(f"{path} does not exist: [data] source in the configuration names it")


def _mapped(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: a folder of .npy files has one per array of the model") from None
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as .npy: {error}") from None
    return array


def _order(count: int, rng: np.random.Generator | None) -> Sequence[int]:
    return range(count) if rng is None else [int(at) for at in rng.permutation(count)]
