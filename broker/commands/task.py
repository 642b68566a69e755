"""`edgebroker task`: tasks are added and listed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from broker.commands.options import CONFIG_OPTION, FILE, JSON
from broker.ledger.opening import open_ledger
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.settings import load


@click.group("task")
def task_command() -> None:
    """Add and list tasks: one model, learned by one fleet.

    \b
    Example:
      edgebroker task list --config broker.toml
    """


@task_command.command("add")
@click.argument("name")
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@CONFIG_OPTION
@click.option("--settings", "settings_file", type=FILE, help="TOML: goal, policy …")
def _add(name: str, bundle_file: Path, config: Path, settings_file: Path | None) -> None:
    """Make the parameters of a training BUNDLE version 0 of a new task NAME.

    \b
    Example:
      edgebroker task add har watch-har.bundle --config broker.toml --settings har.toml
    \b
    Example har.toml:
      goal = 8                    # updates per version
      [policy]
      density = 0.01              # fraction of coordinates that an update keeps
    """
    add_task(
        load(config, Aggregator), name, bundle_file.read_bytes(), load(settings_file, Task) if settings_file else Task()
    )
    click.echo(f"task {name} added: devices may join once edgebroker serve runs")


@task_command.command("list")
@CONFIG_OPTION
@JSON
def _list(config: Path, *, as_json: bool) -> None:
    """List tasks with their current version.

    \b
    Example:
      edgebroker task list --config broker.toml --json
    """
    with open_ledger(load(config, Aggregator).ledger, read_only=True) as ledger:
        rows: list[dict[str, Any]] = [
            {"task": name, "version": last.number, "bundle": digest, "metrics": last.metrics}
            for name, digest, _ in ledger.tasks()
            for last in ledger.versions(name, last=1)
        ]
    if as_json:
        click.echo(json.dumps({"tasks": rows}))
    for row in rows if not as_json else ():
        click.echo(f"{row['task']}  version {row['version']}  {metrics_text(row['metrics'])}")


def metrics_text(metrics: Mapping[str, float]) -> str:
    """What a version is worth, in words."""
    return ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()) or "not evaluated"
