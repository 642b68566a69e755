"""Examples in a CSV file with a header line: number columns and a label column, read in blocks."""

import csv
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import BLOCK_BYTES, Batch, Blocks, Cursor, DataError, Source
from edgeclient.train.sources.arrays import missing
from edgeclient.train.sources.columns import Columns, batch_of, checked_options, chosen, label_number, one_input

OPTIONS: Final = ("labels", "columns", "classes", "delimiter")


class CsvFile(Source):
    """See the module; memory is bounded by a block, whatever the size of the file, which is UTF-8.

    Options: `labels` (default "labels"), `columns` (default: the others), `classes` for labels that are words,
    `delimiter`.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest) -> None:
        self.name = str(path)
        self._path = path
        self._options = options
        self._manifest = manifest
        checked_options(options, OPTIONS, "a CSV file")
        one_input(manifest, self.name)
        self._delimiter = options.get("delimiter", ",")
        if not isinstance(self._delimiter, str) or len(self._delimiter) != 1:
            raise DataError(f"[data.options] delimiter is {self._delimiter!r}: one character is wanted")
        for _ in self._rows(header_only=True):
            pass

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (a file has one order)
        """From top to bottom."""
        return ((block, cursor) for block in self._rows())

    def _rows(self, *, header_only: bool = False) -> Iterator[Batch]:
        try:
            # Spreadsheets begin the file with a byte order mark.
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter)
                names = [name.strip() for name in next(reader, [])]
                if not names:
                    raise DataError(f"{self.name} is empty: a header line with the names of the columns is wanted")
                columns = chosen(names, self._options, "labels", self.name)
                if not header_only:
                    yield from self._blocks(reader, columns)
        except FileNotFoundError:
            raise missing(self._path) from None
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{self.name} cannot be read as CSV: {error}") from None

    def _blocks(self, reader: Any, columns: Columns) -> Iterator[Batch]:
        most = max(1, BLOCK_BYTES // (8 * (len(columns.inputs) + len(columns.labels))))
        inputs, labels, lines = array("d"), array("d"), array("q")
        for row in reader:
            if not row:
                continue
            if len(row) != len(columns.names):
                raise DataError(
                    f"{self.name}, line {reader.line_num}: {len(row)} cells, the header has {len(columns.names)}"
                )
            try:
                inputs.extend([float(row[at]) for at in columns.inputs])
                labels.extend([label_number(row[at], columns) for at in columns.labels])
            except ValueError:
                self._blame(row, columns, reader.line_num)
            lines.append(reader.line_num)
            if len(lines) == most:
                yield self._batch(inputs, labels, lines, columns)
                inputs, labels, lines = array("d"), array("d"), array("q")
        if lines:
            yield self._batch(inputs, labels, lines, columns)

    def _batch(self, inputs: "array[float]", labels: "array[float]", lines: Sequence[int], columns: Columns) -> Batch:
        parts = [np.frombuffer(each, np.float64).reshape(len(lines), -1) for each in (inputs, labels)]
        for part, positions in zip(parts, (columns.inputs, columns.labels), strict=True):
            for row, at in np.argwhere(~np.isfinite(part))[:1]:
                self._refuse(lines[row], columns.names[positions[at]], f"is {part[row, at]}")
        return batch_of(parts[0], parts[1], self._manifest, self.name)

    def _blame(self, row: Sequence[str], columns: Columns, line: int) -> NoReturn:
        for at in (*columns.labels, *columns.inputs):
            try:
                _ = label_number(row[at], columns) if at in columns.labels else float(row[at])
            except ValueError as error:
                why = str(error) if at in columns.labels else f"is {row[at][:40]!r}, no number"
                self._refuse(line, columns.names[at], why)
        raise AssertionError("every cell is a number")

    def _refuse(self, line: int, column: str, why: str) -> NoReturn:
        raise DataError(
            f"{self.name}, line {line}, column {column!r}: {why}: correct it, or leave the column out with columns ="
            " [...] in [data.options]"
        )
