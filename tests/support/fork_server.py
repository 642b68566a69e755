"""Has imported what the two commands import, and forks for each process that forked.py asks for."""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from forked import NUMBER

from edgeclient import failpoint
from edgeclient.train import runtime

MODULES: Final = ("edgeclient.cli", "broker.cli")
# What their commands import late, and an environment may not have.
LATE: Final = ("edgeclient.agent", "broker.service", "broker.page.server", "edgeclient.compile.compiler")
_MESSAGE_BYTES: Final = 1 << 17
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


def import_everything() -> None:
    for module in map(importlib.import_module, MODULES):
        for place in module.cli.places.values():
            importlib.import_module(place.partition(":")[0])
    for name in LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    runtime.load()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads do not survive a fork"
    gc.freeze()


class Server:
    """What is known here of the processes that run."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer, self._tellers = peer, dict[int, socket.socket]()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> str:
        """Returns in what was forked, with the module to run, and nowhere else."""
        while True:
            ready, _, _ = select.select([self._peer.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 1 << 12)
                self._reap()
            if self._peer.fileno() in ready and (module := self._answer()):
                return module

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with self._tellers.pop(ended[0]) as teller, contextlib.suppress(OSError):
                    teller.send(NUMBER.pack(ended[1]))

    def _answer(self) -> str | None:
        message, descriptors, _, _ = socket.recv_fds(self._peer, _MESSAGE_BYTES, 4)
        if not message:  # pytest ends, and with us what still runs
            os._exit(0)
        teller, parent = socket.socket(fileno=descriptors.pop()), os.getpid()
        if pid := os.fork():
            self._tellers[pid] = teller
            teller.send(NUMBER.pack(pid))
            for each in descriptors:
                os.close(each)
            return None
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self._peer, teller, *self._tellers.values()):
            end.close()
        os.close(self._woken)
        os.close(self._wake)
        return become(json.loads(message), descriptors)


def become(request: Mapping[str, Any], descriptors: Sequence[int]) -> str:
    """All that a start gives a process."""
    os.setsid()
    for to, descriptor in enumerate(descriptors):
        os.dup2(descriptor, to)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    failpoint.arm(failpoint._parse(os.environ.get(failpoint.VARIABLE, "")))
    module, *arguments = request["argv"]
    sys.path[0] = request["cwd"]
    sys.argv = [str(sys.modules[module].__file__), *arguments]
    return str(module)


def end(code: object) -> NoReturn:
    """As Python ends, without taking apart what was imported: that takes longer than what most commands do."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, and ends what waits for tasks
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def main() -> None:
    import_everything()
    module = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    try:
        sys.modules[module].main()
    except SystemExit as ended:
        end(ended.code)
    except BaseException:  # noqa: BLE001 (whatever it is, Python would say it so)
        sys.excepthook(*sys.exc_info())
        end(1)
    end(0)


if __name__ == "__main__":
    main()
