# ruff: noqa: S608 (the query is the owner's own, over a read-only connection)
"""Examples from a SQLite database: a query whose rows are examples, read in blocks over a read-only connection.

No statement stays open between blocks: a logger that writes to the same file never waits for a training pass.
"""

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import F64
from edgeclient.train.batches import BLOCK_BYTES, Batch, Blocks, Cursor, DataError, Source, example_bytes
from edgeclient.train.sources.arrays import missing
from edgeclient.train.sources.columns import batch_of, checked_options, chosen, label_number, one_input

_LOG = logging.getLogger(__name__)
OPTIONS: Final = ("query", "labels", "classes", "since")
SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
_BUSY_S: Final = 10.0

Rows: TypeAlias = list[tuple[Any, ...]]


class Query(Source):
    """See the module.

    Options: `query`, a SELECT; `labels`, its label column (default: the last); `classes` for labels that are words;
    `since`, a column of the query that is unique and rises with every new row, such as rowid. All other columns are
    inputs: numbers, or BLOBs of little-endian float32.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest) -> None:
        self.name = str(path)
        self._path = path
        self._manifest = manifest
        checked_options(options, OPTIONS, "a SQLite database")
        one_input(manifest, self.name)
        self._select = _text(options, "query").strip().rstrip(";")
        if not self._select:
            raise DataError(f'{path}: [data.options] query is missing: query = "SELECT a, b, label FROM readings"')
        self._since = _text(options, "since") or None
        self.grows = self._since is not None
        names = self._column_names()
        if self._since is not None and self._since not in names:
            raise DataError(
                f"{path}: since = {self._since!r} is no column of the query, which has {', '.join(names)}:"
                f" SELECT {self._since}, ..."
            )
        without = [] if self._since is None else [self._since]
        last = next((name for name in reversed(names) if name not in without), "labels")
        self._columns = chosen(names, options, last, f"{path}: the query", without)

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (rows come in their order)
        """Rows behind the cursor, in the order of the `since` column; without one, all rows."""
        if cursor is not None and self._restarted(cursor):
            _LOG.warning("%s: all rows are before %s = %s: the table has begun anew", self.name, self._since, cursor)
            cursor = None
        most = max(1, BLOCK_BYTES // (2 * max(1, example_bytes(self._manifest))))
        done = 0
        while rows := self._read(cursor, most, done):
            if self._since is not None:
                cursor = rows[-1][self._columns.names.index(self._since)]
                if not isinstance(cursor, int | float | str):
                    raise DataError(
                        f"{self.name}: {self._since} is {type(cursor).__name__}, a number or text is wanted"
                    )
            yield self._batch(rows, done), cursor
            done += len(rows)
            if len(rows) < most:
                return

    def _read(self, cursor: Cursor, most: int, done: int) -> Rows:
        if self._since is None:
            return self._rows(f"SELECT * FROM ({self._select}) LIMIT ? OFFSET ?", (most, done))
        column = _quoted(self._since)
        behind, values = ("", ()) if cursor is None else (f"WHERE {column} > ?", (cursor,))
        return self._rows(f"SELECT * FROM ({self._select}) {behind} ORDER BY {column} LIMIT ?", (*values, most))

    def _restarted(self, cursor: Cursor) -> bool:
        assert self._since is not None
        statement = f"SELECT max({_quoted(self._since)}) < ? FROM ({self._select})"
        return bool(self._rows(statement, (cursor,))[0][0])

    def _column_names(self) -> list[str]:
        with _connected(self._path) as connection:
            return [each[0] for each in connection.execute(f"SELECT * FROM ({self._select}) LIMIT 0").description]

    def _rows(self, statement: str, values: Sequence[Any]) -> Rows:
        with _connected(self._path) as connection:
            return connection.execute(statement, values).fetchall()

    def _batch(self, rows: Rows, first: int) -> Batch:
        inputs = self._numbers([[row[at] for at in self._columns.inputs] for row in rows], first)
        labels = np.array([self._label(row, first + at) for at, row in enumerate(rows)], np.float64)
        return batch_of(inputs, labels, self._manifest, self.name)

    def _numbers(self, rows: Sequence[Sequence[Any]], first: int) -> F64:
        kinds = set(map(type, chain.from_iterable(rows)))
        made = (
            [np.array(rows, np.float64)]
            if kinds <= {int, float}
            else [self._flat(row, first + at) for at, row in enumerate(rows)]
        )
        widths = {part.shape[-1] for part in made}
        if len(widths) > 1:
            raise DataError(f"{self.name}: rows have different sizes, from {min(widths)} to {max(widths)} numbers")
        numbers = np.vstack(made)
        for row, _ in np.argwhere(~np.isfinite(numbers))[:1]:
            raise self._refused(first + int(row), "the input", "has values that are NaN or infinite")
        return numbers

    def _flat(self, row: Sequence[Any], at: int) -> F64:
        parts: list[F64] = []
        for position, cell in zip(self._columns.inputs, row, strict=True):
            if isinstance(cell, bytes) and len(cell) % 4 == 0:
                parts.append(np.frombuffer(cell, "<f4").astype(np.float64))
            elif isinstance(cell, int | float):
                parts.append(np.array([cell], np.float64))
            else:
                what = f"a BLOB of {len(cell)} bytes" if isinstance(cell, bytes) else repr(cell)[:40]
                raise self._refused(
                    at, repr(self._columns.names[position]), f"is {what}, a number or a BLOB of float32 is wanted"
                )
        return np.concatenate(parts)

    def _label(self, row: Sequence[Any], at: int) -> list[float]:
        made = []
        for position in self._columns.labels:
            try:
                made.append(label_number(row[position], self._columns))
            except ValueError as error:
                raise self._refused(at, repr(self._columns.names[position]), str(error)) from None
        return made

    def _refused(self, at: int, column: str, why: str) -> DataError:
        return DataError(f"{self.name}, row {at + 1} of the query, column {column}: {why}")


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection for the length of a block; what goes wrong there is a DataError."""
    if not path.is_file():
        raise missing(path)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            yield connection
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError, OverflowError) as error:
        raise DataError(f"{path}: {error}: see [data.options] query") from None


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(options: Mapping[str, Any], key: str) -> str:
    value = options.get(key, "")
    if not isinstance(value, str):
        raise DataError(f"[data.options] {key} is {value!r}: text is wanted")
    return value
