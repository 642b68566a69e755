"""The demo's processes: started as a user would, killed when the plan says so, missed when they end by themselves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Self

from broker.demo.plan import AGGREGATOR, DemoError, Plan
from broker.processes import children
from edgeclient import failpoint


class Supervisor:
    """Aggregator and devices, by name; all end with it.

    Attributes:
        kills: processes that SIGKILL has ended.
    """

    def __init__(self, plan: Plan) -> None:
        self.kills = 0
        self._plan = plan
        self._alive: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._alive)

    def start(self, name: str) -> None:
        """Start one, with the promise to break if the plan asks for that."""
        module, command = ("broker.cli", "serve") if name == AGGREGATOR else ("edgeclient.cli", "run")
        environment = dict(os.environ)
        if self._plan.sabotage is not None:
            environment[failpoint.VARIABLE] = f"sabotage.{self._plan.sabotage}=on"
        self._alive[name] = children.spawn(
            [sys.executable, "-m", module, command, str(self._plan.config(name))],
            log=self._plan.log(name),
            env=environment,
        )

    def kill(self, name: str) -> bool:
        """SIGKILL and start again; whether the signal ended a live process."""
        self._alive[name].kill()
        killed = self._alive[name].wait() == -signal.SIGKILL
        self.kills += killed
        self.start(name)
        return killed

    def check(self) -> None:
        """DemoError when one has ended by itself."""
        for name, process in self._alive.items():
            if process.poll() is not None:
                log = self._plan.log(name)
                lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
                raise DemoError(f"{name} ended by itself: {lines[-1]} ({log})")

    def end(self, names: Iterable[str]) -> None:
        """Ask them to end, all at once; nothing for those that have ended."""
        children.end_all(self._alive[name] for name in names)
