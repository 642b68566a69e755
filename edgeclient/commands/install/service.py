"""What is to run, and what makes a system run it: values, without a look at the system."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from edgeclient.commands.install.sealed import SealedFile
from edgeclient.settings import Device

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run.

    Attributes:
        settings: the configuration.
        config: its file, absolute.
        program: the command edgeclient, absolute.
        once: now and then a round, instead of a process that stays.
        executable_memory: numba is installed, and compiles.
    """

    settings: Device
    config: Path
    program: Path
    once: bool
    executable_memory: bool

    @property
    def task(self) -> str:
        """Names the service: one per task."""
        return self.settings.task


@dataclass(frozen=True, slots=True)
class Installation:
    """What makes a system run a job.

    Attributes:
        name: for people.
        files: those of this job alone.
        shared: those of all jobs of this kind.
        others: patterns of the files that show another job of this kind, by their folder.
        start: commands, once the files are there.
        stop: commands, before they go.
        stopped: commands, once they are gone.
        logs: the command that shows the log; it takes `-n LINES` and `-f`.
        notes: what is left to people.
    """

    name: str
    files: tuple[SealedFile, ...]
    shared: tuple[SealedFile, ...] = ()
    others: tuple[tuple[Path, str], ...] = ()
    start: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stopped: tuple[Command, ...] = ()
    logs: Command = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def installed(self) -> bool:
        """Whether a file of this job is there, changed or not."""
        return any(file.state() != "absent" for file in self.files)

    @property
    def alone(self) -> bool:
        """Whether no other job of this kind is there, so that the shared files can go."""
        own = {file.path for file in self.files}
        return all(path in own for folder, pattern in self.others for path in folder.glob(pattern))


def shipped(name: str) -> str:
    """The text of a file of firmware_configs/services.

    Example:
        >>> shipped("termux/boot").splitlines()[0]
        '#!/data/data/com.termux/files/usr/bin/sh'
    """
    return files("firmware_configs").joinpath("services", name).read_text(encoding="utf-8")
