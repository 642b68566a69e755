"""The commands `edgeclient install`, `uninstall` and `logs`."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from edgeclient.commands.install import systemd, termux
from edgeclient.commands.install.service import Command, Installation, Job
from edgeclient.commands.options import FILE
from edgeclient.settings import ConfigError, Device, load

CONFIG = click.argument("config", default="device.toml", type=FILE)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
# The commands of Termux:API wait for ever where the app is missing.
_COMMAND_S: Final = 60.0


@click.command("install")
@CONFIG
@click.option(
    "--systemd", "with_systemd", is_flag=True, help="A service of systemd: Raspberry Pi OS, Debian and so on."
)
@click.option("--termux", "with_termux", is_flag=True, help="A script of Termux on a phone.")
@click.option("--once", is_flag=True, help="A round every few hours, instead of a process that stays.")
@click.option("--system/--user", default=None, help="Of the machine, or yours alone; by default of who calls.")
@DRY_RUN
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
    for_machine = with_systemd and (os.geteuid() == 0 if system is None else system)
    job = _job(config, once=once)
    if with_systemd:
        systemd.check_paths(job)
    if for_machine:
        systemd.check_reach(job)
    chosen = termux.service(job, Path.home()) if with_termux else _systemd(job, for_machine=for_machine)
    for there in _installed(config):
        if there.name != chosen.name:
            raise ConfigError(f"{job.task} is installed as {there.name}: edgeclient uninstall {config} first")
    _write(chosen, dry_run=dry_run)
    _run(chosen.start, dry_run=dry_run)
    for note in chosen.notes:
        click.echo(f"note: {note}")


@click.command("uninstall")
@CONFIG
@DRY_RUN
def uninstall_command(config: Path, *, dry_run: bool) -> None:
    """Take back what `install` did for CONFIG (device.toml unless given); data, models and the store stay.

    \b
    Example:
      edgeclient uninstall device.toml
    """
    found = _installed(config)
    if not found:
        raise ConfigError(f"{config} is not installed as a service: there is nothing to take back")
    for service in found:
        _try(service.stop, dry_run=dry_run)
        for file in service.files + (service.shared if service.alone else ()):
            state = file.state()
            if state == "changed":
                click.echo(f"leaves {file.path}, which has been changed")
            elif state != "absent":
                click.echo(f"{'would remove' if dry_run else 'removes'} {file.path}")
                if not dry_run:
                    file.path.unlink()
                    _remove_empty(file.path.parent)
        _try(service.stopped, dry_run=dry_run)


@click.command("logs")
@CONFIG
@click.option("--lines", "-n", default=100, show_default=True, type=click.IntRange(0), help="The newest so many.")
@click.option("--follow", "-f", is_flag=True, help="Go on, until Ctrl-C.")
def logs_command(config: Path, *, lines: int, follow: bool) -> None:
    """Show what the service installed for CONFIG (device.toml unless given) says.

    \b
    Example:
      edgeclient logs device.toml --follow
    """
    found = _installed(config)
    if not found:
        raise ConfigError(f"{config} is not installed as a service: edgeclient run says it on the terminal")
    program, *arguments = found[0].logs
    command = (program, "-n", str(lines), *(("-f",) if follow else ()), *arguments)
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)  # noqa: S606 (it takes our place, Ctrl-C and all)
    except OSError as error:
        raise ConfigError(f"{command[0]}: {error.strerror}") from None


def _job(config: Path, *, once: bool) -> Job:
    config = config.absolute()
    program = Path(sys.executable).absolute().with_name("edgeclient")
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{program} is missing: install edgeclient with pip into the environment of {sys.executable}")
    return Job(load(config, Device), config, program, once, importlib.util.find_spec("numba") is not None)


def _systemd(job: Job, *, for_machine: bool) -> Installation:
    if for_machine:
        return systemd.system(job)
    return systemd.user(job, Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"))


def _installed(config: Path) -> list[Installation]:
    """Every service of this configuration's task that is there."""
    found = []
    for once in (False, True):
        job = _job(config, once=once)
        services = (_systemd(job, for_machine=True), _systemd(job, for_machine=False), termux.service(job, Path.home()))
        found += [service for service in services if service.installed]
    return found


def _write(service: Installation, *, dry_run: bool) -> None:
    wanted = [(file, file.state()) for file in service.shared + service.files]
    for file, state in wanted:
        if state == "changed":
            raise ConfigError(f"{file.path} has been changed, and is left alone: move it away and install again")
    for file, state in wanted:
        if state == "same":
            click.echo(f"{file.path} is there already")
            continue
        click.echo(f"{'would write' if dry_run else 'writes'} {file.path}")
        if dry_run:
            click.echo("".join(f"    {line}\n" for line in file.text.splitlines()), nl=False)
        else:
            file.write()


def _run(commands: Iterable[Command], *, dry_run: bool) -> None:
    for command in commands:
        text = " ".join(command)
        click.echo(f"{'would run' if dry_run else 'runs'} {text}")
        if dry_run:
            continue
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_S)  # noqa: S603
        except FileNotFoundError:
            needs = "the package termux-api" if command[0].startswith("termux") else "systemd, which does not run here"
            raise ConfigError(f"{command[0]} is missing: it belongs to {needs}") from None
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"{text} has not answered for {_COMMAND_S:.0f} s; is the app Termux:API installed?"
            ) from None
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            raise ConfigError(f"{text} failed: {said[-1] if said else f'exit code {error.returncode}'}") from None


def _try(commands: Iterable[Command], *, dry_run: bool) -> None:
    """What fails now must not keep the files from going."""
    for command in commands:
        try:
            _run([command], dry_run=dry_run)
        except ConfigError as error:
            click.echo(f"note: {error}")


def _remove_empty(folder: Path) -> None:
    """A drop-in's folder; ~/.termux/boot and the like stay."""
    if folder.name.endswith(".service.d") and not any(folder.iterdir()):
        folder.rmdir()
