"""Processes as a user would start them: an aggregator and devices, killed on demand, missed when they end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

from broker.demo.plan import AGGREGATOR, DemoError
from broker.processes import children
from edgeclient import failpoint


class Supervisor:
    """Processes by name; all end with it.

    Args:
        config: the configuration of each.
        log: where each one's output goes.
        sabotage: promise that all of them break, or None.
        device: Python of the devices.
        environment: of the devices, instead of ours.
        grace_s: within which they end when they are asked to.

    Attributes:
        processes: those that were started last.
    """

    def __init__(
        self,
        config: Callable[[str], Path],
        log: Callable[[str], Path],
        *,
        sabotage: str | None = None,
        device: Path | str = sys.executable,
        environment: Mapping[str, str] | None = None,
        grace_s: float = 5.0,
    ) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._config = config
        self._log = log
        self._sabotage = {} if sabotage is None else {failpoint.VARIABLE: f"sabotage.{sabotage}=on"}
        self._device = str(device)
        self._environment = environment
        self._grace_s = grace_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self.processes)

    def start(self, name: str) -> None:
        """Start one, or start it again."""
        command, environment = [sys.executable, "-m", "broker.cli", "serve"], None
        if name != AGGREGATOR:
            command, environment = [self._device, "-m", "edgeclient.cli", "run"], self._environment
        self.processes[name] = children.spawn(
            [*command, str(self._config(name))],
            log=self._log(name),
            env={**(os.environ if environment is None else environment), **self._sabotage},
        )

    def kill(self, name: str) -> bool:
        """SIGKILL; whether that ended a live process."""
        self.processes[name].kill()
        return self.processes[name].wait() == -signal.SIGKILL

    def check(self) -> None:
        """DemoError when one has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended by itself: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The last line of its log, and where that is."""
        log = self._log(name)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
        return f"{lines[-1]} ({log})"

    def end(self, names: Iterable[str]) -> None:
        """Ask them to end, all at once; nothing for those that have ended."""
        children.end_all([self.processes[name] for name in names], grace_s=self._grace_s)
