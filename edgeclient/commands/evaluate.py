"""The command `edgeclient evaluate`: a model's loss and accuracy on data; the aggregator's child process as well."""

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import read_manifest
from edgeclient.commands.model import flat, unpack
from edgeclient.commands.options import DATA_OPTIONS, FILE, JSON
from edgeclient.durable.lock import StoreError
from edgeclient.models.slots import Models
from edgeclient.settings import Device, load
from edgeclient.train.batches import DataError, Dataset
from edgeclient.train.compiled import Statistics
from edgeclient.train.data import open_data
from edgeclient.train.local import open_measured
from edgeclient.train.trainer import Evaluation, Trainer, TrainingError
from edgeclient.train.trainers import open_trainer


@click.command("evaluate")
@click.argument("config", required=False, type=FILE)
@click.option("--bundle", "bundle_file", type=FILE, help="A training bundle, instead of CONFIG.")
@click.option("--data", "source", help="With --bundle: what [data] source of a device may be.")
@DATA_OPTIONS
@click.option("--parameters", type=FILE, help="With --bundle: flat float32 numbers, instead of the bundle's own.")
@click.option(
    "--follow", is_flag=True, help="With --bundle: evaluate the parameter file named on each line of standard input."
)
@JSON
def evaluate_command(
    config: Path | None,
    bundle_file: Path | None,
    source: str | None,
    options: dict[str, Any],
    parameters: Path | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Measure a model on data: this device's own (its holdout, if it has one), or any bundle on any data.

    \b
    Example:
      edgeclient evaluate device.toml
      edgeclient evaluate --bundle watch-har.bundle --data held_out.csv --option labels=activity --json
    """
    if (config is None) == (bundle_file is None):
        raise click.UsageError("give either a device's CONFIG or --bundle with --data")
    if config is not None:
        settings = load(config, Device)
        model = Models(settings.models).active()
        if model is None:
            raise StoreError(f"{settings.directory} holds no model yet: start edgeclient run {config} first")
        manifest = read_manifest(model.bundle_directory)
        data = open_measured(settings.data, manifest, directory=settings.directory, device=settings.device)
        trainer = open_trainer(model.bundle_directory, settings.training.runtime, settings.training.threads)
        _tell(trainer.evaluate(model.parameters, data, Statistics(model.bundle_directory).load()), as_json=as_json)
        return
    if source is None:
        raise click.UsageError("--bundle needs --data")
    assert bundle_file is not None
    opened = archive.decode(bundle_file.read_bytes())
    data = open_data(source, options, opened.manifest)
    with tempfile.TemporaryDirectory(prefix="edgeclient-") as directory:
        unpack(opened, Path(directory))
        trainer = open_trainer(Path(directory))
        if follow:
            _follow(trainer, data, sys.stdin, opened.manifest.layout.size)
            return
        numbers = opened.parameters if parameters is None else flat(parameters, opened.manifest.layout.size)
        _tell(trainer.evaluate(numbers, data), as_json=as_json)


def _follow(trainer: Trainer, data: Dataset, lines: Iterable[str], size: int) -> None:
    for line in lines:
        try:
            answer = asdict(trainer.evaluate(flat(Path(line.rstrip("\n")), size), data))
        except (DataError, TrainingError, OSError) as error:
            answer = {"error": str(error)}
        click.echo(json.dumps(answer))
        sys.stdout.flush()


def _tell(result: Evaluation, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    accuracy = "" if result.accuracy is None else f"accuracy {result.accuracy:.4f}, "
    majority = "" if result.majority is None else f" (always the most common class: {result.majority:.4f})"
    click.echo(f"{accuracy}loss {result.loss:.4f} on {result.num_examples} examples{majority}")
