"""Evaluates model versions in a child process, `edgeclient evaluate`: training code stays out of the aggregator."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

# Requests that wait: more could fill the pipe, and then the aggregator waits for its evaluator.
MOST: Final = 128
_ENDED: Final = "the evaluator has ended, see evaluate.log beside the ledger: mend that, then send serve a SIGHUP"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The metrics of one version; empty when it could not be evaluated, and then why not."""

    version: int
    metrics: dict[str, float]
    error: str = ""


def command(bundle: Path, data: str, options: Mapping[str, Any]) -> list[str]:
    """What measures a bundle's models on data that is read by these options."""
    named = words("--option", options)
    return [
        sys.executable, "-m", "edgeclient.cli", "evaluate", "--bundle", str(bundle), "--data", data, *named, "--json",
    ]  # fmt: skip


def words(flag: str, options: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them.

    Example:
        >>> words("--option", {"labels": "activity", "window": 64})
        ['--option', 'labels="activity"', '--option', 'window=64']
    """
    given = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items())
    return [word for each in given for word in (flag, each)]


def told(why: str) -> str:
    """What a device says of its data, said of a task's."""
    return why.replace("[data.options]", "[evaluation_options]")


class Evaluator:
    """One child that evaluates the versions of one task on one data source, in order.

    Args:
        bundle: the task's bundle file.
        data: as [data] source of a device.
        options: as [data.options] of a device.
        spawn: starts a command with pipes for standard input and output.
        on_result: called (in another thread) when a result waits; must only wake somebody up.

    Example: `Evaluator(bundle, "held_out.npz", {}, spawn).submit(3, registry.path(digest))`, later `results()`.
    """

    def __init__(
        self,
        bundle: Path,
        data: str,
        options: Mapping[str, Any],
        spawn: Callable[[list[str]], subprocess.Popen[bytes]],
        on_result: Callable[[], None] = lambda: None,
    ) -> None:
        self._results: queue.SimpleQueue[Evaluated] = queue.SimpleQueue()
        self._submitted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._on_result = on_result
        self._told = False  # that it has ended
        self._slow = False
        self.process = spawn([*command(bundle, data, options), "--follow"])
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin: TextIO = open(self.process.stdin.fileno(), "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def submit(self, version: int, parameters: Path) -> None:
        """Evaluate the flat float32 parameters in a file; a dead or slow child loses the request, not the caller."""
        if not self._thread.is_alive():
            self._tell_end(version)
        if self._submitted.qsize() >= MOST:
            return
        self._submitted.put(version)
        try:
            self._stdin.write(f"{parameters}\n")
            self._stdin.flush()
        except OSError:
            return

    def awaits(self, since_s: float, most_s: float) -> bool:
        """Whether to wait on for the answer to the last request, which came `since_s` ago.

        For `most_s` at most; then for none until the child, if it lives, has caught up: a slow one delays one version.
        """
        self._slow = self._slow and self._submitted.qsize() > 1
        if self._slow or self.process.poll() is not None:
            return False
        self._slow = since_s >= most_s
        return not self._slow

    def close(self) -> None:
        """Let the child end: it reads no more lines."""
        self._told = True
        with contextlib.suppress(OSError):
            self._stdin.close()
            assert self.process.stdin is not None
            self.process.stdin.close()

    def results(self) -> list[Evaluated]:
        """What has been evaluated since the last call."""
        found = []
        while not self._results.empty():
            found.append(self._results.get_nowait())
        return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):  # something that the data source prints
                continue
            metrics = {key: float(value) for key, value in answer.items() if isinstance(value, int | float)}
            self._results.put(Evaluated(self._submitted.get(), metrics, told(str(answer.get("error", "")))))
            self._on_result()
        if self._submitted.qsize():
            self._tell_end(self._submitted.get())

    def _tell_end(self, version: int) -> None:
        """Once, unless it was asked to end."""
        if not self._told:
            self._told = True
            self._results.put(Evaluated(version, {}, _ENDED))
            self._on_result()
