"""Columns of a table: which are inputs, labels and groups, and their cells as numbers."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeclient.settings import nearest
from edgeclient.train.batches import AbsentError, DataError

CLASSES: Final = "classes"
# What recorders write where they have no value; the last two are Home Assistant's.
_MISSING: Final = frozenset({"", "?", "-", "na", "n/a", "nan", "none", "null", "unavailable", "unknown"})
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+")
_HERE: Final = "in [data.options]"


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row things are, and how a cell is read.

    Attributes:
        names: of all columns; "" for one that is never used.
        inputs: positions of the model's input numbers, in order.
        labels: positions of the label; several for a model that predicts several numbers.
        group: positions of what stays the same within a recording.
        classes: number by text, for labels that are words.
        comma: numbers have a decimal comma.
        missing: the number that stands for a missing value; NaN leaves the row out, None refuses it.
        hint: what to do about a cell that is no number.
    """

    names: tuple[str, ...]
    inputs: tuple[int, ...]
    labels: tuple[int, ...]
    group: tuple[int, ...] = ()
    classes: Mapping[str, int] | None = None
    comma: bool = False
    missing: float | None = None
    hint: str = ""

    def read(self, cells: Sequence[Any]) -> list[float] | None:
        """The numbers of a row, inputs then labels; None for a row to leave out, since a value is missing.

        Args:
            cells: text, numbers, None, or a tuple of numbers where one cell holds several.

        Raises:
            ValueError: a cell is no number, or there are too few or too many; the text goes on from the row's place.

        Example:
            >>> columns = Columns(("a", "b", "class"), (0, 1), (2,), classes={"rest": 0, "run": 1}, missing=math.nan)
            >>> columns.read(["0.5", " 2", "run"]), columns.read(["0.5", "", "run"])
            ([0.5, 2.0, 1.0], None)
        """
        if len(cells) != len(self.names):
            raise ValueError(f": {len(cells)} cells, the header has {len(self.names)}")
        try:
            if self.comma:
                made = [float(cells[at].replace(",", ".")) for at in self.inputs]
            else:
                made = [float(cells[at]) for at in self.inputs]
            if not self.classes:
                made += [float(cells[at]) for at in self.labels]
            else:
                made += [float(self.classes[cells[at]]) for at in self.labels]
            if math.isfinite(sum(made)):
                return made
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        made = [number for at in self.inputs for number in self._input(cells[at], at)]
        made += [self._label(cells[at], at) for at in self.labels]
        return None if any(map(math.isnan, made)) else made

    def _input(self, cell: Any, at: int) -> Sequence[float]:
        """Numbers of a cell; NaN leaves the row out."""
        made = cell if isinstance(cell, tuple) else [self._number(cell, at, self.hint)]
        if all(map(math.isfinite, made)):
            return made
        if any(map(math.isinf, made)):
            raise self._refused(at, cell, "values that are NaN or infinite cannot be learnt")
        if self.missing is None:
            raise self._refused(
                at, cell, f'no number: missing = "skip" {_HERE} skips such rows, missing = 0 fills in; or {self.hint}'
            )
        return [self.missing if math.isnan(number) else number for number in made]

    def _label(self, cell: Any, at: int) -> float:
        """A label as a number; NaN leaves the row out."""
        word = cell.strip() if isinstance(cell, str) else cell
        if not self.classes:
            made = self._number(cell, at, f"words need classes = [...] {_HERE}")
        elif word in self.classes:
            return self.classes[word]
        elif _is_missing(word):
            made = math.nan
        else:
            raise self._refused(at, cell, f"[data.options] classes has {', '.join(self.classes)}")
        if math.isnan(made) and self.missing is None:
            raise self._refused(at, cell, f'no number or class: missing = "skip" {_HERE} skips such rows')
        return made

    def _number(self, cell: Any, at: int, hint: str) -> float:
        """A cell as a number; NaN if the value is missing."""
        text = cell.strip() if isinstance(cell, str) else cell
        try:
            return float(text.replace(",", ".") if self.comma and isinstance(text, str) else text)
        except (TypeError, ValueError):
            if _is_missing(text):
                return math.nan
        if isinstance(text, str) and _DECIMAL_COMMA.fullmatch(text):
            hint = f'decimal = "," {_HERE} reads it'
        raise self._refused(at, cell, f"no number: {hint}")

    def _refused(self, at: int, cell: Any, why: str) -> ValueError:
        return ValueError(f", column {self.names[at]!r}: is {repr(cell)[:40]}, {why}")


def chosen(
    names: Sequence[str], options: Mapping[str, Any], labels: str, where: str, *, without: Sequence[str] = (), hint: str
) -> Columns:
    """The columns that [data.options] name, and how to read them.

    Args:
        names: of all columns.
        options: `labels`, `columns` (default: the rest), `group`, `classes`, `decimal`, `missing`.
        labels: the default of `labels`.
        where: the table, for errors.
        without: columns that are neither inputs nor labels.
        hint: see Columns.

    Raises:
        DataError: a column is not there, is there twice, or stands for two things.

    Example:
        >>> options = {"labels": "class", "columns": ["a", "b"]}
        >>> chosen(["t", "a", "b", "class"], options, "labels", "d.csv", hint="").inputs
        (1, 2)
    """
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError(f"{where} has two columns {twice[0]!r}: rename one")
    label_names, group = strings(options.get("labels", labels), "labels"), strings(options.get("group", []), "group")
    neither = {*label_names, *group, *without, ""}
    input_names = strings(options.get("columns", [name for name in names if name not in neither]), "columns")
    if not input_names:
        raise DataError(f"{where} has no column beside {', '.join([*label_names, *group, *without])}")
    for name in (*label_names, *input_names, *group):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            has = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(filter(None, names))}"
            kind = DataError if near else AbsentError
            raise kind(f"{where} has no column {name!r}: {has} ([data.options] labels and columns name them)")
    if both := [name for name in input_names if name in label_names]:
        raise DataError(f"[data.options] {both[0]!r} cannot be both a label and an input")
    return Columns(
        tuple(names),
        inputs=tuple(map(names.index, input_names)),
        labels=tuple(map(names.index, label_names)),
        group=tuple(map(names.index, group)),
        classes={name: at for at, name in enumerate(strings(options.get(CLASSES, []), CLASSES))},
        comma=one_of(options, "decimal", (".", ",")) == ",",
        missing=_missing_value(options),
        hint=hint,
    )


def checked_options(options: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse options that would be ignored."""
    for key in options:
        if key not in known:
            raise DataError(f"[data.options] {key} means nothing for {where}: {nearest(key, known)}")


def strings(value: Any, key: str) -> list[str]:
    """One name or several; anything else is a DataError."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise DataError(f"[data.options] {key} is {value!r}: a name or a list of names is wanted")
    if key == CLASSES and len(set(values)) < len(values):
        raise DataError(f"[data.options] {key} has a name twice: {', '.join(values)}")
    return values


def one_of(options: Mapping[str, Any], key: str, allowed: Sequence[Any]) -> Any:
    """An option with a few values, the first by default."""
    value = options.get(key, allowed[0])
    if value not in allowed or type(value) not in set(map(type, allowed)):
        raise DataError(f"[data.options] {key} is {value!r}: {' or '.join(map(repr, allowed))} is wanted")
    return value


def missing(path: Path | str) -> DataError:
    """A file or folder is not there."""
    return DataError(f"{path} does not exist: [data] source in the configuration names it")


def _missing_value(options: Mapping[str, Any]) -> float | None:
    value = options.get("missing", "refuse")
    if type(value) in {int, float} and math.isfinite(value):
        return float(value)
    if value not in {"refuse", "skip"}:
        raise DataError(f'[data.options] missing is {value!r}: "refuse", "skip" or a number is wanted')
    return math.nan if value == "skip" else None


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and cell.lower() in _MISSING)
