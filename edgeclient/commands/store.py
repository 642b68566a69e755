"""The command `edgeclient store`: whether what a device keeps is sound."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from edgeclient.commands.options import CONFIG, JSON
from edgeclient.durable.check import check_store
from edgeclient.settings import Device, load
from edgeclient.wire import frame
from edgeclient.wire.errors import WireError
from edgeclient.wire.life import State


@click.group("store")
def store_command() -> None:
    """Look after the device's store: outbox, residual and epoch.

    \b
    Example:
      edgeclient store check device.toml
    """


@store_command.command()
@CONFIG
@JSON
def check(config: Path, *, as_json: bool) -> None:
    """Verify the store of the device in CONFIG: database, counters, every frame, and the residual.

    Nothing is changed; the device may run. The exit code is 1 if something is wrong.

    \b
    Example:
      edgeclient store check device.toml --json
    """
    settings = load(config, Device)
    directory = settings.store
    report = check_store(directory, _why_unreadable)
    if as_json:
        told = asdict(report) | {"sound": not report.faults, "frames": dict(report.frames), "directory": str(directory)}
        click.echo(json.dumps(told))
    else:
        for fault in report.faults:
            click.echo(f"FAULT  {fault.what}: {fault.remedy}")
        if not report.faults:
            frames = ", ".join(f"{count} {State(state).value}" for state, count in report.frames)
            running = ", in use" if report.running else ""
            click.echo(f"{directory}: sound{running}; frames: {frames}; {report.disk_bytes >> 10} KiB on the disk")
    if report.faults:
        sys.exit(1)


def _why_unreadable(body: bytes) -> str | None:
    try:
        frame.Opened(body)
    except WireError as error:
        return str(error)
    return None
