"""Processes that a script of ours has started, where no systemd keeps account of them: found by their arguments."""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
# As TimeoutStopSec= of the units: it may be killed at any time without loss; the time is for the goodbye.
_GOODBYE_S: Final = 45.0
_LOOK_S: Final = 0.1


def of(started: Iterable[Sequence[str]]) -> list[tuple[int, str]]:
    """Number and command line of each process whose arguments, the first apart, are among these, and of its children.

    Example:
        >>> of([("no such program",)])
        []
    """
    wanted = [list(each) for each in started]
    commands, children = dict[int, list[str]](), dict[int, list[int]]()
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # it has ended, or is somebody else's
            pid = int(folder.name)
            commands[pid] = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")[:-1]
            # The second field, the name in parentheses, may hold anything.
            parent = int((folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found, ahead = dict[int, str](), [pid for pid, command in commands.items() if command[1:] in wanted]
    while ahead:
        if (pid := ahead.pop()) not in found and pid != os.getpid():
            found[pid] = " ".join(commands.get(pid, []))
            ahead += children.get(pid, [])
    return sorted(found.items())


def end(started: Sequence[Sequence[str]]) -> None:
    """Ask them to end; those that have not said goodbye in time are killed."""
    until_s, asked = time.monotonic() + _GOODBYE_S, set[int]()
    while there := {pid for pid, _ in of(started)}:
        late = time.monotonic() > until_s
        for pid in there if late else there - asked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= there
        time.sleep(_LOOK_S)
