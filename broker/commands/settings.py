"""`edgebroker settings`: every key of the aggregator's file and of a task's settings."""

import json
from dataclasses import asdict

import click

from broker.commands.options import JSON
from broker.settings import Aggregator, Task
from edgeclient.settings import ConfigError
from edgeclient.settings.listing import keys_of, matching, told


@click.command("settings")
@click.argument("word", default="")
@JSON
def settings_command(word: str, *, as_json: bool) -> None:
    """Every key of broker.toml and of task.toml: default, unit, limits, and what it does; with WORD, a part of them.

    \b
    Example:
      edgebroker settings goal
      edgebroker settings --json
    """
    files = {"broker.toml": Aggregator, "task.toml": Task}
    found = {file: keys for file, kind in files.items() if (keys := matching(keys_of(kind), word))}
    if not found:
        raise ConfigError(f"no key of {' or '.join(files)} speaks of {word!r}: edgebroker settings lists them all")
    if as_json:
        click.echo(json.dumps({file: [asdict(each) for each in keys] for file, keys in found.items()}))
        return
    for file, keys in found.items():
        click.echo(f"# {file}")
        for line in told(keys, files[file]):
            click.echo(line)
