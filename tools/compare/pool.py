"""Cells side by side, each in a child process with one thread of numerics."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tools.compare.cell import Cell

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Worker:
    """A child process, which starts with its first cell."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def run(self, asked: dict[str, Any]) -> bool:
        """Whether the cell was run; what went wrong stands on standard error."""
        if self._child is None:
            # In a group of its own: Ctrl-C is for the one who asks, who ends it.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tools.compare.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **_ONE_THREAD},
                process_group=0,
            )  # fmt: skip
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(asked) + "\n")
            child.stdin.flush()
        if child.stdout.readline() == "done\n":
            return True
        self.end()
        return False

    def end(self) -> None:
        """Whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()  # type: ignore[union-attr]


def run_all(
    missing: Callable[[], Sequence[Cell]],
    file_of: Callable[[Cell], Path],
    done: Callable[[Cell], None],
    *,
    jobs: int,
    data: Path,
    commit: str,
) -> list[Cell]:
    """Run what is missing until nothing is; those that could not be run.

    Args:
        missing: cells that are not done, the first ones first; asked again after each.
        file_of: where a cell is written.
        done: hears of each that was run.
        jobs: side by side.
        data: folder of downloaded data.
        commit: what runs here.
    """
    idle, failed = [Worker() for _ in range(jobs)], list[Cell]()
    workers, running = list(idle), dict[Future[bool], tuple[Cell, Worker]]()
    with ThreadPoolExecutor(jobs) as threads:
        try:
            while True:
                taken = [*failed, *(cell for cell, _ in running.values())]
                for cell in [each for each in missing() if each not in taken][: len(idle)]:
                    worker = idle.pop()
                    asked = {"cell": asdict(cell), "data": str(data), "file": str(file_of(cell)), "commit": commit}
                    running[threads.submit(worker.run, asked)] = cell, worker
                if not running:
                    return failed
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell, worker = running.pop(future)
                    idle.append(worker)
                    if future.result():
                        done(cell)
                    else:
                        failed.append(cell)
        finally:
            for each in workers:
                each.end()
