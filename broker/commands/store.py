"""`edgebroker backup`, `restore` and `ledger`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from broker.commands.options import CONFIG_OPTION, JSON
from broker.settings import Aggregator
from broker.upkeep import backup as copies
from broker.upkeep import examine
from edgeclient.settings import load


@click.command()
@CONFIG_OPTION
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def backup(config: Path, folder: Path) -> None:
    """Copy ledger and models into a new FOLDER, while `serve` runs or not.

    The copy is of one moment. What devices upload after it is lost if it is ever restored, so make one often.

    \b
    Example:
      edgebroker backup --config broker.toml /backups/2026-11-25
    """
    settings = load(config, Aggregator)
    written = copies.backup(settings, folder)
    click.echo(f"{written / 1e6:.1f} MB in {folder}; back up {config} with it")


@click.command()
@CONFIG_OPTION
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def restore(config: Path, folder: Path) -> None:
    """Make the backup in FOLDER the store of the aggregator, which must not run and must have none.

    Versions continue at a number that no device has seen, with the parameters of the backup. What was counted after
    the backup is lost: when devices connect, `serve` says how much of each, and `status` keeps the number.

    \b
    Example:
      mv broker-data broker-data.damaged
      edgebroker restore --config broker.toml /backups/2026-11-25
      edgebroker serve broker.toml
    """
    continued = copies.restore(load(config, Aggregator), folder)
    for task, version in continued.items():
        click.echo(f"task {task} continues as version {version}")
    click.echo("restored: once the devices have connected, edgebroker status says what the gap cost")


@click.group()
def ledger() -> None:
    """Check and measure the ledger.

    \b
    Example:
      edgebroker ledger check --config broker.toml
    """


@ledger.command("check")
@CONFIG_OPTION
@JSON
def check(config: Path, *, as_json: bool) -> None:
    """Check every promise of the ledger, and the models that it names; works while `serve` runs.

    Reads everything once, and makes every version again whose frames are still kept. Exit code 1 when something is
    wrong; each line says what to do about it.

    \b
    Example:
      edgebroker ledger check --config broker.toml --json
    """
    found, remade = examine.examine(load(config, Aggregator))
    if as_json:
        click.echo(json.dumps({"findings": [asdict(each) for each in found], "versions_remade": remade}))
    else:
        for each in found:
            click.echo(f"{each.where}: {each.what}: {each.todo}")
        click.echo(f"{len(found)} findings; {remade} versions made again bit for bit")
    if found:
        sys.exit(1)


@ledger.command("size")
@CONFIG_OPTION
@JSON
def size(config: Path, *, as_json: bool) -> None:
    """Say how large ledger and models are; works while `serve` runs.

    \b
    Example:
      edgebroker ledger size --config broker.toml --json
    """
    measured = examine.size(load(config, Aggregator))
    if as_json:
        click.echo(json.dumps(measured))
        return
    for name, value in measured.items():
        click.echo(f"{name}: {value}")
