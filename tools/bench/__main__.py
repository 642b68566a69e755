"""`python -m tools.bench COMMAND [--json] [--quick] [--out DIR]`."""

import sys

import click

from tools.bench.codec import codec_command
from tools.bench.footprint import footprint_command
from tools.bench.layers import layers_command
from tools.bench.monitor import monitor_command
from tools.bench.scale import scale_command
from tools.bench.select import select_command
from tools.bench.simulate import simulate_command
from tools.bench.statistics import statistics_command
from tools.bench.train import train_command
from tools.bench.web import web_command
from tools.bench.wire import wire_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure on this machine; ratios are taken interleaved in one run.

    \b
    Example:
      python -m tools.bench train --json
    """


for _command in (
    train_command, select_command, scale_command, wire_command, codec_command, layers_command, footprint_command,
    monitor_command, web_command, statistics_command, simulate_command,
):  # fmt: skip
    cli.add_command(_command)


if __name__ == "__main__":
    try:
        cli.main(prog_name="python -m tools.bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
