"""`python -m tools.bench COMMAND [--json] [--quick] [--out DIR]`."""

import sys
from pathlib import Path

import click

from tools.bench import train
from tools.bench.codec import codec_command
from tools.bench.footprint import footprint_command
from tools.bench.layers import layers_command
from tools.bench.monitor import monitor_command
from tools.bench.scale import scale_command
from tools.bench.select import select_command
from tools.bench.web import web_command
from tools.bench.wire import wire_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure on this machine; ratios are taken interleaved in one run.

    \b
    Example:
      python -m tools.bench train --json
    """


@cli.command("train")
@click.option("--model", "models", multiple=True, help="Only this model of the zoo; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write a plot there.")
@click.option("--quick", is_flag=True, help="Under a minute.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
def train_command(models: tuple[str, ...], seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """CPU time of a training step: compiled bundles on the plain runtime against ONNX Runtime training 1.19.2.

    Needs .venv-native, which tools/test makes.

    \b
    Example:
      python -m tools.bench train --model cnn --model gru
    """
    train.measure(models, seed, out, quick=quick, as_json=as_json)


cli.add_command(select_command)
cli.add_command(scale_command)
cli.add_command(wire_command)
cli.add_command(codec_command)
cli.add_command(layers_command)
cli.add_command(footprint_command)
cli.add_command(monitor_command)
cli.add_command(web_command)


if __name__ == "__main__":
    try:
        cli.main(prog_name="python -m tools.bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
