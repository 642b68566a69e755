"""The command `edgeclient status`: what the agent last wrote about itself."""

import json
from pathlib import Path
from typing import Any

import click

from edgeclient.commands.options import CONFIG, JSON
from edgeclient.conditions.guard import PAUSED
from edgeclient.durable.lock import StoreError, in_use
from edgeclient.settings import Device, load


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
    path = settings.directory / "status.json"
    if not path.exists():
        raise StoreError(f"{path} does not exist: this device has not run yet, start it with edgeclient run {config}")
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    said["running"] = in_use(settings.directory / "store" / "lock")
    if as_json:
        click.echo(json.dumps({"device": settings.device, "task": settings.task, **said}))
        return
    idle = "not running" + ", and paused: edgeclient resume lets it go on" * (settings.directory / PAUSED).exists()
    click.echo(f"{settings.device}: {said['note'] if said['running'] else idle}")
    click.echo(f"  model version {said['version']}, {said['rounds']} rounds trained")
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
