"""`edgebroker predict`: what a version says of a file."""

from pathlib import Path

import click

from broker.commands.model import VERSION, edgeclient, kept
from broker.commands.options import CONFIG_OPTION, JSON
from broker.registry.evaluator import words
from broker.settings import Aggregator
from edgeclient.settings import load


@click.command("predict")
@click.argument("task")
@click.argument("file", type=click.Path(path_type=Path))
@VERSION
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE",
    help="Of FILE, as in [data.options] of a device, such as classes=rest,walk,run; repeatable.",
)  # fmt: skip
@CONFIG_OPTION
@JSON
def predict_command(
    task: str, file: Path, wanted: str, options: tuple[str, ...], config: Path, *, as_json: bool
) -> None:
    """Say what a version of TASK answers for each example in FILE: class, confidence and the next best, or numbers.

    FILE is whatever a device's data source reads (CSV, .npz, SQLite, a folder …), with labels or without, or one .npy
    file. The task's evaluation_options hold for it, too. Works while `serve` runs; ONNX Runtime must be installed here.

    \b
    Example:
      edgebroker predict mine windows.csv --version best --option classes=rest,run
    """
    found = kept(load(config, Aggregator), task, wanted)
    given = [word for each in options for word in ("--option", each)] + words("--usual", found.options)
    named = ["--parameters", str(found.parameters), "--name", found.name]
    edgeclient(["predict", str(found.bundle), str(file), *named, *given, *["--json"] * as_json])
