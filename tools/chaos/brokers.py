"""MQTT brokers that forget everything when they are killed: what the fleet must survive."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from broker.processes import children
from broker.processes.embedded import EmbeddedBroker, answers

_READY_S: Final = 15.0


class BrokerError(Exception):
    """A broker does not run here; one line that says which and what to do."""


class Broker(Protocol):
    """A broker on a port that stays the same."""

    port: int
    process: "subprocess.Popen[bytes] | None"

    def start(self) -> None:
        """Start, or start again after `kill`; returns once it answers."""

    def stop(self) -> None:
        """End it."""


class Nats(EmbeddedBroker):
    """The embedded broker; it needs a store, which goes when it was killed."""

    def start(self) -> None:
        """See Broker."""
        shutil.rmtree(self._directory / "store", ignore_errors=True)
        super().start()


class Mosquitto:
    """The system's mosquitto, persistence off."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None
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
        self.process = children.spawn([program, "-c", str(config)], log=log)
        until_s = time.monotonic() + _READY_S
        while not answers("127.0.0.1", self.port):
            if self.process.poll() is not None or time.monotonic() > until_s:
                raise BrokerError(f"mosquitto does not come up, see {log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """See Broker."""
        if self.process is not None:
            children.end(self.process)


KINDS: Final[dict[str, Callable[[Path], Broker]]] = {"nats": Nats, "mosquitto": Mosquitto}


def mosquitto() -> str | None:
    """The program, which is rarely in a user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def kill(broker: Broker) -> bool:
    """SIGKILL, and nothing survives; false when it was dead already."""
    assert broker.process is not None
    broker.process.kill()
    return broker.process.wait() == -signal.SIGKILL
