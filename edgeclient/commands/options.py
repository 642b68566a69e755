"""Arguments and options that commands share."""

from pathlib import Path
from typing import Any, Final

import click

from edgeclient.settings.toml import word

FILE: Final[Any] = click.Path(path_type=Path, dir_okay=False)
CONFIG = click.argument("config", type=FILE)


def _read(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    options = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{each!r}: KEY=VALUE is wanted, such as labels=activity")
        options[key] = word(key, value)
    return options


DATA_OPTIONS = click.option(
    "--option", "options", multiple=True, callback=_read, metavar="KEY=VALUE",
    help="Of that data, as in [data.options], such as classes=rest,walk,run; repeatable.",
)  # fmt: skip
# Of other data of the same model; those that mean something for FILE hold where no --option says otherwise.
USUAL_OPTIONS = click.option("--usual", multiple=True, callback=_read, hidden=True)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
