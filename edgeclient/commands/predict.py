"""The command `edgeclient predict`: what the model says of a file; the aggregator's child process as well."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from edgeclient.commands.model import NAME, PARAMETERS, PLACE, Chosen, chosen
from edgeclient.commands.options import JSON
from edgeclient.compress.arrays import Array
from edgeclient.train import inference, predictions
from edgeclient.train.batches import DataError
from edgeclient.train.sources import delimited, query, table
from edgeclient.train.sources.columns import CLASSES, strings
from edgeclient.train.sources.delimited import is_table
from edgeclient.train.sources.functions import is_function

_TOP: Final = 3
_NAMES: Final = {CLASSES, "columns", "group", "labels"}  # several, with commas between


def _read_options(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    options = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{each!r}: KEY=VALUE is wanted, such as labels=activity")
        try:
            options[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = value.split(",") if key in _NAMES and "," in value else value
    return options


@click.command("predict")
@PLACE
@click.argument("file", type=click.Path(path_type=Path))
@PARAMETERS
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=_read_options,
    metavar="KEY=VALUE",
    help="Of FILE, as in [data.options]; names with commas between; repeatable.",
)
@NAME
@JSON
def predict_command(
    place: Path, file: Path, parameters: Path | None, options: dict[str, Any], name: str, *, as_json: bool
) -> None:
    """Say what the model answers for each example in FILE: class, confidence and the next best, or numbers.

    CONFIG is a device's file, whose current version answers, or a training bundle. FILE is whatever a data source
    reads (CSV, .npz, SQLite, a folder …), with labels or without, or one .npy file. Of a device's data, its
    [data.options] hold for FILE, too; `classes` among them names the classes.

    \b
    Example:
      edgeclient predict device.toml new_windows.npy
      edgeclient predict mine.bundle windows.csv --option labels=activity --option classes=rest,run
    """
    with chosen(place, parameters, name) as model:
        options = {**_own_options(model, file), **options}
        names = strings(options.get(CLASSES, []), CLASSES)
        if model.manifest.classes is not None and names and len(names) != model.manifest.classes:
            raise DataError(f"classes has {len(names)} names, the model has {model.manifest.classes} classes")
        rows = []
        try:
            for row in _rows(model, file, options, names):
                rows.append(row)
                if not as_json:
                    click.echo(f"{len(rows):>6}  {_text(row)}")
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
    if is_function(own.source):
        known = {CLASSES}
    elif is_table(file) or file.suffix.lower() in query.SUFFIXES or file.is_dir():
        known = {*table.OPTIONS, *delimited.OPTIONS, *query.OPTIONS}
    else:
        known = {CLASSES, model.manifest.labels.name, *(each.name for each in model.manifest.inputs)}
    return {key: value for key, value in own.options.items() if key in known}


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
