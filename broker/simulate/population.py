"""The data of a dry run, through the sources that devices have, in memory: what is dealt out, what judges."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.simulate.split import Split, deal
from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import I64, Array
from edgeclient.settings import ConfigError
from edgeclient.train.batches import Batch, NoExamplesError, example_bytes, in_memory, too_large
from edgeclient.train.data import check_source, open_source
from edgeclient.train.holdout import held_out
from edgeclient.train.sources.arrays import available_bytes, read_npz
from edgeclient.train.sources.columns import strings
from edgeclient.train.sources.delimited import Delimited
from edgeclient.train.sources.table import Part

_HELD_OUT: Final = 0.2
_JUDGES: Final = 20  # fewer tell nothing
_PARTS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Who has what.

    Attributes:
        arrays: of all examples that devices have, in the model's order, labels last.
        devices: places of each device's own.
        test: what no device has.
        judges: places in `test`: of those that settings are chosen on, and of those that they are confirmed on.
    """

    arrays: Batch
    devices: list[I64]
    test: Batch
    judges: tuple[I64, I64]

    @property
    def examples(self) -> int:
        """That devices have."""
        return len(self.arrays[-1])


def populate(
    manifest: Manifest, source: str, options: Mapping[str, Any], *, split: Split, devices: int | None, seed: int,
    test: tuple[str, Mapping[str, Any]] | None = None,
) -> Population:  # fmt: skip
    """Read the data, keep a test set aside and deal out the rest.

    Args:
        manifest: of the bundle.
        source: as [data] source of a device.
        options: as [data.options].
        split: how examples are dealt out.
        devices: how many; see `deal`.
        seed: of the split.
        test: source and options of what no device has; None keeps a fifth, which their bytes decide.

    Raises:
        ConfigError: the split cannot be.
        DataError: the data is not there, or does not fit the model.
    """
    arrays, groups = read(manifest, source, options, split.column)
    if test is not None:
        judging, _ = read(manifest, *test)
    else:
        aside = held_out(arrays, _HELD_OUT)
        judging, arrays = _chosen(arrays, aside), _chosen(arrays, ~aside)
        groups = None if groups is None else groups[~aside]
    if len(judging[-1]) < _JUDGES:
        raise ConfigError(
            f"{test[0] if test else source}: {len(judging[-1])} examples to judge versions on are too few:"
            f" {_JUDGES} at least, better some hundreds"
        )
    rng = np.random.default_rng([seed, 0x59])
    dealt = deal(split, arrays[-1], groups, devices, rng)
    first, second = np.array_split(rng.permutation(len(judging[-1])), _PARTS)
    return Population(arrays, dealt, judging, (np.sort(first), np.sort(second)))


def read(
    manifest: Manifest, source: str, options: Mapping[str, Any], column: str = ""
) -> tuple[Batch, Array | None]:  # fmt: skip
    """All examples, and for each what stands in a column.

    Raises:
        ConfigError: this kind of source has no columns.
        DataError: it is not there, or does not fit the model or the memory.
    """
    if not column:
        return _whole(open_source(source, options, manifest).blocks(None), manifest, source), None
    kind, path = check_source(source), Path(source)
    if kind == ".npz" and path.is_file():
        arrays = _whole(open_source(source, options, manifest).blocks(None), manifest, source)
        (groups,) = read_npz(path, [column])
        if groups.shape != (len(arrays[-1]),):
            raise ConfigError(
                f"{source}: {column} has shape {groups.shape}, one for each of {len(arrays[-1])} is wanted"
            )
        return arrays, groups
    if kind == "table":
        table = _ByColumn(path, options, manifest, column)
        words: list[str] = []

        def told() -> Iterator[tuple[Batch, Any]]:
            for block, cursor in table.blocks(None):
                words.extend([table.value] * len(block[-1]))
                yield block, cursor

        arrays = _whole(told(), manifest, source)
        return arrays, np.array(words)
    raise ConfigError(
        f"split by={column} needs a column: an .npz file with such an array, or a CSV file; {source} is none"
    )


def _whole(blocks: Iterator[tuple[Batch, Any]], manifest: Manifest, source: str) -> Batch:
    each_bytes, found, held = example_bytes(manifest), list[Batch](), 0
    with in_memory(source):
        for block, _ in blocks:
            held += each_bytes * len(block[-1])
            free = available_bytes()  # a function may yield for ever
            if free is not None and held > free:
                raise too_large(source, f"a dry run holds all examples in memory, {free >> 20} MB are free")
            found.append(block)
        if not found:
            raise NoExamplesError(f"{source} has no examples")
        return tuple(np.concatenate(each) for each in zip(*found, strict=True)) if len(found) > 1 else found[0]


def _chosen(arrays: Batch, which: Array) -> Batch:
    return tuple(array[which] for array in arrays)


def _cell(at: int, row: tuple[Any, Sequence[Any]]) -> str:
    """Of a row that may be too short: then whoever reads it says so."""
    return str(row[1][at]).strip() if at < len(row[1]) else ""


class _ByColumn(Delimited):
    """A table that tells what stands in a column; no window spans two values.

    Attributes:
        value: of the block that was given last.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest, column: str) -> None:
        groups = strings(options.get("group", []), "group")
        super().__init__(path, options, manifest)
        # Of a group, so that it is no input; without windows, owners have no use for one.
        self.options = {**options, "group": [*groups, *({column} - {*groups})]}
        self._column, self.value = column, ""

    def parts(self, rng: np.random.Generator | None, cursor: Any) -> Iterator[Part]:
        """See Table."""
        for part in super().parts(rng, cursor):
            at = part.columns.names.index(self._column)
            for value, rows in groupby(part.rows, partial(_cell, at)):
                self.value = value
                yield Part(part.columns, rows, part.place)
