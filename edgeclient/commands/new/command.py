"""The command `edgeclient new`."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import click

from edgeclient.settings import ConfigError
from edgeclient.wire.errors import WireError
from edgeclient.wire.topics import checked

KINDS: Final = ("classifier",)
_BUNDLE: Final = "model.bundle"
_MOST: Final = 60  # "-1" follows in the device's id


@click.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="What the model does.")
def new_command(name: str, kind: str) -> None:
    """Write a project that trains as it stands: model, data, configurations, README.

    NAME is the new folder's, and the task's. The model comes as a ready bundle, so that nothing needs to be compiled;
    the README says how to make it again, or another one.

    \b
    Example:
      edgeclient new demo
      cd demo && cat README.md
    """
    folder = Path(name)
    for path in write(folder, kind):
        click.echo(f"  {path}")
    click.echo(f"{folder}: now cd {folder}, then, the last two in terminals of their own:")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for command in commands(readme):
        click.echo(f"  {command}")
    click.echo(f"or first a dry run, on this machine alone:\n  {dry_run(readme)}")


def write(folder: Path, kind: str = KINDS[0]) -> Iterator[Path]:
    """Write a project into a new folder, whose name becomes the task's; yields the files as they are written.

    Raises:
        ConfigError: the folder is there already, or its name cannot be a task's.
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "demo"
        >>> sorted(path.name for path in write(folder))[:3]
        ['README.md', 'broker.toml', 'device.toml']
        >>> (folder / "device.toml").read_text(encoding="utf-8").splitlines()[2]
        'task = "demo"'
    """
    try:
        checked(folder.name)
    except WireError as error:
        raise ConfigError(f"{folder.name!r} cannot be the name of a task: {error.detail}") from None
    if len(folder.name) > _MOST:
        raise ConfigError(f"{folder.name!r} is too long for the name of a task: at most {_MOST} characters")
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigError(f"{folder} exists already, nothing was written: choose another name, or remove it") from None
    for source in sorted(resources.files(__package__).joinpath(kind).iterdir(), key=lambda each: each.name):
        if source.is_file():
            path = folder / source.name
            content = source.read_bytes()
            path.write_bytes(content if source.name == _BUNDLE else content.replace(b"@NAME@", folder.name.encode()))
            yield path


def dry_run(readme: str) -> str:
    """The command of a README that tries everything out."""
    return next(line for line in readme.splitlines() if line.startswith("edgebroker simulate "))


def commands(readme: str) -> list[str]:
    """The commands of a README's first block."""
    return readme.partition("```sh\n")[2].partition("```")[0].splitlines()
