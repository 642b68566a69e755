"""The two commands as processes that are forked from one that has imported them, for tests of what they do.

Imports are the larger part of a command's 0.4 s, and tests start many hundreds. What is forked is a process like any
other: with an id, a session, an environment, a working folder and files of its own; signals, crash points and SIGKILL
do what they do; it dies with the pytest that started it. What a test says about the start itself (imports, memory,
packages that are missing, PYTHON… in the environment) needs a start of its own: `subprocess`, `children.spawn`.

For each process fork_server.py gets one message with what to run, and four descriptors: standard input, output and
error, and a socket on which it says the process's id and, later, how it ended.
"""

import atexit
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

NUMBER: Final = struct.Struct("<i")
_SERVER: Final = Path(__file__).with_name("fork_server.py")


class Forked(subprocess.Popen[bytes]):
    """As subprocess.Popen without pipes.

    Args:
        command: edgeclient.cli or broker.cli, and what follows it on the command line.
        log: output is appended here; or the descriptors for output and errors.
        cwd: ours if None.
        env: instead of ours.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | tuple[int, int],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.args = list(map(str, command))
        self.stdin = self.stdout = self.stderr = None
        self.returncode: Any = None  # as in typeshed
        server, wanted = _server(os.getpid()), dict(os.environ if env is None else env)
        request = json.dumps({"argv": self.args, "cwd": str(cwd or Path.cwd()), "env": wanted})
        self._peer, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as stack:
            nothing = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, nothing)
            if isinstance(log, Path):
                out = err = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                stack.callback(os.close, out)
            else:
                out, err = log
            socket.send_fds(server, [request.encode()], [nothing, out, err, theirs.fileno()])
        self.pid = self._hear()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._peer], [], [], 0)[0]:
            self._ended()
        code: int | None = self.returncode
        return code

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._peer], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._ended()
        return int(self.returncode)

    def _ended(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(self._hear())
        self._peer.close()

    def _hear(self) -> int:
        said = self._peer.recv(NUMBER.size)
        assert len(said) == NUMBER.size, f"{_SERVER.name} is dead"
        return int(NUMBER.unpack(said)[0])


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """To its end, as subprocess.run, with what it wrote."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Forked(command, log=(out.fileno(), err.fileno()), cwd=cwd, env=env)
        try:
            process.wait(timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, process.returncode, out.read().decode(), err.read().decode())


@cache
def _server(_: int) -> socket.socket:
    """Started at the first process that somebody wants; of our own: a fork of ours starts another."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(_SERVER), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads would not survive a fork
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours
