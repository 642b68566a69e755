"""Tables as text: a CSV file or a folder of them, as boards, spreadsheets and loggers write them.

One line is one row. Empty lines, and lines that begin with #, are skipped. A last line without an end waits while its
file is young, and when it lacks something: a logger may be writing it. Files ending in .gz are unpacked as they are
read.
"""

import codecs
import csv
import gzip
import math
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import BLOCK_BYTES, Cursor, DataError
from edgeclient.train.sources.columns import Columns, chosen, missing, one_of
from edgeclient.train.sources.table import Part, Table

OPTIONS: Final = {
    "columns": "columns of the model's input, in its order; by default all but labels and groups",
    "delimiter": "one character between cells; found out by default",
    "decimal": 'of numbers: "." (default) or ","',
    "encoding": "of the text; UTF-8 by default, or what a byte order mark says",
    "header": 'false: there is none, and columns are called "1", "2", ...',
}
SUFFIXES: Final = (".csv", ".tsv", ".txt")
# In this order: a comma may be in numbers, a blank in names. A blank stands for any number of them.
_DELIMITERS: Final = ("\t", ";", "|", ",", " ")
# Parts of a file come in any order; the more, the better they mix.
_PARTS: Final = 16
_MOST_LINE_BYTES: Final = 1 << 20
_YOUNG_S: Final = 60.0  # loggers write more often
_MARK: Final = "\ufeff"  # spreadsheets begin a file with it
_UNREAD: Final = Columns((), (), ())


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table.

    Example:
        >>> is_table(Path("LOG.CSV")), is_table(Path("a.tsv.gz")), is_table(Path("a.gz"))
        (True, True, False)
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES


class Delimited(Table):
    """See the module, and OPTIONS beside those of every table."""

    def __init__(self, path: Path, options: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(str(path), options, manifest, OPTIONS, "a CSV file")
        self._path = path
        self._waits = ""  # in words, what a pass has left to the next one
        delimiter = options.get("delimiter", ",")
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise DataError(f"[data.options] delimiter is {delimiter!r}: one character is wanted")
        for file in self._files()[:1]:
            _head(file, options)

    def parts(self, rng: np.random.Generator | None, cursor: Cursor) -> Iterator[Part]:  # noqa: ARG002 (it does not grow)
        """See Table."""
        heads: dict[Path, _Head] = {}
        pieces: list[tuple[Path, int, int | None]] = []
        self._waits = ""
        for path in self._files():
            size = path.stat().st_size
            if (head := _head(path, self.options)) is None:
                self._waits = f"{path.name} is empty: a header line comes first, with an end of line"
                continue
            heads[path] = head
            step = max(1, BLOCK_BYTES // _PARTS) if head.seekable and not self.window else max(1, size)
            cuts = [head.start, *range(head.start + step, size, step)]
            pieces += [*((path, *cut) for cut in pairwise(cuts)), (path, cuts[-1], None)]
        try:
            for at in range(len(pieces)) if rng is None else rng.permutation(len(pieces)):
                path, first, end = pieces[at]
                yield Part(heads[path].columns, self._rows(heads[path], first, end), partial(_place, heads[path]))
        finally:
            self.note("waiting", self._waits)

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            if not self._path.is_file():
                raise missing(self._path)
            return [self._path]
        return [path for path in sorted(self._path.iterdir()) if is_table(path) and path.is_file()]

    def _rows(self, head: "_Head", first: int, end: int | None) -> Iterator[tuple[int, list[str]]]:
        for at, line in head.lines(first, end):
            if (cells := head.cells(line)) is None:
                continue
            if not line.endswith("\n") and (head.growing or not _readable(head.columns, cells)):
                self._waits = f"the last line of {head.path.name} is not finished: it waits"
                return
            yield at, cells


@dataclass(frozen=True, slots=True)
class _Head:
    """What the beginning of a file tells.

    Attributes:
        path: of the file.
        encoding: of its text.
        lenient: what is no text stands for itself, and makes a bad row.
        delimiter: between cells.
        start: where the rows begin, in bytes.
        columns: of the rows.
    """

    path: Path
    encoding: str
    lenient: bool
    delimiter: str = "\t"
    start: int = 0
    columns: Columns = _UNREAD

    @property
    def seekable(self) -> bool:
        """Whether reading may begin anywhere: where bytes are what is stored, and b"\\n" always ends a line."""
        return self.path.suffix.lower() != ".gz" and not _is_wide(self.encoding)

    @property
    def growing(self) -> bool:
        """Whether somebody may be writing it still; a time that lies ahead (no clock) says nothing."""
        return 0 <= time.time() - self.path.stat().st_mtime < _YOUNG_S

    def lines(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, str]]:
        """Where lines begin, in bytes, and the lines: all that begin from `first` on and before `end`.

        Raises:
            DataError: it is no text, or not in this encoding.
        """
        encoding = "utf-8" if _is_wide(self.encoding) else self.encoding
        errors = "replace" if self.lenient else "strict"
        try:
            with self._opened() as file:
                at = 0
                if first and self.seekable:
                    file.seek(first - 1)
                    at = first - 1 + len(file.readline(_MOST_LINE_BYTES))
                while (end is None or at < end) and (line := file.readline(_MOST_LINE_BYTES)):
                    if (endless := len(line) == _MOST_LINE_BYTES) and not self.lenient:
                        raise DataError(f"{self.path} has a line of more than {_MOST_LINE_BYTES >> 20} MB: no table")
                    if at >= first:
                        text = line.decode(encoding, errors) + "\n" * endless  # a bad row is no unfinished one
                        yield at, text if at else text.removeprefix(_MARK)
                    at += len(line)
        except (UnicodeError, LookupError) as error:
            raise DataError(
                f'{self.path} cannot be read as CSV: {error}: encoding = "latin-1" (or "utf-16") in [data.options]'
            ) from None
        except FileNotFoundError:
            raise missing(self.path) from None
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None

    def cells(self, line: str) -> list[str] | None:
        """The cells of a line; None for a line without any."""
        text = line.strip("\r\n" if self.delimiter == "\t" else None)
        if self.delimiter != ";":
            text = text.removesuffix(";")  # some end lines so
        if not text or text.startswith("#"):
            return None
        if self.delimiter == " ":
            return text.split()
        try:
            made = text.split(self.delimiter) if '"' not in text else next(csv.reader([text], delimiter=self.delimiter))
        except csv.Error as error:
            if self.lenient:
                return [text]  # a bad row
            raise DataError(f"{self.path} cannot be read as CSV: {error}") from None
        return made if any(map(str.strip, made)) else None

    def _opened(self) -> Any:
        packed = self.path.suffix.lower() == ".gz"
        file: Any = gzip.GzipFile(self.path) if packed else self.path.open("rb")
        return codecs.EncodedFile(file, "utf-8", self.encoding) if _is_wide(self.encoding) else file


def _head(path: Path, options: Mapping[str, Any]) -> _Head | None:
    """The beginning of a file; None before its first line is finished."""
    head = _Head(path, _encoding(path, options), one_of(options, "skip_bad", (False, True)))
    lines = ((at, line) for at, line in head.lines() if head.cells(line))
    if (first := next(lines, None)) is None or not first[1].endswith("\n"):
        return None
    head = replace(head, delimiter=options.get("delimiter") or _delimiter(first[1]))
    names, start = [name.strip() for name in head.cells(first[1]) or ()], first[0]
    following = next(lines, None)
    if not one_of(options, "header", (True, False)):
        names = [str(at + 1) for at in range(len(names))]
    else:
        start = path.stat().st_size if following is None else following[0]
        if options.get("labels", "labels") not in names and any(map(_is_number, names)):
            raise DataError(
                f"{_place(head, first[0])} looks like data: header = false in [data.options] if no line names the"
                f' columns; they are called 1 to {len(names)} then, labels = "{len(names)}" is the last'
            )
        extra = (following and head.cells(following[1])) or []
        if len(extra) == len(names) + 1:  # row names, as R writes them, or a delimiter at the end of lines
            names = [*names, ""] if not extra[-1].strip() else ["", *names]
    labels = "labels" if options.get("header", True) else names[-1]
    hint = "correct it, leave its column out with columns = [...], or the row with skip_bad = true"
    return replace(head, start=start, columns=chosen(names, options, labels, str(path), hint=hint))


def _encoding(path: Path, options: Mapping[str, Any]) -> str:
    name = options.get("encoding", "")
    try:
        if name:
            codecs.lookup(name)
            return str(name)
    except (LookupError, TypeError, ValueError):
        raise DataError(f'[data.options] encoding is {name!r}: "utf-8", "latin-1" or "utf-16" is usual') from None
    line = next(_Head(path, "latin-1", lenient=True).lines(), (0, ""))[1]
    if line[:2].encode("latin-1") in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
        return "utf-16"
    if "\0" in line:
        raise DataError(f'{path} cannot be read as CSV: it has zero bytes; encoding = "utf-16-le" in [data.options]?')
    return "utf-8"


def _is_wide(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _delimiter(line: str) -> str:
    bare = re.sub(r'"[^"]*"', "", line).strip("\r\n ;" if "," in line else "\r\n ")
    return next((each for each in _DELIMITERS if each in bare), ",")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell.replace(",", ".")))
    except ValueError:
        return False


def _readable(columns: Columns, cells: Sequence[str]) -> bool:
    try:
        columns.read(cells)
    except ValueError:
        return False
    return True


def _place(head: _Head, at: int) -> str:
    return f"{head.path}, line {sum(1 for _ in replace(head, lenient=True).lines(0, at)) + 1}"
