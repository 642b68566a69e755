"""The command `edgeclient join`: a URL in, a configuration out."""

import platform
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import click

from edgeclient.commands import names
from edgeclient.commands.options import FILE
from edgeclient.settings import ConfigError, Device, structure
from edgeclient.train.batches import DataError
from edgeclient.train.data import check_source

_FILE: Final = """\
# Written by `edgeclient join`; `edgeclient settings` explains every key.
device = "{device}"
task = "{task}"
directory = "{directory}"

[mqtt]
host = "{host}"
port = {port}
{more}
[data]
source = "{source}"
"""

_THERE: Final = "{out} is there already: name another with --out, or move it away"


@click.command("join")
@click.argument("url")
@click.option("--data", "source", default="examples.npz", show_default=True, help="[data] source of this device.")
@click.option("--device", help="This device's id; the host's name by default.")
@click.option("--out", type=FILE, default="device.toml", show_default=True)
def join_command(url: str, source: str, device: str | None, out: Path) -> None:
    """Write the configuration of a device that takes part in the task at URL.

    URL is mqtt://HOST[:PORT]/TASK, or mqtts:// with TLS; below a topic prefix of its own, mqtt://HOST/PREFIX/TASK. An
    existing file is left alone. The id is the host's name, or where another board of the task has that, the next free
    one: the MQTT broker is asked, if it answers. What is not there yet, the task or the data, is a warning.

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
    prefix, _, task = parts.path.strip("/").rpartition("/")
    host = unquote(parts.hostname or "")  # %25 stands for the % before the interface of a link-local address
    if parts.scheme not in {"mqtt", "mqtts"} or not host or not task:
        raise ConfigError(f"{url}: a URL such as mqtt://192.168.1.10/har is needed: scheme, host and task")
    if parts.username or parts.password:
        raise ConfigError("no passwords in URLs: set [mqtt] username and password_file in the configuration")
    tls = parts.scheme == "mqtts"
    name = device or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:60] or "device"
    text = _FILE.format(
        device=name,
        task=task,
        directory="edge-data",
        host=host,
        port=port or (8883 if tls else 1883),
        more="tls = true\n" * tls + f'prefix = "{prefix}"\n' * bool(prefix),
        source=source.replace("\\", "\\\\").replace('"', '\\"'),
    )
    if not text.isprintable() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ConfigError(f"{source!a} cannot stand in a configuration, which is UTF-8: give the file another name")
    # ConfigError for a name or path that no configuration takes.
    made = structure(tomllib.loads(text), Device, where=f"the configuration for {out}", folder=out.parent)
    if out.exists():
        raise ConfigError(_THERE.format(out=out))
    met, told = names.met(made), ""
    free = names.free(name, met.taken)
    if met.why:
        told = f"; whether the task is there, and another board called {name}, is not known: {met.why}"
    elif free != name and device:
        told = f"; {name} is there already: if that is another board, choose another id, such as {free}"
    elif free != name:
        text = text.replace(f'device = "{name}"', f'device = "{free}"', 1)
        told = f"; {name} is there already, so this one is called {free}: --device {name} if it is this very board"
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(_THERE.format(out=out)) from None
    click.echo(f"{out} is written{told}; next: edgeclient doctor {out}, then edgeclient run {out}")
    for line in _not_there(made, met):
        click.echo(f"warning: {line}", err=True)


def _not_there(made: Device, met: names.Met) -> Iterator[str]:
    """What `run` would wait for, or end at."""
    if not met.why and made.task not in met.tasks:
        announced = f", announced are: {', '.join(sorted(met.tasks))}" if met.tasks else ""
        yield f"nobody announces the task {made.task}{announced}; on the server: edgebroker task add, edgebroker serve"
    try:
        check_source(made.data.source)
    except DataError as error:
        yield str(error)
