"""Puts an installation in place and takes it back: files, what the system is told, and what has been started."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import click

from edgeclient.services import processes
from edgeclient.services.installation import Command, Installation
from edgeclient.settings import ConfigError

DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
LINES = click.option(
    "--lines", "-n", default=100, show_default=True, type=click.IntRange(0), help="The newest so many."
)
FOLLOW = click.option("--follow", "-f", is_flag=True, help="Go on, until Ctrl-C.")
# The commands of Termux:API wait for ever where the app is missing.
_COMMAND_S: Final = 60.0


def install(chosen: Installation, there: Iterable[Installation], config: Path, *, dry_run: bool) -> None:
    """Write its files and start it; `there` is what is installed for the configuration already.

    Raises:
        ConfigError: another kind is there, or one of another configuration, somebody has changed a file, or the system
            refuses; nothing is overwritten.
    """
    program = _program()
    for other in there:
        if other.name != chosen.name:
            raise ConfigError(f"{config} is installed as {other.name}: {program} uninstall {config} first")
    for file in chosen.files:
        if file.state() == "older" and str(config.absolute()) not in file.path.read_text(encoding="utf-8"):
            raise ConfigError(f"{chosen.name} runs another file, see {file.path}: {program} uninstall {config} first")
    _write(chosen, dry_run=dry_run)
    _run(chosen.start, dry_run=dry_run)
    for note in chosen.notes:
        click.echo(f"note: {note}")


def uninstall(found: Sequence[Installation], config: Path, *, dry_run: bool) -> None:
    """Stop what is there for a configuration, end its processes and remove the files that nobody has changed.

    Raises:
        ConfigError: there is nothing.
    """
    if not found:
        raise ConfigError(f"{config} is not installed as a service: there is nothing to take back")
    for service in found:
        _try(service.stop, dry_run=dry_run)
        for pid, command in processes.of(service.processes):
            click.echo(f"{'would end' if dry_run else 'ends'} process {pid}: {command}")
        if not dry_run:
            processes.end(service.processes)
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


def show_log(found: Sequence[Installation], config: Path, lines: int, *, follow: bool) -> NoReturn:
    """Let the command that shows the log take our place.

    Raises:
        ConfigError: there is no service, or no such command.
    """
    if not found:
        raise ConfigError(f"{config} is not installed as a service: run by hand, {_program()} says it on the terminal")
    program, *arguments = found[0].logs
    sys.stdout.flush()
    try:
        os.execvp(program, (program, "-n", str(lines), *((found[0].follow,) if follow else ()), *arguments))  # noqa: S606 (Ctrl-C and all)
    except OSError as error:
        raise ConfigError(f"{program}: {error.strerror}") from None


def program_of(name: str) -> Path:
    """The command `name`, absolute, in the environment that runs this.

    Raises:
        ConfigError: it is not there.
    """
    program = Path(sys.executable).absolute().with_name(name)
    if not os.access(program, os.X_OK):
        raise ConfigError(f"{program} is missing: install edgeclient with pip into the environment of {sys.executable}")
    return program


def _program() -> str:
    return click.get_current_context().find_root().info_name or "edgeclient"


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
