"""The command `edgeclient settings`: every key of a device's file."""

import json
from dataclasses import asdict

import click

from edgeclient.commands.options import JSON
from edgeclient.settings import ConfigError, Device
from edgeclient.settings.keys import keys_of, matching


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
    found = matching(keys_of(Device), word)
    if not found:
        raise ConfigError(f"no key of device.toml speaks of {word!r}: edgeclient settings lists them all")
    if as_json:
        click.echo(json.dumps({"device.toml": [asdict(each) for each in found]}))
        return
    for each in found:
        click.echo(each.text())
