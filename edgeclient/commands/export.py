"""The command `edgeclient export`: what was learnt as a plain ONNX model; the aggregator's child process as well."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from edgeclient import files
from edgeclient.bundle.archive import FORWARD, FROZEN
from edgeclient.bundle.forward import exported
from edgeclient.commands.model import NAME, PARAMETERS, PLACE, Chosen, chosen
from edgeclient.commands.options import FILE, JSON
from edgeclient.train import inference, runtime
from edgeclient.train.batches import DataError
from edgeclient.train.data import open_data
from edgeclient.train.local import open_measured
from edgeclient.train.trainer import TrainingError

_EXAMPLES: Final = 16


@click.command("export")
@PLACE
@click.option("--onnx", "out", required=True, type=FILE, help="The model to write.")
@PARAMETERS
@click.option("--data", "source", help="Of a bundle: examples to check it on, instead of random numbers.")
@NAME
@JSON
def export_command(
    place: Path, out: Path, parameters: Path | None, source: str | None, name: str, *, as_json: bool
) -> None:
    """Write what was learnt as the ONNX model that its user began with: same names, same opset, other weights.

    CONFIG is a device's file, whose current version is taken, or a training bundle. Where ONNX Runtime is installed,
    the model must first answer as the bundle does; without, NumPy alone puts it together.

    \b
    Example:
      edgeclient export device.toml --onnx model.onnx
    """
    with chosen(place, parameters, name) as model:
        wanted = [model.directory / name for name in (FORWARD, FROZEN) if name in model.manifest.files]
        content = exported(
            {each.name: each.read_bytes() for each in wanted}, model.manifest, model.parameters, model.local
        )
        what, error = _checked(content, model, source)
    files.replace(out, content)
    told: dict[str, Any] = {"model": model.name, "onnx": str(out), "bytes": len(content), "version": model.version}
    inputs = {each.name: list(each.shape) for each in model.manifest.inputs}
    if as_json:
        click.echo(json.dumps({**told, "inputs": inputs, "check": what, "error": error}))
        return
    fed = ", ".join(f"{name} {['batch', *shape[1:]]}".replace("'", "") for name, shape in inputs.items())
    click.echo(f"{out}: {model.name}, {len(content)} bytes; takes {fed}")
    click.echo(what if error is None else f"checked on {what}: answers differ by {error:.1e} of their norm")


def _checked(content: bytes, model: Chosen, source: str | None) -> tuple[str, float | None]:
    """On what it was checked, and how far the answers lie apart; or why it was not, and None.

    Raises:
        TrainingError: they are others.
    """
    try:
        runtime.load()
    except TrainingError as error:
        return f"not checked against the bundle: {re.split(r'[:(]', str(error))[0].strip()}", None
    inputs, what = inference.random_inputs(model.manifest), "random numbers"
    with suppress(DataError, StopIteration, OSError):  # random numbers do
        if model.settings is not None:
            own = model.settings
            data = open_measured(own.data, model.manifest, directory=own.directory, device=own.device)
            inputs, what = next(data.batches(_EXAMPLES, None))[:-1], own.data.source
        elif source is not None:
            inputs, what = next(open_data(source, {}, model.manifest).batches(_EXAMPLES, None))[:-1], source
    answer = inference.answering(model.directory, model.manifest, model.parameters, model.local)
    difference = inference.difference(content, model.directory, model.manifest, answer(inputs), inputs)
    if difference > inference.TOLERANCE:
        raise TrainingError(
            f"the exported model's answers on {what} differ from the bundle's by {difference:.1e} of their norm:"
            " nothing was written; please report it"
        )
    return what, difference
