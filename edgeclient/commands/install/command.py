"""The commands `edgeclient install`, `uninstall` and `logs`."""

import os
from pathlib import Path

import click

from edgeclient.commands.install import termux
from edgeclient.commands.options import FILE
from edgeclient.services import account, installer, systemd
from edgeclient.services.installation import Installation, Job
from edgeclient.settings import Device, load

CONFIG = click.argument("config", default="device.toml", type=FILE)


@click.command("install")
@CONFIG
@click.option(
    "--systemd", "with_systemd", is_flag=True, help="A service of systemd: Raspberry Pi OS, Debian and so on."
)
@click.option("--termux", "with_termux", is_flag=True, help="A script of Termux on a phone.")
@click.option("--once", is_flag=True, help="A round every few hours, instead of a process that stays.")
@click.option("--system/--user", default=None, help="Of the machine, or yours alone; by default of who calls.")
@installer.DRY_RUN
def install_command(
    config: Path, *, with_systemd: bool, with_termux: bool, once: bool, system: bool | None, dry_run: bool
) -> None:
    """Let the device take part without anybody starting it: now, and after every start of the machine.

    Called by root, it makes a service of the machine in a sandbox, which takes its configuration from /etc/edgeclient
    and writes in /var/lib/edgeclient; called by others, a service of theirs. Files that somebody has changed are left
    alone. CONFIG is device.toml unless given.

    \b
    Example:
      sudo /opt/edgeclient/bin/edgeclient install --systemd /etc/edgeclient/har.toml
      edgeclient install --systemd --dry-run device.toml
      edgeclient install --termux --once device.toml
    """
    if with_systemd == with_termux:
        raise click.UsageError("give either --systemd or --termux")
    job = _job(config, once=once)
    if with_systemd:
        chosen = systemd.service(job, of_machine=os.geteuid() == 0 if system is None else system)
    else:
        own = account.home()
        chosen = None if own is None else termux.service(job, own)
    if chosen is None:
        raise account.homeless()
    installer.install(chosen, _installed(config), config, dry_run=dry_run)


@click.command("uninstall")
@CONFIG
@installer.DRY_RUN
def uninstall_command(config: Path, *, dry_run: bool) -> None:
    """Take back what `install` did for CONFIG (device.toml unless given); data, models and the store stay.

    \b
    Example:
      edgeclient uninstall device.toml
    """
    installer.uninstall(_installed(config), config, dry_run=dry_run)


@click.command("logs")
@CONFIG
@installer.LINES
@installer.FOLLOW
def logs_command(config: Path, *, lines: int, follow: bool) -> None:
    """Show what the service installed for CONFIG (device.toml unless given) says.

    \b
    Example:
      edgeclient logs device.toml --follow
    """
    installer.show_log(_installed(config), config, lines, follow=follow)


def _job(config: Path, *, once: bool) -> Job:
    settings = load(config.absolute(), Device)
    mqtt = settings.mqtt
    return Job(
        installer.program_of("edgeclient"),
        "once" if once else "run",
        config.absolute(),
        settings.task,
        settings.directory,
        (Path(settings.data.source.partition(":")[0]),),
        tuple(path for path in (mqtt.password_file, mqtt.key_file) if path is not None),
    )


def _installed(config: Path) -> list[Installation]:
    """Every service of this configuration's task that is there."""
    found: list[Installation] = []
    own = account.home()
    for once in (False, True):
        job = _job(config, once=once)
        found += systemd.candidates(job) + ([] if own is None else [termux.service(job, own)])
    return [service for service in found if service.installed]
