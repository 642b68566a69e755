"""Arguments and options that commands share."""

from pathlib import Path
from typing import Any, Final

import click

FILE: Final[Any] = click.Path(path_type=Path, dir_okay=False)
CONFIG = click.argument("config", default="broker.toml", type=FILE)
CONFIG_OPTION = click.option(
    "--config", default="broker.toml", show_default=True, type=FILE, help="The aggregator's file."
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
