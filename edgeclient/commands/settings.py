"""The command `edgeclient settings`: every key of a device's file."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from edgeclient.commands.options import JSON
from edgeclient.settings import ConfigError, Device
from edgeclient.settings.listing import Key, keys_of, matching, told
from edgeclient.train.sources import delimited, query, table


@click.command("settings")
@click.argument("word", default="")
@JSON
def settings_command(word: str, *, as_json: bool) -> None:
    """Every key of device.toml: default, unit, limits, and what it does; with WORD, those that speak of it.

    \b
    Example:
      edgeclient settings metered
      edgeclient settings --json
    """
    found = matching(_keys(), word)
    if not found:
        raise ConfigError(f"no key of device.toml speaks of {word!r}: edgeclient settings lists them all")
    if as_json:
        click.echo(json.dumps({"device.toml": [asdict(each) for each in found]}))
        return
    for line in told(found, Device):
        click.echo(line)


def _keys() -> Iterator[Key]:
    """Those of the file, and of [data.options] what tables know."""
    for each in keys_of(Device):
        yield each
        if each.key == "data.options":
            for kind, options in (("tables", table.OPTIONS), ("CSV", delimited.OPTIONS), ("SQLite", query.OPTIONS)):
                yield from (Key(f"{each.key}.{name}", f"of {kind}", about) for name, about in options.items())
