"""Examples in files of arrays: one .npz file, or a folder of .npz or .npy files."""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import Array
from edgeclient.train.batches import (
    BLOCK_BYTES,
    AbsentError,
    Batch,
    Blocks,
    Cursor,
    DataError,
    Source,
    example_bytes,
    fitting,
    in_memory,
    too_large,
)  # fmt: skip
from edgeclient.train.sources.columns import CLASSES, missing, strings

# What numpy.load raises for damaged files.
_DAMAGED: Final = (
    OSError, ValueError, EOFError, NotImplementedError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class Whole(Source):
    """All examples in memory: inputs in the model's order, then labels; `name` is for errors, `words` see `fitting`."""

    def __init__(self, arrays: Sequence[Any], manifest: Manifest, name: str, words: Sequence[str] = ()) -> None:
        super().__init__(name)
        self._arrays = fitting(arrays, manifest, name, words)

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (a single block)
        """All of them."""
        yield self._arrays, cursor


class Folder(Source):
    """A folder: .npz files with some examples each, or one .npy file per array of the model, of any size.

    Files that come later are found by the next pass. An .npz file is read whole, .npy files in blocks.

    `options` are array names by tensor name, where they differ, and `classes` for labels that are words.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest, *, packed: bool) -> None:
        super().__init__(str(path))
        self._path = path
        self._manifest = manifest
        self._names, self._words = array_names(options, manifest)
        self._packed = packed

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:
        """File by file, or slice by slice."""
        return ((block, cursor) for block in (self._files(rng) if self._packed else self._slices(rng)))

    def _files(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        files = sorted(self._path.glob("*.npz"))
        waits = ""
        for at in _order(len(files), rng):
            if not zipfile.is_zipfile(files[at]):  # its directory is written last
                waits = f"{files[at].name} is not finished: it waits"
                continue
            yield fitting(read_npz(files[at], self._names), self._manifest, str(files[at]), self._words)
        self.note("waiting", waits)

    def _slices(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        arrays = [_mapped(self._path / f"{name}.npy") for name in self._names]
        counts = [len(array) if array.ndim else 0 for array in arrays]
        if len(set(counts)) > 1:
            told = ", ".join(f"{name}.npy {count}" for name, count in zip(self._names, counts, strict=True))
            raise DataError(f"{self.name}: the arrays have different lengths: {told}")
        # The more slices, the better they mix; of a megabyte, cards read them in any order as fast.
        rows = max(1, BLOCK_BYTES // 4 // max(1, example_bytes(self._manifest)))
        for at in _order(-(-counts[0] // rows), rng):
            part = slice(at * rows, (at + 1) * rows)
            yield fitting([np.array(array[part]) for array in arrays], self._manifest, self.name, self._words)


def array_names(options: Mapping[str, Any], manifest: Manifest) -> tuple[list[str], list[str]]:
    """The array of a file for every tensor of the model, and the words that labels may be.

    Raises:
        DataError: an option is no tensor.
    """
    tensors: tuple[Tensor, ...] = (*manifest.inputs, manifest.labels)
    if unknown := sorted(options.keys() - {tensor.name for tensor in tensors} - {CLASSES}):
        known = ", ".join(tensor.name for tensor in tensors)
        raise DataError(f"[data.options] {unknown[0]} is no array of the model, which wants {known}")
    names = [str(options.get(tensor.name, tensor.name)) for tensor in tensors]
    return names, strings(options.get(CLASSES, []), CLASSES)


def read_npz(path: Path, names: Sequence[str]) -> list[Array]:
    """Some arrays of a file; a DataError if it is not there, damaged, or has no such array."""
    # np.load takes anything else for a pickle, or for a lone array.
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} cannot be read as .npz: it is no zip file; numpy.savez writes such")
    try:
        with in_memory(str(path)), np.load(path, allow_pickle=False) as file:
            for name in names or file:
                if name not in file:
                    raise AbsentError(f"{path} has no array {name!r}; it has {', '.join(file) or 'none'}")
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in file.zip.infolist()}
            # Linux promises more than it has, and kills who believes it.
            wanted, there = sum(sizes.get(name, 0) for name in names or file), available_bytes()
            if there is not None and wanted > there:
                raise too_large(str(path), f"it takes {wanted >> 20} MB of memory, {there >> 20} MB are free")
            return [file[name] for name in names or file]
    except FileNotFoundError:
        raise missing(path) from None
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read as .npz: {error}") from None


def available_bytes() -> int | None:
    """Memory that may be taken without pushing others out; None if unknown."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


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
