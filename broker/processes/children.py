"""Child processes that never outlive us."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_LOG_BYTES: Final = 1_000_000
# Loaded before any fork: a child between fork and exec must not load libraries.
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    pipes: bool = False,
    keep: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own (Ctrl-C reaches us alone) that dies when we do.

    On Linux the kernel kills it when the thread that calls this ends, even by SIGKILL: call from the main
    thread. Elsewhere only `end` ends it.

    Args:
        command: program and arguments.
        log: its output is appended here (with `pipes`, only standard error); one of 1 MB becomes NAME.1 before.
        env: instead of ours.
        pipes: standard input and output are pipes.
        keep: descriptors that it inherits.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size >= _LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 (the callers' own programs)
            command,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else out,
            stderr=out,
            env=env,
            start_new_session=True,
            pass_fds=tuple(keep),
            preexec_fn=_die_with(os.getpid()) if _LIBC is not None else None,  # noqa: PLW1509 (calls prctl only)
        )


def end(process: "subprocess.Popen[Any]", *, grace_s: float = 5.0) -> None:
    """Ask a process to end, then make it; nothing if it has ended."""
    end_all([process], grace_s=grace_s)


def end_all(processes: "Iterable[subprocess.Popen[Any]]", *, grace_s: float = 5.0) -> None:
    """The same for many, all at once and with one grace time for all; their pipes are closed."""
    alive = list(processes)
    for process in alive:
        if process.poll() is None:
            process.terminate()
    until_s = time.monotonic() + grace_s
    for process in alive:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _die_with(parent: int) -> Callable[[], None]:
    def between_fork_and_exec() -> None:
        assert _LIBC is not None
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return between_fork_and_exec
