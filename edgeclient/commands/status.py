"""The command `edgeclient status`: what the agent last wrote about itself."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from edgeclient.commands.options import CONFIG, JSON
from edgeclient.conditions.board import LOCK, read_only
from edgeclient.conditions.guard import PAUSED
from edgeclient.conditions.reasons import READ_ONLY
from edgeclient.durable.lock import StoreError, in_use
from edgeclient.settings import Device, load
from edgeclient.wire.status import Status


@click.command("status")
@CONFIG
@JSON
def status_command(config: Path, *, as_json: bool) -> None:
    """What the device does or waits for; works while `run` runs.

    \b
    Example:
      edgeclient status device.toml --json
    """
    settings = load(config, Device)
    path, running = settings.directory / "status.json", in_use(settings.directory / LOCK)
    said = _said(path, config) | {"running": running, "read_only": read_only(settings.directory)}
    if as_json:
        click.echo(json.dumps({"device": settings.device, "task": settings.task, **said}))
        return
    idle = f"not running; at last: {said['note']}"
    if (settings.directory / PAUSED).exists():
        idle = "not running, and paused: edgeclient resume lets it go on"
    if said["read_only"]:
        click.echo(f"{settings.device}: {'' if running else 'not running; '}{READ_ONLY}")
        click.echo(f"  the last that it could write: {said['note']}")
    else:
        click.echo(f"{settings.device}: {said['note'] if running else idle}")
    has = "no model yet" if said["version"] < 0 else f"model version {said['version']}"
    click.echo(f"  {has}, {said['rounds']} rounds trained")
    if said["stranger"]:
        goes_on = f"goes on with {said['ledger']}; one of the two aggregators must stop"
        click.echo(f"  another aggregator, with ledger {said['stranger']}, announces this task: this device {goes_on}")
    if said["cut"]:
        what = f"starts in a row that ended within a round: {said['cut']}, after about {said['spell_s']} s"
        click.echo(f"  {what}; rounds are made shorter")
    if said["fruitless"]:
        what = f"starts in a row that got nothing done: {said['fruitless']}"
        click.echo(f"  {what} (no chunk of a model, no round, no receipt)")
    frames = ", ".join(f"{said[state]} {state}" for state in ("queued", "sent", "returned", "applied", "refused"))
    click.echo(f"  frames: {frames}")
    for line in said.get("data", ()):
        click.echo(f"  data: {line}")
    if gained := said.get("gain"):
        losses = f"{gained['loss_before']:.4f} → {gained['loss_after']:.4f}"
        click.echo(
            f"  loss on {gained['num_examples']} held-out examples: {losses} by the round from {gained['version']}"
        )
    click.echo(f"  {said['up_bytes']} bytes uploaded since it started")


def _said(path: Path, config: Path) -> dict[str, Any]:
    """What the device last wrote; StoreError where that cannot be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(said, dict) and said.keys() >= {each.name for each in fields(Status)}:
            return said
    except FileNotFoundError:
        never = f"{path} does not exist: this device has not run yet, start it with edgeclient run {config}"
        raise StoreError(never) from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: ask as the account that edgeclient runs as") from None
    except ValueError:
        pass
    raise StoreError(f"{path} is empty or damaged, as after a power cut: the device writes it again when it runs")
