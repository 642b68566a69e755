"""`edgebroker export`: a version as a plain ONNX model."""

from pathlib import Path

import click

from broker.commands.model import VERSION, edgeclient, kept
from broker.commands.options import CONFIG_OPTION, FILE, JSON
from broker.settings import Aggregator
from edgeclient.settings import load


@click.command("export")
@click.argument("task")
@click.option("--onnx", "out", required=True, type=FILE, help="The model to write.")
@VERSION
@CONFIG_OPTION
@JSON
def export_command(task: str, out: Path, wanted: str, config: Path, *, as_json: bool) -> None:
    """Write a version of TASK as the ONNX model that the task began with: same names, same opset, other weights.

    Works while `serve` runs. Where ONNX Runtime is installed, the model must first answer as the version does.

    \b
    Example:
      edgebroker export mine --version best --onnx mine-learnt.onnx
    """
    found = kept(load(config, Aggregator), task, wanted)
    evaluation = ["--data", str(found.evaluation)] if found.evaluation else []
    given = ["--parameters", str(found.parameters), "--name", found.name, *evaluation, *["--json"] * as_json]
    edgeclient(["export", str(found.bundle), "--onnx", str(out), *given])
    if found.better is not None and not as_json:
        click.echo(f"version {found.better} has the best evaluation: --version best takes that")
