"""MQTT brokers that forget everything when they are killed: what the fleet must survive."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from broker.processes import children
from broker.processes.embedded import EmbeddedBroker

_READY_S: Final = 15.0
_CONNECT: Final = bytes([0x10, 12, 0, 4]) + b"MQTT" + bytes([4, 2, 0, 5, 0, 0])  # 3.1.1, clean, no client id
_CONNACK: Final = bytes([0x20, 2])


class BrokerError(Exception):
    """A broker does not run here; one line that says which and what to do."""


class Broker(Protocol):
    """A broker on a port that stays the same."""

    port: int

    def start(self) -> None:
        """Start, or start again after `kill`; returns once it answers."""

    def kill(self) -> bool:
        """SIGKILL, and nothing survives; false when it was dead already."""

    def stop(self) -> None:
        """End it."""


class Nats:
    """The embedded broker; it needs a store, which goes when it is killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._embedded = EmbeddedBroker(directory)
        self.port = 0

    def start(self) -> None:
        """See Broker."""
        self._embedded.start()
        self.port = self._embedded.port

    def kill(self) -> bool:
        """See Broker."""
        assert self._embedded.process is not None
        killed = _killed(self._embedded.process)
        shutil.rmtree(self._directory / "store", ignore_errors=True)
        return killed

    def stop(self) -> None:
        """See Broker."""
        self._embedded.stop()


class Mosquitto:
    """The system's mosquitto, persistence off."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        """See Broker."""
        program = mosquitto()
        if program is None:
            raise BrokerError("mosquitto is not installed: on Debian and its kin, apt install mosquitto")
        config = self._directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 100000\nmax_inflight_messages 100\n"
        )
        log = self._directory / "mosquitto.log"
        self._process = children.spawn([program, "-c", str(config)], log=log)
        until_s = time.monotonic() + _READY_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise BrokerError(f"mosquitto does not come up, see {log}")

    def kill(self) -> bool:
        """See Broker."""
        assert self._process is not None
        return _killed(self._process)

    def stop(self) -> None:
        """See Broker."""
        if self._process is not None:
            children.end(self._process)


KINDS: Final[dict[str, Callable[[Path], Broker]]] = {"nats": Nats, "mosquitto": Mosquitto}


def mosquitto() -> str | None:
    """The program, which is rarely in a user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _killed(process: "subprocess.Popen[bytes]") -> bool:
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def _answers(port: int) -> bool:
    """Whether an MQTT client is let in."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(_CONNECT)
            return connection.recv(2) == _CONNACK
    except OSError:
        time.sleep(0.02)
        return False
