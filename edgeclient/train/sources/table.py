"""Tables, one pipeline for all kinds: rows → columns → windows → blocks. Kinds give rows; see `Table.parts`."""

import math
from abc import abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, Tensor
from edgeclient.compress.arrays import F64, I64, Array
from edgeclient.train.batches import BLOCK_BYTES, Batch, Blocks, Cursor, DataError, Source, fitting
from edgeclient.train.sources.columns import CLASSES, Columns, checked_options, one_of
from edgeclient.train.sources.windows import Windows, window_of

# What every kind of table takes.
OPTIONS: Final = {
    "labels": 'the column of labels, or several: "labels" by default, in a query the last one',
    CLASSES: 'labels are words, and these are 0, 1, ...: ["rest", "walk"]; of arrays, too',
    "missing": 'what to do without a value: "refuse" (default), "skip" the row, or a number that fills in',
    "skip_bad": "true: rows that cannot be read are skipped, counted and told",
    "window": "an example is so many rows; without it, one",
    "stride": "a window begins every so many rows; as many as it has by default",
    "group": "columns that stay the same within a recording: no window spans two",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that follow one another.

    Attributes:
        columns: of these rows.
        rows: a mark, by which a row is found again, and its cells.
        place: a mark in words: "d.csv, line 7".
    """

    columns: Columns
    rows: Iterable[tuple[Any, Sequence[Any]]]
    place: Callable[[Any], str]


class Table(Source):
    """See the module; memory is bounded by a block and a window, whatever the size of the table.

    Args:
        name: for errors.
        options: of [data.options].
        manifest: what the model wants.
        known: options of this kind of table, beside those of all.
        kind: of table, for errors.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], manifest: Manifest, known: Collection[str], kind: str
    ) -> None:
        super().__init__(name)
        checked_options(options, (*OPTIONS, *known), kind)
        if len(manifest.inputs) != 1:
            names = ", ".join(each.name for each in manifest.inputs)
            raise DataError(f"{name}: a table feeds models with one input, this one has {names}: use a function")
        self.options = options
        self._manifest = manifest
        self.window = window_of(options)
        self.overlaps = self.window is not None and self.window[0] > self.window[1]
        self._skip_bad = one_of(options, "skip_bad", (False, True))
        self._skipped: dict[str, tuple[int, str]] = {}  # how many rows, and the first

    @abstractmethod
    def parts(self, rng: np.random.Generator | None, cursor: Cursor) -> Iterator[Part]:
        """All rows, or those behind the cursor; with `rng`, parts in any order. Windows never cross parts."""

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:
        """See Source."""
        self._skipped, given = {}, False
        self.notes.pop("windows", None)
        try:
            for part in self.parts(rng, cursor):
                for batch, mark in self._cut(part):
                    cursor = mark if self.grows else cursor
                    if len(batch[-1]):
                        given = True
                        yield fitting(batch, self._manifest, self.name), cursor
            if self.window and not given and not (self.grows and cursor is not None):  # the error that follows tells it
                self.notes["windows"] = (
                    f"no window of {self.window[0]} rows: the group changes, or the file ends, before"
                )
        finally:
            for about, what in (("bad", "bad rows"), ("missing", "rows without a value")):
                count, first = self._skipped.get(about, (0, ""))
                self.note(about, f"{count} {what} skipped, such as {first}" if count else "")

    def _cut(self, part: Part) -> Iterator[tuple[Batch, Any]]:
        """Examples, and the mark up to which rows are in them."""
        labels = len(part.columns.labels)
        classes = self._manifest.classes is not None
        windows = Windows(*self.window, labels, common=classes and labels == 1) if self.window else None
        held: list[Any] = []
        for block, groups, rows in self._read(part):
            marks = held + block
            if windows is None:
                inputs, targets = np.hsplit(rows, [rows.shape[1] - labels])
            else:
                inputs, targets = windows.take(rows, groups)
                held = marks[len(marks) - windows.held :]
            done = len(marks) - len(held)
            if done:
                x = self._shaped(inputs, self._manifest.inputs[0], "columns")
                yield (x, self._shaped(targets, self._manifest.labels, "labels")), marks[done - 1]

    def _read(self, part: Part) -> Iterator[tuple[list[Any], I64, F64]]:
        """Marks, groups and numbers, block by block."""
        marks: list[Any] = []
        groups, numbers, width, most, group, run = array("q"), array("d"), 0, 0, None, 0
        for mark, cells, row in self.readable(part):
            if not width:
                width = len(row)
                repeated = self.window[0] / min(self.window) if self.window else 1
                most = max(1, int(BLOCK_BYTES / (8 * width * repeated)))
            if part.columns.group and (found := [cells[at] for at in part.columns.group]) != group:
                group, run = found, run + 1
            if len(row) != width:
                raise DataError(f"{part.place(mark)}: rows have different sizes, {len(row)} numbers after {width}")
            marks.append(mark)
            groups.append(run)
            numbers.extend(row)
            if len(marks) == most:
                yield marks, np.frombuffer(groups, np.int64), np.frombuffer(numbers).reshape(-1, width)
                marks, groups, numbers = [], array("q"), array("d")
        if marks:
            yield marks, np.frombuffer(groups, np.int64), np.frombuffer(numbers).reshape(-1, width)

    def readable(self, part: Part) -> Iterator[tuple[Any, Sequence[Any], list[float]]]:
        """Mark, cells and numbers of every row that is not skipped."""
        for mark, cells in part.rows:
            try:
                if (row := part.columns.read(cells)) is not None:
                    yield mark, cells, row
                    continue
                self._skip("missing", part, mark, "")
            except ValueError as error:
                if not self._skip_bad:
                    raise DataError(f"{part.place(mark)}{error}") from None
                self._skip("bad", part, mark, str(error).partition(", no number")[0])

    def _skip(self, about: str, part: Part, mark: Any, why: str) -> None:
        count, first = self._skipped.get(about, (0, ""))
        self._skipped[about] = count + 1, first or f"{part.place(mark)}{why}"

    def _shaped(self, numbers: F64, tensor: Tensor, option: str) -> Array:
        """What rows (n, columns), or windows (n, rows, columns), give to an array of the model, in its shape."""
        shape, given = tensor.shape[1:], numbers.shape[1:]
        sizes = tuple(size for size in shape if size != 1)
        windows = len(given) > 1
        if windows and sizes == given[::-1] != given:
            numbers = numbers.swapaxes(1, 2)
        elif math.prod(shape) != math.prod(given) or (windows and len(sizes) > 1 and sizes != given):
            rows, rest = divmod(math.prod(shape), given[-1] or 1)
            wrong = windows and option == "columns" and given[0] not in sizes
            way = f"see [data.options] {'window and ' * wrong}{option}"
            if option == "columns" and not rest and (rows in sizes or (wrong and len(sizes) == 1)):
                way = f"window = {rows} in [data.options] takes so many rows"
            gives = f"{'a window' if windows else 'a row'} gives {_size(given)} numbers for {tensor.name}"
            raise DataError(f"{self.name}: {gives}, the model wants {_size(shape)}: {way}")
        return numbers.reshape(len(numbers), *shape)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"
