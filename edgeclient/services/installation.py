"""What is to run, and what makes a system run it: values, and files that vouch for themselves.

Such a file ends with a digest of itself: what somebody has changed is neither overwritten nor removed.
"""

import hashlib
import sys
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from edgeclient import files

Command = tuple[str, ...]
_SEAL: Final = b"# Written by edgeclient install; yours once you change it. "


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run.

    Attributes:
        program: edgeclient or edgebroker, absolute.
        verb: which of its commands: "run", "once" or "serve".
        config: the configuration, absolute.
        instance: names the service beside others of the program.
        directory: where it writes.
        data: what it reads beside the configuration.
        secrets: files that only their owner may read.
        interpreter: what runs the program; an environment's Python may be elsewhere than the environment.
        executable_memory: numba is installed, and compiles.
    """

    program: Path
    verb: str
    config: Path
    instance: str
    directory: Path
    data: tuple[Path, ...] = ()
    secrets: tuple[Path, ...] = ()
    interpreter: Path = field(default_factory=lambda: Path(sys.executable).resolve())
    executable_memory: bool = field(default_factory=lambda: find_spec("numba") is not None)

    @property
    def once(self) -> bool:
        """Now and then a round, instead of a process that stays."""
        return self.verb == "once"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file to be written, in a language whose comments begin with #.

    Attributes:
        path: where.
        text: what, without the seal; ends with a newline.
        mode: its permissions.
    """

    path: Path
    text: str
    mode: int = 0o644

    def state(self) -> Literal["absent", "same", "older", "changed"]:
        """What is there: nothing, this, another version of ours, or what somebody has made of it.

        Raises:
            OSError: it cannot be read.
        """
        try:
            there = self.path.read_bytes()
        except FileNotFoundError:
            return "absent"
        if there == self._content():
            return "same"
        body, seal, digest = there.rpartition(_SEAL)
        ours = bool(seal) and digest.strip() == hashlib.sha256(body).hexdigest().encode()
        return "older" if ours else "changed"

    def write(self) -> None:
        """Write it, whole or not at all."""
        files.replace(self.path, self._content())
        self.path.chmod(self.mode)

    def _content(self) -> bytes:
        body = self.text.encode()
        return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b"\n"


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
        processes: arguments, the first apart, of what nobody but such a file starts; ended with it.
        logs: the command that shows the log; it takes `-n LINES` and `follow`.
        follow: makes it go on.
        notes: what is left to people.
    """

    name: str
    files: tuple[SealedFile, ...]
    shared: tuple[SealedFile, ...] = ()
    others: tuple[tuple[Path, str], ...] = ()
    start: tuple[Command, ...] = ()
    stop: tuple[Command, ...] = ()
    stopped: tuple[Command, ...] = ()
    processes: tuple[Command, ...] = ()
    logs: Command = ()
    follow: str = "-f"
    notes: tuple[str, ...] = ()

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
    return resources.files("firmware_configs").joinpath("services", name).read_text(encoding="utf-8")
