# ruff: noqa: S608 (the query is the owner's own, over a read-only connection)
"""Tables in a SQLite database: a query's rows, read in parts over a read-only connection.

No statement stays open between parts: a logger that writes to the same file never waits for a training pass.
"""

import logging
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import BLOCK_BYTES, Cursor, DataError, example_bytes
from edgeclient.train.sources.columns import chosen, missing
from edgeclient.train.sources.table import Part, Table

_LOG = logging.getLogger(__name__)
OPTIONS: Final = {
    "query": "SELECT ... that gives the rows",
    "since": "a column that rises with every new row, such as rowid: a round reads what is new",
}
SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
_BUSY_S: Final = 10.0
# Parts come in any order; the more, the better they mix, and the longer SQLite counts to their beginnings.
_PARTS: Final = 64
_HINT: Final = (
    "leave such rows out with WHERE ... in the query (CAST(... AS REAL) makes 0 of them), or with skip_bad = true"
)

Rows: TypeAlias = list[tuple[Any, ...]]


class Query(Table):
    """See the module.

    Options beside those of every table: `query`, a SELECT; `since`, a column of the query that is unique and rises with
    every new row, such as rowid. The label is the last column by default. Cells are numbers, text that is one, or BLOBs
    of little-endian float32.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(str(path), options, manifest, OPTIONS, "a SQLite database")
        self._path = path
        self._select = _text(options, "query").strip().rstrip(";")
        if not self._select:
            raise DataError(f'{path}: [data.options] query is missing: query = "SELECT a, b, label FROM readings"')
        self._since = _text(options, "since")
        self.grows = bool(self._since)
        names = self._column_names()
        if self._since and self._since not in names:
            raise DataError(
                f"{path}: since = {self._since!r} is no column of the query, which has {', '.join(names)}:"
                f" SELECT {self._since}, ..."
            )
        self._at = names.index(self._since) if self._since else -1
        last = next((name for name in reversed(names) if name != self._since), "labels")
        where = f"{path}: the query"
        self._columns = chosen(names, options, last, where, without=[self._since] * self.grows, hint=_HINT)
        # BLOBs may make a row as large as an example.
        row_bytes = 8 * len(names) if self.window else max(8 * len(names), 2 * example_bytes(manifest))
        self._most = max(1, BLOCK_BYTES // row_bytes)

    def parts(self, rng: np.random.Generator | None, cursor: Cursor) -> Iterator[Part]:
        """Rows behind the cursor, in the order of the `since` column; else all rows."""
        if self.grows and rng is None:
            rows = self._behind(cursor)
            yield Part(self._columns, rows, self._place)
            return
        count = self._rows(f"SELECT count(*) FROM ({self._select})", ())[0][0]
        most = min(self._most, max(1, self._most // 8, count // _PARTS))
        firsts = range(0, count, most)
        read = partial(self._slice, most=most)
        if self.window:
            yield Part(self._columns, (row for first in firsts for row in read(first)), self._place)
            return
        for at in range(len(firsts)) if rng is None else rng.permutation(len(firsts)):
            yield Part(self._columns, read(firsts[at]), self._place)

    def _slice(self, first: int, most: int) -> Iterator[tuple[Any, Sequence[Any]]]:
        rows = self._rows(f"SELECT * FROM ({self._select}) LIMIT ? OFFSET ?", (most, first))
        for at, row in enumerate(rows):
            mark = row[self._at] if self.grows else first + at
            yield mark, self._cells(row, mark)

    def _behind(self, cursor: Cursor) -> Iterator[tuple[Cursor, Sequence[Any]]]:
        if cursor is not None and self._restarted(cursor):
            _LOG.warning("%s: all rows are before %s = %s: the table has begun anew", self.name, self._since, cursor)
            cursor = None
        column = _quoted(self._since)
        while True:
            behind, values = ("", ()) if cursor is None else (f"WHERE {column} > ?", (cursor,))
            statement = f"SELECT * FROM ({self._select}) {behind} ORDER BY {column} LIMIT ?"
            rows = self._rows(statement, (*values, self._most))
            for row in rows:
                cursor = row[self._at]
                if not isinstance(cursor, int | float | str):
                    what = type(cursor).__name__
                    raise DataError(f"{self.name}: {self._since} is {what}, a number or text is wanted")
                yield cursor, self._cells(row, cursor)
            if len(rows) < self._most:
                return

    def _cells(self, row: tuple[Any, ...], mark: Any) -> Sequence[Any]:
        """The row, with the numbers of its BLOBs."""
        if not any(type(cell) is bytes for cell in row):
            return row
        try:
            return [struct.unpack(f"<{len(cell) // 4}f", cell) if type(cell) is bytes else cell for cell in row]
        except struct.error:
            size = next(len(cell) for cell in row if type(cell) is bytes and len(cell) % 4)
            raise DataError(f"{self._place(mark)} has a BLOB of {size} bytes, no float32 numbers") from None

    def _place(self, mark: Any) -> str:
        return f"{self.name}, " + (f"{self._since} = {mark}" if self.grows else f"row {mark + 1} of the query")

    def _restarted(self, cursor: Cursor) -> bool:
        statement = f"SELECT max({_quoted(self._since)}) < ? FROM ({self._select})"
        return bool(self._rows(statement, (cursor,))[0][0])

    def _column_names(self) -> list[str]:
        with _connected(self._path) as connection:
            return [each[0] for each in connection.execute(f"SELECT * FROM ({self._select}) LIMIT 0").description]

    def _rows(self, statement: str, values: Sequence[Any]) -> Rows:
        with _connected(self._path) as connection:
            return connection.execute(statement, values).fetchall()


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
