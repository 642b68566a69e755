"""`edgebroker task`: tasks are added, changed, removed and listed, while `serve` runs or not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.options import CONFIG_OPTION, FILE, JSON
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.monitor.text import counted
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Task, differences, task_settings, task_values
from broker.task.new import add_task, measured
from broker.task.trigger import resting, trigger
from broker.task.worth import best_version
from edgeclient.bundle import archive
from edgeclient.settings import ConfigError, load, structure
from edgeclient.settings.toml import word
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError

_ADAMW_RATE: Final = 0.01  # more is seldom stable
_MEASURED: Final = {"evaluation", "evaluation_options"}


@click.group("task")
def task_command() -> None:
    """Add, change, remove and list tasks: one model, learned by one fleet. A running `serve` takes it up by itself.

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
      evaluation = "test.csv"     # every version is evaluated on it
      [evaluation_options]        # as [data.options] of a device
      labels = "activity"
      [policy]
      density = 0.01              # fraction of coordinates that an update keeps
    """
    topics.checked(name)
    settings = load(settings_file.absolute(), Task) if settings_file else Task()
    aggregator, content = load(config, Aggregator), bundle_file.read_bytes()
    try:
        optimiser, rate = archive.decode(content).manifest.optimiser.name, settings.policy.learning_rate
    except WireError as error:
        raise ConfigError(f"{bundle_file}: {error.detail}") from None
    if settings.evaluation is not None:
        found = measured(bundle_file, settings.evaluation, settings.evaluation_options)
        click.echo(f"before training: {metrics_text(found)}")
    add_task(aggregator, name, content, settings)
    if optimiser == "adamw" and rate > _ADAMW_RATE:
        slower = f"edgebroker task set {name} policy.learning_rate={_ADAMW_RATE / 5:g}"
        click.echo(f"adamw moves every number by about the learning rate, and {rate:g} is much: {slower} is usual")
    click.echo(f"task {name} added: devices may join once edgebroker serve runs")


@task_command.command("set")
@click.argument("name")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@CONFIG_OPTION
@JSON
def _set(name: str, changes: tuple[str, ...], config: Path, *, as_json: bool) -> None:
    """Change settings of task NAME; KEY= without a value sets the default.

    Updates that are counted already stay, and go into the next version by the new settings. Other evaluation data
    measures all versions anew.

    \b
    Example:
      edgebroker task set har goal=8 deadline_s=120 policy.learning_rate=0.01
      edgebroker task set har evaluation=test.csv evaluation_options.labels=activity
    """
    aggregator = _standing(config)
    wanted = assigned(changes)
    with open_ledger(aggregator.ledger) as ledger:
        before = {row.name: row for row in ledger.tasks()}.get(name)
        if wanted.get("evaluation"):
            given = structure({"evaluation": wanted["evaluation"]}, Task, where="task set", folder=Path.cwd())
            wanted["evaluation"] = given.evaluation
        if before is not None and any(key.partition(".")[0] in _MEASURED for key in wanted):
            after = changed(name, before.settings, wanted)
            if after.evaluation is not None:
                (last,), blobs = ledger.versions(name, last=1), Blobs(aggregator.registry)
                found = measured(
                    blobs.path(before.bundle), after.evaluation, after.evaluation_options, blobs.path(last.digest)
                )
                click.echo(f"version {last.number}: {metrics_text(found)}", err=as_json)
        told: list[tuple[str, Any, Any]] = []

        def change(values: dict[str, Any]) -> dict[str, Any]:
            after = changed(name, values, wanted)
            told.extend(differences(task_settings(name, values), after))
            return task_values(after)

        ledger.change_task(name, change)
    if as_json:
        click.echo(
            json.dumps({"task": name, "changed": {key: {"before": old, "after": new} for key, old, new in told}})
        )
        return
    for key, old, new in told:
        click.echo(f"task {name}: {key} {old} → {new}")
    if not told:
        click.echo(f"task {name}: nothing changes")


@task_command.command("remove")
@click.argument("name")
@CONFIG_OPTION
@click.option("--yes", is_flag=True, help="Do not ask.")
def _remove(name: str, config: Path, *, yes: bool) -> None:
    """Remove task NAME with its versions: it leaves the MQTT broker and the ledger as soon as `serve` runs.

    What its devices have not sent yet stays on them. A task of the same name goes on above its versions.

    \b
    Example:
      edgebroker task remove har --yes
    """
    with open_ledger(_standing(config).ledger) as ledger:
        if not yes and name in {row.name for row in ledger.tasks()}:
            click.confirm(f"remove task {name} with every version of it?", abort=True)
        ledger.remove_task(name)
    click.echo(f"task {name} is removed: a running serve takes it off the MQTT broker, else the next one does")


@task_command.command("list")
@CONFIG_OPTION
@JSON
def _list(config: Path, *, as_json: bool) -> None:
    """List tasks with their current version, what the next one waits for, and the best.

    \b
    Example:
      edgebroker task list --config broker.toml --json
    """
    with open_ledger(load(config, Aggregator).ledger, read_only=True) as ledger:
        rows = [listed(ledger, *row) for row in ledger.tasks()]
        leaving = [row.name for row in ledger.removed()]
    if as_json:
        click.echo(json.dumps({"tasks": rows, "being_removed": leaving}))
        return
    for row in rows:
        champion = "" if row["best"] is None else f"; best is version {row['best']}"
        rests = f"; rests: {row['rests']}" if row["rests"] else ""
        waits = f"{counted(row['updates_waiting'], 'update')} there, the next version takes {row['goal']}"
        click.echo(f"{row['task']}  version {row['version']}  {metrics_text(row['metrics'])}{champion}; {waits}{rests}")
    for name in leaving:
        click.echo(f"{name}  is being removed: edgebroker serve finishes that")


def _standing(config: Path) -> Aggregator:
    """The configuration of an aggregator that has tasks already."""
    settings = load(config, Aggregator)
    open_ledger(settings.ledger, read_only=True).close()
    return settings


def listed(ledger: Ledger, name: str, bundle: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A task, as `task list --json` has it."""
    versions, found = ledger.versions(name), task_settings(name, values)
    return {
        "task": name,
        "version": versions[-1].number,
        "bundle": bundle,
        "metrics": versions[-1].metrics,
        "best": best_version(versions),
        "updates_waiting": ledger.pending(name).updates,
        "rests": resting(ledger, name, found),
        "goal": trigger(ledger, name, found).goal,
        "settings": task_values(found),
    }


def assigned(changes: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as values by key; None for the default.

    Raises:
        ConfigError: there is no = in one.

    Example:
        >>> assigned(["goal=8", "policy.steady=true", "evaluation=test.npz", "deadline_s="])
        {'goal': 8, 'policy.steady': True, 'evaluation': 'test.npz', 'deadline_s': None}
    """
    found: dict[str, Any] = {}
    for change in changes:
        key, is_one, text = change.partition("=")
        if not is_one:
            raise ConfigError(f"{change} is no change: write KEY=VALUE, such as goal=8")
        found[key.strip()] = word(key.strip(), text.strip()) if text.strip() else None
    return found


def changed(name: str, values: Mapping[str, Any], wanted: Mapping[str, Any]) -> Task:
    """The settings with other values by dotted key.

    Raises:
        ConfigError: a key that is none, or a value that is not allowed.

    Example:
        >>> changed("har", task_values(Task(goal=8)), {"goal": None, "policy.density": 0.1}).policy.density
        0.1
    """
    made = json.loads(json.dumps(values))
    for key, value in wanted.items():
        table, (*path, last) = made, key.split(".")
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"task {name}: {key} is no key: {part} has no keys below it")
        table[last] = value
        if value is None:
            del table[last]
    return structure(made, Task, where=f"task {name}")


def metrics_text(metrics: Mapping[str, float]) -> str:
    """What a version is worth, in words."""
    return ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if value is not None) or "not evaluated"
