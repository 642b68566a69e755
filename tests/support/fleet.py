"""Real processes and a hand on the wire, for tests of the two sides."""

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from forked import Forked

from broker.demo import data
from broker.processes import children
from broker.publish import retained
from broker.settings import Aggregator, Task
from broker.task import new
from edgeclient import failpoint
from edgeclient.bundle import archive
from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.settings import Mqtt
from edgeclient.wire import frame, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.frame import Origin
from edgeclient.wire.messages import NO_LEDGER

Accept: TypeAlias = Callable[[Message], bool]

# Tests serve no page on the port that all aggregators have by default.
NO_PAGE = "[monitor]\nenabled = false\n"
# Of the ledgers that tests make: what strangers on the wire say they follow.
LEDGER = NO_LEDGER
BUNDLE = data.bundle_bytes()
LAYOUT = archive.decode(BUNDLE).manifest.layout
START = archive.decode(BUNDLE).parameters


@contextmanager
def hand(endpoint: Endpoint, *wanted: str) -> Iterator[Link]:
    """A connected link that listens to some topics."""
    link = Link(endpoint, client_id_prefix="hand")
    link.start()
    try:
        until_s = time.monotonic() + 60
        while not link.connected or not any(isinstance(event, Connected) for event in link.poll(0.1)):
            assert time.monotonic() < until_s
        link.subscribe(*wanted)
        yield link
    finally:
        link.stop()


def await_message(link: Link, accept: Accept, timeout_s: float = 30) -> Message:
    """The next accepted message; others are acknowledged and dropped."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        for event in link.poll(0.1, limit=1):
            if isinstance(event, Message):
                link.acknowledge(event)
                if accept(event):
                    return event
    raise AssertionError(f"nothing acceptable in {timeout_s} s")


def add_task(made: Aggregator, task: str, bundle: bytes, settings: Task) -> None:
    """A new task; strangers on the wire know how its ledger is called: LEDGER."""
    new.add_task(made, task, bundle, settings)
    with closing(sqlite3.connect(made.ledger, isolation_level=None)) as db:
        db.execute("UPDATE identity SET ledger = ?", (LEDGER,))


def start_aggregator(
    folder: Path, endpoint: Endpoint, task: str, settings: Task, bundle: bytes = BUNDLE
) -> "subprocess.Popen[bytes]":
    """A new task, and `edgebroker serve` as a process."""
    made = Aggregator(directory=folder / "data", mqtt=Mqtt(port=endpoint.port))
    add_task(made, task, bundle, settings)
    (folder / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n{NO_PAGE}')
    return serve(folder)


def serve(folder: Path) -> "subprocess.Popen[bytes]":
    return Forked(["broker.cli", "serve", folder / "a.toml"], log=folder / "a.log")


@contextmanager
def restarted_aggregator(folder: Path) -> Iterator[None]:
    """The same again, after its death."""
    with _guarded(serve(folder), folder / "a.log"):
        yield


@contextmanager
def aggregator(
    folder: Path, endpoint: Endpoint, task: str, settings: Task, bundle: bytes = BUNDLE
) -> Iterator[Aggregator]:
    """`edgebroker serve` with one task, until the end of the block."""
    with _guarded(start_aggregator(folder, endpoint, task, settings, bundle), folder / "a.log"):
        yield Aggregator(directory=folder / "data", mqtt=Mqtt(port=endpoint.port))


@contextmanager
def _guarded(process: "subprocess.Popen[bytes]", log: Path) -> Iterator[None]:
    try:
        yield
        assert process.poll() is None, log.read_text()
    except AssertionError as error:
        error.add_note(f"{log.name}: {process.poll()}\n{log.read_text()[-2000:]}")
        raise
    finally:
        children.end(process)
    assert "Traceback" not in log.read_text()


def write_device(folder: Path, endpoint: Endpoint, device: str, task: str) -> Path:
    """A configuration with the windows of one wrist."""
    x, labels = data.device_windows(2, 1)
    np.savez(folder / "windows.npz", x=x, labels=labels)
    (folder / "d.toml").write_text(
        f'device = "{device}"\ntask = "{task}"\ndirectory = "state"\naudit = true\n[mqtt]\nport = {endpoint.port}\n'
        '[data]\nsource = "windows.npz"\n[upload]\nretry_after_s = 0.2\nstatus_every_s = 0.2\n'
        '[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n'
    )
    return folder / "d.toml"


def start_device(config: Path, failpoints: str = "") -> "subprocess.Popen[bytes]":
    """`edgeclient run` as a process."""
    command = ("edgeclient.cli", "run", config)
    return Forked(command, log=config.parent / "d.log", env={failpoint.VARIABLE: failpoints})


@contextmanager
def device(folder: Path, endpoint: Endpoint, name: str, task: str) -> Iterator[None]:
    """A device that runs until the end of the block."""
    with _guarded(start_device(write_device(folder, endpoint, name, task)), folder / "d.log"):
        yield


def log_says(folder: Path, text: str, timeout_s: float = 30) -> None:
    """Wait until the device's log has it."""
    until_s = time.monotonic() + timeout_s
    while text not in (folder / "d.log").read_text():
        assert time.monotonic() < until_s, (folder / "d.log").read_text()


def publish(link: Link, task: str, content: bytes) -> None:
    """A blob in chunks."""
    for topic, payload in retained.chunks(task, retained.blob_of(sha256(content).hexdigest(), len(content)), content):
        link.publish(topic, payload, retain=True)


def announcement(task: str, version: int, parameters: F32, service: str = "0" * 16, **more: Any) -> Announcement:
    """A truthful announcement."""
    content = parameters.astype("<f4").tobytes()
    return Announcement(
        task=task,
        version=version,
        service=service,
        parameters=retained.blob_of(sha256(content).hexdigest(), len(content)),
        bundle=retained.blob_of(sha256(BUNDLE).hexdigest(), len(BUNDLE)),
        layout=LAYOUT.digest,
        size=LAYOUT.size,
        **{"ledger": LEDGER, "term": 1, **more},
    )


def make_frame(  # noqa: PLR0913 (every field that a stranger may forge)
    task: str, device: str, *, epoch: int, sequence: int, scale: float = 0.01, size: int = LAYOUT.size,
    layout: str = LAYOUT.digest, base_version: int = 0, seed: int = 0, ledger: str = LEDGER,
) -> bytes:  # fmt: skip
    """A frame as a device makes it."""
    delta = np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)
    update, _ = compress_with_feedback(delta, np.zeros(size, np.float32), k=50)
    origin = Origin(task, device, bytes.fromhex(layout)[:4], sequence, base_version, 100, ledger)
    (body,) = frame.encode_update(update, origin, 65536)
    return frame.stamp(body, epoch=epoch, sequence=sequence)


def up(task: str, device: str) -> str:
    """Shorthand."""
    return topics.up(task, device)
