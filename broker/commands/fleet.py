"""`edgebroker init` and `devices`: a first configuration, and who takes part."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.options import CONFIG, FILE, JSON
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.monitor import namesakes
from broker.monitor.listener import Listener, endpoint_of
from broker.monitor.silence import WORDS, Contact, age_s, guess
from broker.monitor.text import printable
from broker.settings import Aggregator
from edgeclient.settings import ConfigError, load
from edgeclient.wire import topics
from edgeclient.wire.status import OFFLINE, ONLINE

_FILE: Final = """\
# Written by `edgebroker init`.
directory = {directory} # ledger and model versions live here: back it up with `edgebroker backup`

[embedded] # an MQTT broker of its own; or [mqtt] with host and port of yours, see firmware_configs/mosquitto
host = "{host}" # 0.0.0.0 lets devices on the network in; there are no passwords on it
port = {port}
"""


@click.command("init")
@click.argument("config", type=FILE, default="broker.toml")
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
        with config.open("x", encoding="utf-8") as file:
            file.write(_FILE.format(directory=json.dumps(directory), host=host, port=port))
    except FileExistsError:
        raise ConfigError(f"{config} is there already: name another, or move it away") from None
    load(config, Aggregator)
    click.echo(f"{config} is written; next: edgebroker task add NAME BUNDLE --config {config}")


@click.command("devices")
@CONFIG
@JSON
def devices(config: Path, *, as_json: bool) -> None:
    """Who takes part: what each device says of itself, beside what the ledger knows of it.

    Works while `serve` runs. A device that says nothing has its last status on the broker.

    \b
    Example:
      edgebroker devices broker.toml
    """
    settings = load(config, Aggregator)
    with open_ledger(settings.ledger, read_only=True) as ledger:
        with listener_of(settings, ledger) as listener:
            listener.first()
        rows = listed(ledger, listener)
    if as_json:
        click.echo(json.dumps({"devices": rows}))
        return
    for row in rows:
        state = f"{row['state']}: {printable(row['note'])}" if row["state"] else "has said nothing"
        guessed = "" if row["state"] == ONLINE else f". {WORDS[row['guess']]}"
        shared = f". {namesakes.SAID[0].upper()}{namesakes.SAID[1:]}" if row["shared"] else ""
        counted = f"{row['applied']} frames applied, {row['refused']} refused"
        click.echo(f"{row['task']}/{row['device']}: {counted}; {state}{guessed}{shared}")
    if not rows:
        click.echo("no device has been heard of yet: edgeclient join writes the configuration of one")


def listener_of(settings: Aggregator, ledger: Ledger) -> Listener:
    """For the devices of all tasks."""
    return Listener(endpoint_of(settings), [topics.everyone(task, "status") for task, _, _ in ledger.tasks()])


def listed(ledger: Ledger, listener: Listener) -> list[dict[str, Any]]:
    """A row for every device that the ledger or the MQTT broker knows."""
    rows: list[dict[str, Any]] = []
    for task, _, _ in ledger.tasks():
        counts, (last,), heard = ledger.frame_counts(task), ledger.versions(task, last=1), listener.fleet.devices(task)
        stores, now_s = ledger.stores(task), time.time()
        for device in sorted(counts.keys() | heard.keys()):
            applied, refused, _ = counts.get(device, (0, 0, 0))
            said = heard[device].said if device in heard else None
            began = stores.get(device, [])
            last_frame_s = max((newest_s for _, newest_s in began), default=None)
            facts = Contact(said, listener.reached, applied + refused > 0, version=last.number)
            made = row(task, device, facts, applied=applied, refused=refused, now_s=now_s, last_frame_s=last_frame_s)
            rows.append(made | {"shared": namesakes.shared(began, now_s)})
    return rows


def row(
    task: str,
    device: str,
    contact: Contact,
    *,
    applied: int,
    refused: int,
    now_s: float,
    last_frame_s: float | None = None,
) -> dict[str, Any]:
    """What is known of a device, as JSON has it; times are Unix seconds."""
    said, version = contact.said, contact.version
    told_s = age_s(said, last_frame_s, now_s)
    why = guess(contact._replace(age_s=told_s))
    return {
        "state": "",
        "note": "",
        **({} if said is None else asdict(said)),
        **({"state": OFFLINE} if why == "hangs" else {}),  # whatever the MQTT broker has kept of it
        "task": task,
        "device": device,
        "applied": applied,
        "refused": refused,
        "guess": why,
        "behind": version - said.version if said is not None and said.version >= 0 else None,
        "said_age_s": told_s,
    }
