"""The command `edgeclient predict`: what the model says of a file; the aggregator's child process as well."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from edgeclient.commands.model import NAME, PARAMETERS, PLACE, Chosen, chosen
from edgeclient.commands.options import DATA_OPTIONS, JSON, USUAL_OPTIONS
from edgeclient.compress.arrays import Array
from edgeclient.train import inference, predictions
from edgeclient.train.batches import DataError
from edgeclient.train.sources import delimited, query, table
from edgeclient.train.sources.columns import CLASSES, strings
from edgeclient.train.sources.delimited import is_table
from edgeclient.train.sources.functions import is_function
from edgeclient.train.sources.windows import window_of

_TOP: Final = 3


@click.command("predict")
@PLACE
@click.argument("file", type=click.Path(path_type=Path))
@PARAMETERS
@DATA_OPTIONS
@USUAL_OPTIONS
@NAME
@JSON
def predict_command(
    place: Path,
    file: Path,
    parameters: Path | None,
    options: dict[str, Any],
    usual: dict[str, Any],
    name: str,
    *,
    as_json: bool,
) -> None:
    """Say what the model answers for each example in FILE: class, confidence and the next best, or numbers.

    CONFIG is a device's file, whose current version answers, or a training bundle. FILE is whatever a data source
    reads (CSV, .npz, SQLite, a folder …), with labels or without, or one .npy file. Of a device's data, its
    [data.options] hold for FILE, too; `classes` among them names the classes. Examples are numbered from 1 in the
    order of FILE, and where an example is a window of rows, it says which.

    \b
    Example:
      edgeclient predict device.toml new_windows.npy
      edgeclient predict mine.bundle windows.csv --option labels=activity --option classes=rest,run
    """
    with chosen(place, parameters, name) as model:
        options = {**_meant(usual, model, file), **_own_options(model, file), **options}
        window = _window(file, options)
        names = strings(options.get(CLASSES, []), CLASSES)
        if model.manifest.classes is not None and names and len(names) != model.manifest.classes:
            raise DataError(f"classes has {len(names)} names, the model has {model.manifest.classes} classes")
        rows: list[dict[str, Any]] = []
        try:
            for row in _rows(model, file, options, names):
                at = len(rows)
                span = [at * window[1] + 1, at * window[1] + window[0]] if window else []
                rows.append({"example": at + 1, **({"rows": span} if span else {}), **row})
                if not as_json:
                    click.echo(f"{at + 1:>6}  {'rows {} to {}  '.format(*span) if span else ''}{_text(row)}")
        except DataError as error:
            here = "; --option KEY=VALUE gives [data.options]" if "[data.options]" in str(error) else ""
            raise DataError(f"{error}{here}") from None
    right = [row["label"] == row["class"] for row in rows if "label" in row and "class" in row]
    if as_json:
        said = {"accuracy": sum(right) / len(right)} if right else {}
        click.echo(json.dumps({"model": model.name, "version": model.version, **said, "rows": rows}))
        return
    known = f", {sum(right)} of {len(right)} as labelled" if right else ""
    click.echo(f"{len(rows)} examples by {model.name}{known}")


def _own_options(model: Chosen, file: Path) -> dict[str, Any]:
    """Of a device's [data.options], those that mean something for the file."""
    if model.settings is None:
        return {}
    own = model.settings.data
    return _meant({k: v for k, v in own.options.items() if not is_function(own.source) or k == CLASSES}, model, file)


def _meant(options: dict[str, Any], model: Chosen, file: Path) -> dict[str, Any]:
    """Those that mean something for the file."""
    if is_table(file) or file.is_dir():
        known = {*table.OPTIONS, *delimited.OPTIONS}
    elif file.suffix.lower() in query.SUFFIXES:
        known = {*table.OPTIONS, *query.OPTIONS}
    else:
        known = {CLASSES, model.manifest.labels.name, *(each.name for each in model.manifest.inputs)}
    return {key: value for key, value in options.items() if key in known}


def _window(file: Path, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows of an example of a table, and from one to the next; None where rows are not counted so.

    Example:
        >>> _window(Path("d.csv"), {"window": 64, "stride": 32}), _window(Path("d.csv"), {"window": 64, "group": "run"})
        ((64, 32), None)
    """
    if file.is_dir() or not (is_table(file) or file.suffix.lower() in query.SUFFIXES):
        return None
    uneven = "group" in options or options.get("skip_bad") or options.get("missing") == "skip"
    return None if uneven else window_of(options)


def _rows(model: Chosen, file: Path, options: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What is said of each example."""
    manifest = model.manifest
    answer = inference.answering(model.directory, manifest, model.parameters, model.local)
    for inputs, labels in predictions.examples(str(file), options, manifest):
        scores = answer(inputs)
        if manifest.loss == "bce_with_logits":
            scores = np.reciprocal(1 + np.exp(-scores))
        if manifest.classes is None:
            yield from ({"values": each.tolist()} for each in scores)
            continue
        sure = predictions.probabilities(scores)
        for at, each in enumerate(sure):
            row = _sequence(each) if each.ndim > 1 else _classified(each, names)
            if labels is not None and labels.ndim == 1:
                row["label"] = int(labels[at])
            yield row


def _classified(sure: Array, names: Sequence[str]) -> dict[str, Any]:
    best = np.argsort(-sure, kind="stable")[:_TOP]
    top = [{"class": int(at), "name": _name(int(at), names), "confidence": round(float(sure[at]), 6)} for at in best]
    return {**top[0], "top": top}


def _sequence(sure: Array) -> dict[str, Any]:
    """Of a model that names a class at every place: (classes, …)."""
    found = sure.argmax(axis=0)
    return {"classes": found.tolist(), "confidence": round(float(sure.max(axis=0).mean()), 6)}


def _name(number: int, names: Sequence[str]) -> str:
    return names[number] if names else str(number)


def _text(row: dict[str, Any]) -> str:
    if "values" in row:
        return " ".join(f"{each:.6g}" for each in np.ravel(row["values"]))
    if "classes" in row:
        return f"{' '.join(map(str, np.ravel(row['classes'])))}  {row['confidence']:.3f}"
    rest = ", ".join(f"{each['name']} {each['confidence']:.3f}" for each in row["top"][1:])
    return f"{row['name']}  {row['confidence']:.3f}  {f'({rest})' if rest else ''}".rstrip()
