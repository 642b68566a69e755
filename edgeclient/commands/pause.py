"""The commands `edgeclient pause` and `resume`: a file in the device's directory, which every turn looks for."""

from pathlib import Path

import click

from edgeclient.commands.options import CONFIG
from edgeclient.conditions.guard import PAUSED
from edgeclient.settings import Device, load


@click.command("pause")
@CONFIG
def pause_command(config: Path) -> None:
    """Neither train nor send until `resume`; a device that runs stops within a second or two.

    What is learnt stays, what waits stays, and the device stays connected.

    \b
    Example:
      edgeclient pause device.toml
    """
    settings = load(config, Device)
    settings.directory.mkdir(parents=True, exist_ok=True)
    (settings.directory / PAUSED).touch()
    click.echo(f"{settings.device} is paused; edgeclient resume {config} lets it go on")


@click.command("resume")
@CONFIG
def resume_command(config: Path) -> None:
    """Let a paused device go on.

    \b
    Example:
      edgeclient resume device.toml
    """
    settings = load(config, Device)
    (settings.directory / PAUSED).unlink(missing_ok=True)
    click.echo(f"{settings.device} goes on")
