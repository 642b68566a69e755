"""The command `edgeclient join`: a URL in, a configuration out."""

import platform
import re
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import click

from edgeclient.commands.options import FILE
from edgeclient.settings import ConfigError, Device, structure

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


@click.command("join")
@click.argument("url")
@click.option("--data", "source", default="examples.npz", show_default=True, help="[data] source of this device.")
@click.option("--device", help="This device's id; the host's name by default.")
@click.option("--out", type=FILE, default="device.toml", show_default=True)
def join_command(url: str, source: str, device: str | None, out: Path) -> None:
    """Write the configuration of a device that takes part in the task at URL.

    URL is mqtt://HOST[:PORT]/TASK, or mqtts:// with TLS; below a topic prefix of its own, mqtt://HOST/PREFIX/TASK. An
    existing file is left alone.

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
    text = _FILE.format(
        device=device or re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:64] or "device",
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
    structure(tomllib.loads(text), Device, where=f"the configuration for {out}", folder=out.parent)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{out} is there already: name another with --out, or move it away") from None
    click.echo(f"{out} is written; next: edgeclient doctor {out}, then edgeclient run {out}")
