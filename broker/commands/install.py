"""`edgebroker install`, `uninstall` and `logs`: the aggregator as a service of systemd."""

import os
import re
from pathlib import Path

import click

from broker.commands.options import CONFIG
from broker.ledger.opening import open_ledger
from broker.settings import Aggregator
from edgeclient.services import account, installer, systemd
from edgeclient.services.installation import Installation, Job
from edgeclient.settings import ConfigError, load


@click.command("install")
@CONFIG
@click.option("--systemd", "with_systemd", is_flag=True, required=True, help="A service of systemd; there is no other.")
@click.option("--system/--user", default=None, help="Of the machine, or yours alone; by default of who calls.")
@installer.DRY_RUN
def install_command(config: Path, *, with_systemd: bool, system: bool | None, dry_run: bool) -> None:  # noqa: ARG001 (it says which system, for when there are others)
    """Let the aggregator run without anybody starting it: now, and after every start of the machine.

    Called by root, it makes a service of the machine in a sandbox, which takes its configuration from /etc/edgebroker
    and writes in /var/lib/edgebroker; called by others, a service of theirs. Files that somebody has changed are left
    alone.

    \b
    Example:
      sudo /opt/edgeclient/bin/edgebroker install --systemd /etc/edgebroker/broker.toml
      edgebroker install --systemd --dry-run broker.toml
    """
    job = _job(config)
    if not (job.directory / "ledger.db").exists():
        raise ConfigError(f"{config} has no task yet, and so nothing to serve: edgebroker task add --help")
    chosen = systemd.service(job, of_machine=os.geteuid() == 0 if system is None else system)
    if chosen is None:
        raise account.homeless()
    installer.install(chosen, _installed(job), config, dry_run=dry_run)


@click.command("uninstall")
@CONFIG
@installer.DRY_RUN
def uninstall_command(config: Path, *, dry_run: bool) -> None:
    """Take back what `install` did for CONFIG; ledger, models and the MQTT broker's store stay.

    \b
    Example:
      edgebroker uninstall broker.toml
    """
    installer.uninstall(_installed(_job(config)), config, dry_run=dry_run)


@click.command("logs")
@CONFIG
@installer.LINES
@installer.FOLLOW
def logs_command(config: Path, *, lines: int, follow: bool) -> None:
    """Show what the service installed for CONFIG says.

    \b
    Example:
      edgebroker logs broker.toml --follow
    """
    installer.show_log(_installed(_job(config)), config, lines, follow=follow)


def _job(config: Path) -> Job:
    settings = load(config.absolute(), Aggregator)
    secrets = [] if settings.monitor is None else [settings.monitor.token_file]
    if settings.mqtt is not None:
        secrets += [settings.mqtt.password_file, settings.mqtt.key_file]
    return Job(
        installer.program_of("edgebroker"),
        "serve",
        config.absolute(),
        re.sub(r"[^A-Za-z0-9_-]", "-", config.stem),
        settings.directory,
        _evaluations(settings),
        tuple(path for path in secrets if path is not None),
    )


def _evaluations(settings: Aggregator) -> tuple[Path, ...]:
    """What versions are evaluated on."""
    if not settings.ledger.exists():
        return ()
    with open_ledger(settings.ledger, read_only=True) as ledger:
        found = [str(task.settings.get("evaluation", "")) for task in ledger.tasks()]
    return tuple(Path(each) for each in found if each)


def _installed(job: Job) -> list[Installation]:
    return [service for service in systemd.candidates(job) if service.installed]
