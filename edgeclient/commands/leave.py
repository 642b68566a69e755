"""The command `edgeclient leave`: nothing of the device stays, here or at the broker."""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Final

import click

from edgeclient.commands.options import CONFIG
from edgeclient.conditions.board import LOCK
from edgeclient.conditions.guard import PAUSED
from edgeclient.durable.lock import StoreError, in_use
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown
from edgeclient.presence.home_assistant import discovery
from edgeclient.settings import Device, load
from edgeclient.wire import topics

_CONNECT_S: Final = 15.0
# Everything that a device and its service keep in the device's directory.
_OWN: Final = frozenset(
    ("store", "models", "audit", "replay", "status.json", "status.new", "usage.json", "usage.new")
) | {PAUSED, LOCK, "spells.json", "spells.json.new", "edgeclient.log", "edgeclient.log.1"}


@click.command("leave")
@CONFIG
@click.option("--yes", is_flag=True, help="Do not ask.")
def leave_command(config: Path, *, yes: bool) -> None:
    """Leave the task: erase model, residual and outbox, and take the device's status off the broker.

    So are its sensors in Home Assistant. The device must not run. Your examples and the configuration file stay: a
    directory that holds anything that is not the device's own is left as it is, and named.

    \b
    Example:
      edgeclient leave device.toml
    """
    settings = load(config, Device)
    if in_use(settings.directory / LOCK):
        raise StoreError(f"{settings.device} is running: stop it first")
    kept = {each.name for each in settings.directory.glob("*")}
    if others := sorted(kept - _OWN):
        raise StoreError(
            f"{settings.directory} holds more than {settings.device} keeps there ({', '.join(others[:5])}):"
            f" nothing was erased; remove {', '.join(sorted(kept & _OWN))} by hand"
        )
    if not yes:
        click.confirm(
            f"Erase {settings.directory} with everything {settings.device} has learnt and not sent?", abort=True
        )
    told = _forgotten(settings)
    shutil.rmtree(settings.directory, ignore_errors=True)
    if settings.directory.exists():
        raise StoreError(f"{settings.directory} could not be erased completely: remove the rest by hand")
    click.echo(f"{settings.device} has left {settings.task}" + ("" if told else "; the broker could not be told"))


def _retained(settings: Device) -> list[str]:
    """What the broker keeps of this device."""
    wanted = settings.home_assistant
    sensors = discovery(wanted.discovery_prefix, settings.task, settings.device) if wanted is not None else []
    return [topics.status(settings.task, settings.device), *(topic for topic, _ in sensors)]


def _forgotten(settings: Device) -> bool:
    """Whether the broker has dropped what it kept."""
    link = Link(Endpoint.of(settings.mqtt), client_id_prefix=f"{settings.device}-leaves")
    link.start()
    until_s = time.monotonic() + _CONNECT_S
    try:
        while time.monotonic() < until_s:
            for event in link.poll(0.5, limit=1):
                if isinstance(event, Disconnected):
                    return False
                if isinstance(event, Connected):
                    with contextlib.suppress(LinkDown):
                        for topic in _retained(settings):
                            link.publish(topic, b"", retain=True)
                        return True
        return False
    finally:
        link.stop()  # waits for what was published
