"""What monitoring costs the aggregator: its throughput with and without, and the time of a scrape."""

import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any, Final, cast

import click
import numpy as np

from broker.demo import data
from broker.monitor.metrics import Metrics
from broker.monitor.watch import Watch
from broker.service import Service
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.bundle import archive
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.link.events import Event
from edgeclient.link.mqtt import Connected, Link, Message
from edgeclient.settings import Mqtt
from edgeclient.wire import frame, status, topics
from edgeclient.wire.announcement import Policy
from edgeclient.wire.messages import NO_LEDGER
from edgeclient.wire.status import Status
from tools.bench import report

TASK: Final = "har"
DEVICES: Final = 10_000
ENTRIES: Final = 1_900
BATCH: Final = 64  # uploads a turn
SCRAPE_EVERY_S: Final = 15.0


class MemoryLink:
    """In place of MQTT: gives what is put in, takes everything."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque([Connected(1)])
        self.connected = True

    @property
    def backlog(self) -> int:
        """See Link."""
        return len(self.events)

    def poll(self, _: float, *, limit: int = BATCH) -> list[Event]:
        """See Link; so many uploads at a time, with the statuses that come between them."""
        found: list[Event] = []
        uploads = 0
        while self.events and uploads < min(limit, BATCH):
            event = self.events.popleft()
            uploads += isinstance(event, Message) and event.qos > 0
            found.append(event)
        return found

    def put(self, topic: str, payload: bytes) -> None:
        """A message has come."""
        self.events.append(Message(topic, payload, retained=False, connection=1, mid=1, qos=int("/up/" in topic)))

    def ignore(self, *_: Any, **__: Any) -> None:
        """Everything else: nobody is there."""

    def room(self, _: str) -> int:
        """See Link: there is no limit."""
        return 1 << 20

    def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        """Who asks on a claim topic hears itself."""
        if topic.endswith("/claim"):
            self.put(topic, payload)

    start = stop = wake = subscribe = unsubscribe = acknowledge = ignore


def _taken(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of it."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


class Side:
    """An aggregator with a ledger of its own."""

    def __init__(self, directory: Path, content: bytes, watch: Watch) -> None:
        settings = Aggregator(directory, mqtt=Mqtt())
        task = Task(goal=64, min_interval_s=0, policy=Policy(max_staleness=1 << 30))
        add_task(settings, TASK, content, task)
        self.link = MemoryLink()
        with closing(sqlite3.connect(settings.ledger, isolation_level=None)) as db:  # both count the same uploads
            db.execute("UPDATE identity SET ledger = ?", (NO_LEDGER,))
        # MQTT would be most of the time, and of the noise.
        self.service = Service(settings, cast("Link", self.link), _no_evaluation, watch)
        while not [*self.service._tasks]:  # noqa: SLF001 (until it knows that nobody else serves)
            self._turn()

    def turn(self) -> tuple[float, float]:
        """One turn of the service; wall and CPU seconds."""
        return _taken(self._turn)

    def _turn(self) -> None:
        self.service._turn()  # noqa: SLF001
        self.service._watch.turned(writable=True, uncounted=self.link.backlog)  # noqa: SLF001


def _no_evaluation(_: list[str]) -> Any:
    raise AssertionError("nothing is evaluated here")


@click.command("monitor")
@click.option("--devices", type=click.IntRange(1, 50_000), default=DEVICES, show_default=True)
@click.option(
    "--statuses", type=click.FloatRange(0, 10), default=1.0, show_default=True, help="Statuses that come per upload."
)
@report.options("Under a minute.", plots=False)
def monitor_command(devices: int, statuses: float, seed: int, *, quick: bool, as_json: bool) -> None:
    """Throughput of the aggregator with metrics on, against metrics off, and how long a scrape takes.

    Two aggregators in one process take the same uploads in turns and are never idle; MQTT is left out, the ledger is on
    the disk. The one that is monitored hears the statuses of all devices, and is scraped every 15 seconds of its own
    time. Scrapes are measured when every device has just said something new.

    \b
    Example:
      python -m tools.bench monitor --json
    """
    slices = 100 if quick else 400
    content = data.bundle_bytes()
    with tempfile.TemporaryDirectory(prefix="edgeclient-monitor-") as folder:
        metrics = Metrics(disk=lambda: (0, 0))
        plain = Side(Path(folder) / "plain", content, Watch())
        watched = Side(Path(folder) / "watched", content, metrics)
        plain.turn()
        watched.turn()
        scrapes = _scrapes(metrics, devices)
        rows = _slices(
            plain, watched, metrics, _uploads(content, seed, NO_LEDGER), slices=slices, devices=devices, share=statuses
        )
    rows = rows[8:]  # the first ones warm up
    walls, cpus = ([row[f"{kind}_ratio"] for row in rows] for kind in ("wall", "cpu"))
    plain_s = statistics.median(row["plain_wall_s"] for row in rows)
    summary = {
        "devices": devices,
        "statuses_per_upload": statuses,
        "uploads_per_s": BATCH / plain_s,
        "loss_wall_percent": 100 * (1 - 1 / statistics.median(walls)),
        "loss_cpu_percent": 100 * (1 - 1 / statistics.median(cpus)),
        "scrape_wall_ms": 1e3 * statistics.median(wall for wall, _ in scrapes),
        "scrape_cpu_ms": 1e3 * statistics.median(cpu for _, cpu in scrapes),
    }
    report.tell(summary, rows if as_json else [], as_json=as_json, seed=seed)


def _scrapes(metrics: Metrics, devices: int) -> list[tuple[float, float]]:
    """Wall and CPU seconds of scrapes, when every device has said something."""
    for number in range(devices):
        metrics.heard(topics.status(TASK, f"device-{number}"), _words(number, 0))
    while metrics.unread:
        metrics.turned(writable=True)
    taken = []
    for turn in range(15):
        for number in range(devices):
            metrics.heard(topics.status(TASK, f"device-{number}"), _words(number, turn))
        taken.append(_taken(metrics.exposition))
    return taken


def _slices(
    plain: Side, watched: Side, metrics: Metrics, uploads: Iterator[tuple[str, bytes]], *, slices: int, devices: int,
    share: float,
) -> list[dict[str, float]]:  # fmt: skip
    rows, said, scraped_s, spent_s = [], 0.0, 0.0, 0.0
    speakers = cycle(range(devices))

    def come(turn: int) -> None:
        nonlocal said
        for topic, payload in (next(uploads) for _ in range(BATCH)):
            plain.link.put(topic, payload)
            watched.link.put(topic, payload)
            said += share
            while said >= 1:
                said -= 1
                device = next(speakers)
                watched.link.put(topics.status(TASK, f"device-{device}"), _words(device, turn))

    come(0)  # and one more than can be counted always waits
    for number in range(slices):
        come(number)

        def monitored() -> tuple[float, float]:
            nonlocal scraped_s, spent_s
            wall_s, cpu_s = watched.turn()
            if spent_s - scraped_s >= SCRAPE_EVERY_S:
                scraped_s = spent_s
                also = _taken(metrics.exposition)
                wall_s, cpu_s = wall_s + also[0], cpu_s + also[1]
            spent_s += wall_s
            return wall_s, cpu_s

        first_plain = number % 2 == 0
        off = plain.turn() if first_plain else None
        on = monitored()
        off = off or plain.turn()
        ratios = {"wall_ratio": on[0] / off[0], "cpu_ratio": on[1] / off[1]}
        rows.append({"plain_wall_s": off[0], "watched_wall_s": on[0], **ratios})
    return rows


def _uploads(content: bytes, seed: int, ledger: str) -> Iterator[tuple[str, bytes]]:
    """Frames of ever new updates: topic and payload."""
    layout = archive.decode(content).manifest.layout
    delta = np.random.default_rng(seed).normal(0, 0.01, layout.size).astype(np.float32)
    update, _ = compress_with_feedback(delta, np.zeros(layout.size, np.float32), k=ENTRIES)
    sequence = 0
    while True:
        for number in range(BATCH):
            device = f"device-{number}"
            origin = frame.Origin(TASK, device, layout.tag, sequence, 0, 100, ledger)
            (body,) = frame.encode_update(update, origin, 65536, tensors=layout.tensors)
            yield topics.up(TASK, device), frame.stamp(body, epoch=number + 1, sequence=sequence)
        sequence += 1


def _words(number: int, turn: int) -> bytes:
    """A status of usual length."""
    return status.encode(
        Status(
            ("online", "offline")[number % 9 == 0], sha256(str(number).encode()).hexdigest()[:16],
            note="3 frames await their receipt", doing="receipts", version=turn, rounds=turn, queued=number % 5,
            sent=3, applied=turn, up_bytes=900 * turn, down_bytes=5000 * turn, socket_sent=2000 * turn + 1,
            socket_received=7000 * turn, time_s=1_800_000_000 + turn, oldest_s=number % 900, software="0.2.0",
            temperature_c=51.5, residual_norm=number / 100,
        )
    )  # fmt: skip
