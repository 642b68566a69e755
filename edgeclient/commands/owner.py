"""The commands by which an owner steers a device: `pause`, `resume`, `join`, `leave`."""

import contextlib
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from edgeclient.conditions.guard import PAUSED
from edgeclient.durable.lock import StoreError, in_use
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown
from edgeclient.presence.home_assistant import discovery
from edgeclient.settings import ConfigError, Device, load, structure
from edgeclient.wire import topics

CONFIG = click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
_CONNECT_S: Final = 15.0
# Everything that a device and its service keep in the device's directory.
_OWN: Final = frozenset(
    {
        "store",
        "models",
        "audit",
        "replay",
        "status.json",
        "status.new",
        "usage.json",
        "usage.new",
        "edgeclient.log",
        PAUSED,
    }
)
_FILE: Final = """\
# Written by `edgeclient join`; every key is explained in firmware_configs/boards.
device = "{device}"
task = "{task}"
directory = "{directory}"

[mqtt]
host = "{host}"
port = {port}
{tls}
[data]
source = "{source}"
"""


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


@click.command("join")
@click.argument("url")
@click.option("--data", "source", default="examples.npz", show_default=True, help="[data] source of this device.")
@click.option("--device", help="This device's id; the host's name by default.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="device.toml", show_default=True)
def join_command(url: str, source: str, device: str | None, out: Path) -> None:
    """Write the configuration of a device that takes part in the task at URL.

    URL is mqtt://HOST[:PORT]/TASK, or mqtts:// with TLS. An existing file is left alone.

    \b
    Example:
      edgeclient join mqtt://192.168.1.10/har --data windows.npz
      edgeclient run device.toml
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from None
    task = parts.path.strip("/")
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or not task:
        raise ConfigError(f"{url}: a URL such as mqtt://192.168.1.10/har is needed: scheme, host and task")
    if parts.username or parts.password:
        raise ConfigError("no passwords in URLs: set [mqtt] username and password_file in the configuration")
    tls = parts.scheme == "mqtts"
    text = _FILE.format(
        device=device or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:64] or "device",
        task=task,
        directory="edge-data",
        host=parts.hostname,
        port=port or (8883 if tls else 1883),
        tls="tls = true\n" if tls else "",
        source=source.replace("\\", "\\\\").replace('"', '\\"'),
    )
    _checked(text, out)
    try:
        with out.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{out} is there already: name another with --out, or move it away") from None
    click.echo(f"{out} is written; next: edgeclient doctor {out}, then edgeclient run {out}")


def _checked(text: str, out: Path) -> None:
    """ConfigError for a name or path that no configuration takes."""
    import tomllib  # noqa: PLC0415 (this command alone)

    structure(tomllib.loads(text), Device, where=f"the configuration for {out}", folder=out.parent)


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
    if in_use(settings.directory / "store" / "lock"):
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
