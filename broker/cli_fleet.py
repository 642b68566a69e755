"""`edgebroker init` and `devices`: a first configuration, and who takes part."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from broker.ledger.ledger import Ledger, LedgerError
from broker.monitor import hearing
from broker.monitor.fleet import Fleet
from broker.settings import Aggregator
from edgeclient.link.mqtt import Connected, Link, Message
from edgeclient.settings import ConfigError, load
from edgeclient.wire import topics

_CONNECT_S: Final = 10.0
# Retained statuses follow the subscription at once.
_HEAR_S: Final = 1.0
_FILE: Final = """\
# Written by `edgebroker init`.
directory = {directory} # ledger and model versions live here: back it up with `edgebroker backup`

[embedded] # an MQTT broker of its own; or [mqtt] with host and port of yours, see firmware_configs/mosquitto
host = "{host}" # 0.0.0.0 lets devices on the network in; there are no passwords on it
port = {port}
"""


@click.command("init")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False), default="broker.toml")
@click.option("--directory", default="broker-data", show_default=True, help="For ledger and models.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Where the embedded MQTT broker listens.")  # noqa: S104 (devices are elsewhere)
@click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True)
def init(config: Path, directory: str, host: str, port: int) -> None:
    """Write the aggregator's file CONFIG; an existing one is left alone.

    \b
    Example:
      edgebroker init broker.toml
      edgebroker task add har watch-har.bundle --config broker.toml
      edgebroker serve broker.toml
    """
    try:
        with config.open("x") as file:
            file.write(_FILE.format(directory=json.dumps(directory), host=host, port=port))
    except FileExistsError:
        raise ConfigError(f"{config} is there already: name another, or move it away") from None
    load(config, Aggregator)
    click.echo(f"{config} is written; next: edgebroker task add NAME BUNDLE --config {config}")


@click.command("devices")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def devices(config: Path, *, as_json: bool) -> None:
    """Who takes part: what each device says of itself, beside what the ledger knows of it.

    Works while `serve` runs. A device that says nothing has its last status on the broker.

    \b
    Example:
      edgebroker devices broker.toml
    """
    settings = load(config, Aggregator)
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: nothing was counted here yet")
    with Ledger(settings.ledger, read_only=True) as ledger:
        tasks = [name for name, _, _ in ledger.tasks()]
        counts = {name: ledger.frame_counts(name) for name in tasks}
    said = _statuses(settings, tasks)
    rows = [
        _row(name, device, counts[name], said[name])
        for name in tasks
        for device in sorted(counts[name].keys() | said[name].last.keys())
    ]
    if as_json:
        click.echo(json.dumps({"devices": rows}))
        return
    for row in rows:
        state = f"{row['state']}: {row['note']}" if row["state"] else "has said nothing since the broker started"
        click.echo(f"{row['task']}/{row['device']}: {row['applied']} frames applied, {row['refused']} refused; {state}")
    if not rows:
        click.echo("no device has been heard of yet: edgeclient join writes the configuration of one")


def _row(task: str, device: str, counts: dict[str, tuple[int, int, int]], said: Fleet) -> dict[str, Any]:
    applied, refused, _ = counts.get(device, (0, 0, 0))
    known = said.last.get(device)
    told = {} if known is None else asdict(known)
    told = {"state": "", "note": ""} | {key: value for key, value in told.items() if key not in {"applied", "refused"}}
    return {"task": task, "device": device, "applied": applied, "refused": refused, **told}


def _statuses(settings: Aggregator, tasks: list[str]) -> dict[str, Fleet]:
    """Retained statuses by task; empty ones where the broker cannot be reached."""
    fleets = {name: Fleet() for name in tasks}
    link = Link(hearing.endpoint_of(settings), client_id_prefix="devices")
    link.start()
    until_s = time.monotonic() + _CONNECT_S
    try:
        while time.monotonic() < until_s:
            for event in link.poll(0.1):
                if isinstance(event, Connected):
                    link.subscribe(*(topics.everyone(name, "status") for name in tasks))
                    until_s = time.monotonic() + _HEAR_S
                elif isinstance(event, Message):
                    link.acknowledge(event)
                    for name, fleet in fleets.items():
                        if event.topic.startswith(topics.status(name, "x").removesuffix("x")):
                            fleet.hear(event.topic, event.payload)
    finally:
        link.stop()
    return fleets
