"""`edgebroker status`: what the ledger has counted."""

import json
from pathlib import Path
from typing import Any

import click

from broker.commands.options import CONFIG, JSON
from broker.commands.task import metrics_text
from broker.ledger.opening import open_ledger
from broker.monitor.learning import finding
from broker.monitor.measures import MANY, late
from broker.monitor.text import counted
from broker.settings import Aggregator, task_settings
from broker.task.trigger import resting
from broker.task.worth import best_version
from edgeclient.settings import load


@click.command("status")
@CONFIG
@JSON
def status_command(config: Path, *, as_json: bool) -> None:
    """Show versions and what every device has contributed; works while `serve` runs.

    \b
    Example:
      edgebroker status broker.toml --json
    """
    with open_ledger(load(config, Aggregator).ledger, read_only=True) as ledger:
        tasks: list[dict[str, Any]] = []
        for name, _, values in ledger.tasks():
            versions = ledger.versions(name)
            curve = [(each.number, each.metrics) for each in versions]
            settings = task_settings(name, values)
            wrong = finding(name, curve, settings.policy.learning_rate)
            counts, lost = ledger.frame_counts(name), ledger.lost_to_restore(name)
            tasks.append(
                {
                    "task": name,
                    "version": versions[-1].number,
                    "metrics": versions[-1].metrics,
                    "late": late([(number, each.get("accuracy")) for number, each in curve], curve[-1][0], MANY),
                    "best": best_version(versions),
                    "learning": "" if wrong is None else wrong.text,
                    "rests": resting(ledger, name, settings),
                    "updates_waiting": ledger.pending(name).updates,
                    "devices": {
                        device: {"applied": applied, "refused": refused, "lost_to_restore": lost.get(device, 0)}
                        for device, (applied, refused, _) in (dict.fromkeys(lost, (0, 0, 0)) | counts).items()
                    },
                }
            )
    if as_json:
        click.echo(json.dumps({"tasks": tasks}))
        return
    for each in tasks:
        click.echo(
            f"task {each['task']}: version {each['version']}, {counted(each['updates_waiting'], 'update')} for the next"
        )
        champion = "" if each["best"] is None else f"; best is version {each['best']}"
        lately = "" if each["late"] is None else f"; the last fifth of the versions: {each['late']:.4g} (late)"
        click.echo(f"  {metrics_text(each['metrics'])}{lately}{champion}")
        if each["learning"]:
            click.echo(f"  {each['learning']}")
        if each["rests"]:
            click.echo(f"  it rests: {each['rests']}; new data lets it go on")
        for device, count in each["devices"].items():
            gap = f", {count['lost_to_restore']} lost to a restore" if count["lost_to_restore"] else ""
            click.echo(f"  {device}: {count['applied']} frames applied, {count['refused']} refused{gap}")
