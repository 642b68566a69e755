"""A command line's output: log lines, text for people or one JSON object a line for programs, and how it ends."""

import json
import logging
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from edgeclient.logs import terminal
from edgeclient.logs.bounded import LogFile
from edgeclient.logs.fields import FIELDS
from edgeclient.logs.group import named

Command = TypeVar("Command", bound=Callable[..., Any])

_TEXT: Final = "%(asctime)s %(levelname)s %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, fields, and the traceback of an exception.

    Example:
        >>> record = logging.LogRecord("broker.service", logging.INFO, "", 0, "version %d", (7,), None)
        >>> json.loads(JsonLines().format(record))["message"]
        'version 7'
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{field: record.__dict__[field] for field in FIELDS if field in record.__dict__},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(log_format: str, log_level: str) -> None:
    """Log to standard error from now on, as "text" or "json"; at level "debug" every frame leaves a line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    if all(isinstance(each, LogFile) for each in root.handlers):
        root.addHandler(handler)
        root.setLevel(log_level.upper())


def _into(_: click.Context, __: click.Parameter, path: Path | None) -> None:
    if path is not None:
        logging.getLogger().addHandler(LogFile(path))


def options(command: Command) -> Command:
    """Give a click command --log-format and --log-level, the arguments of `configure`, and --log-file."""
    formats, levels = click.Choice(["text", "json"]), click.Choice(["info", "debug"])
    shown = click.option(
        "--log-format", type=formats, default="text", show_default=True, help="One JSON object a line."
    )
    said = "debug: a line for every frame."
    told = click.option("--log-level", type=levels, default="info", show_default=True, help=said)
    to_file = click.option(
        "--log-file",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=_into,
        help="Write all output there; at 1 MB it begins anew, and the old one is kept as NAME.1.",
    )
    return to_file(shown(told(command)))


def end(group: click.Group, name: str, expected: Collection[str]) -> None:
    """Run a command line to its end: an error that its user can act on is one line and exit code 1.

    Args:
        group: the command line.
        name: the command's.
        expected: those errors, as `module:class`; what has not been imported has not been raised.
    """
    terminal.adapt()
    try:
        code = group.main(prog_name=name, standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        known = tuple(named(place) for place in expected if place.partition(":")[0] in sys.modules)
        if not isinstance(error, known):
            raise
        click.echo(f"{name}: {str(error) or 'there is no more memory'}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
