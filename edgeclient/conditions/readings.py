"""Single readings of a board, a file's text or a command's answer: None where there is none, never an error.

Commands are found by name, end after two seconds, and one that hangs is left alone for five minutes.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_COMMAND_S: Final = 2.0
_LEFT_ALONE_S: Final = 300.0
# A command costs 10 to 50 ms and a process; a round of training asks every second.
_FRESH_S: Final = 0.8


class Commands:
    """Asks commands, each at most every 0.8 s by a steady clock; `hanging` are those that have not ended in time.

    Example:
        >>> Commands().ask("echo", "hello"), Commands().ask("no-such-command")
        ('hello\\n', None)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.hanging: set[str] = set()
        self._answers: dict[tuple[str, ...], tuple[float, str | None]] = {}

    def ask(self, *command: str) -> str | None:
        """What a command says; None when it is not there, fails or hangs."""
        now = self._clock()
        until_s, answer = self._answers.get(command, (-1.0, None))
        if now < until_s:
            return answer
        path, fresh_s, answer = shutil.which(command[0]), _LEFT_ALONE_S, None
        if path is not None:
            try:
                answer, fresh_s = _output([path, *command[1:]]), _FRESH_S
            except (OSError, ValueError):
                pass
            except subprocess.TimeoutExpired:
                self.hanging.add(command[0])
        self._answers[command] = now + fresh_s, answer
        return answer


def _output(command: list[str]) -> str | None:
    """What it says; None when it fails. Raises TimeoutExpired, and then nothing of it runs on.

    Termux:API's commands are scripts: killed alone, each would leave the process that hangs.
    """
    with subprocess.Popen(  # noqa: S603 (fixed names, no shell)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=_COMMAND_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return said if process.returncode == 0 else None


def text(path: Path) -> str | None:
    """What a file says, without space around it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def searched(path: Path, pattern: str) -> float | None:
    """The number that the pattern's group matches in a file, line by line."""
    found = re.search(pattern, text(path) or "", re.MULTILINE)
    return float(found[1]) if found else None


def integer(word: str, base: int = 10) -> int | None:
    """A whole number, None where it is none."""
    try:
        return int(word, base)
    except ValueError:
        return None


def folders(path: Path) -> list[Path]:
    """What is in a folder, by name."""
    try:
        return sorted(path.iterdir())
    except OSError:  # not there, or Android forbids it
        return []
