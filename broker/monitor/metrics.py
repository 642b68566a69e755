"""The watch that counts: series for Prometheus, the book of devices, and what the web page shows of both.

Written by the service's thread, read by those of scrapes and of the page.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from broker.monitor import series
from broker.monitor.backlog import Backlog
from broker.monitor.fleet import MAX_DEVICES, Fleet
from broker.monitor.learning import KINDS
from broker.monitor.mqtt_health import MqttHealth
from broker.monitor.series import Series
from broker.monitor.summary import Summary, summary
from broker.monitor.watch import Watch
from edgeclient.wire.errors import REASONS, WireError
from edgeclient.wire.limits import MAX_STATUS_BYTES
from edgeclient.wire.messages import Refusal

# A turn that aggregates a large model takes seconds; one that takes this long hangs.
STUCK_S: Final = 60.0
_OTHER: Final = "other"
# Statuses that are read at once, 25 us each: in an idle turn, and in a scrape, which shall take less than 0.1 s.
_IDLE: Final = 256
_SCRAPE: Final = 1000
_ANSWERS: Final = (
    ("applied", ""),
    ("duplicate", ""),
    ("withdrawn", Refusal.WITHDRAWN.reason),
    *(("refused", each.reason) for each in Refusal),
)


class Metrics(Watch):
    """Everything since the start of the aggregator.

    Args:
        disk: bytes of the ledger (its log included) and of the registry, asked for at each scrape.
        clock: steady seconds.

    Attributes:
        fleet: devices by their own words.
        series: what Prometheus is told.

    Example:
        >>> metrics = Metrics(disk=lambda: (4096, 0))
        >>> metrics.task("har", 4000)
        >>> metrics.version("har", 7, 1.7e9)
        >>> metrics.applied("har", 100, parts=1, base_version=5)
        >>> text = metrics.exposition().decode()
        >>> 'edgebroker_applied_dense_bytes_total{task="har"} 4000.0' in text, metrics.ready()
        (True, 'not connected to the MQTT broker')
        >>> metrics.answered("har", "refused", "stale"); metrics.kept("har", "pi-7", 10)
        >>> metrics.answers("har"), metrics.density("har", "pi-7"), metrics.dense_bytes("har")
        ({('refused', 'stale'): 1}, 0.01, 4000)
    """

    listens = True

    def __init__(self, disk: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.monotonic) -> None:
        self.fleet = Fleet(clock=clock)
        self._disk, self._clock = disk, clock
        self._turned_s, self._writable, self._up = clock(), True, False
        self._uncounted, self._uncounted_since_s = 0, clock()
        self._backlog, self._reading = Backlog(), threading.Lock()
        self._mqtt = MqttHealth(clock)
        self._dense: dict[str, int] = {}
        self._kept: dict[tuple[str, str], int] = {}
        self.series = Series(self._scraped)
        # labels() takes as long as a count does, so what a frame needs is looked up once.
        self._answers: dict[tuple[str, str, str], Counter] = {}
        self._applied: dict[str, tuple[Counter, Counter, Histogram]] = {}
        self._current: dict[str, int] = {}
        self._held: dict[str, str] = {}
        self._age_s: dict[str, float] = {}
        for reason in (*REASONS, _OTHER):
            self.series.rejected.labels(reason)

    # Told by the service

    def task(self, task: str, dense_bytes: int) -> None:
        counts = self.series
        self._dense[task] = dense_bytes
        self._applied[task] = (
            counts.frame_bytes.labels(task),
            counts.dense_bytes.labels(task),
            counts.staleness.labels(task),
        )
        # From 0 on, or the first of a kind would be no increase for an alert.
        counts.held.labels(task)
        for verdict, reason in _ANSWERS:
            counts.admissions.labels(task, verdict, reason)

    def ended(self, task: str) -> None:
        """What was counted stays; what is no longer so goes."""
        now = self.series
        for gauge in (
            now.version,
            now.created,
            now.evaluated,
            now.waiting,
            now.metric,
            now.rests,
            now.wrong,
            now.served,
        ):
            for sample in [each for family in gauge.collect() for each in family.samples]:
                if sample.labels["task"] == task:
                    gauge.remove(*sample.labels.values())
        self.fleet.end(task)

    def rests(self, task: str, *, rests: bool) -> None:
        self.series.rests.labels(task).set(rests)

    def learns(self, task: str, wrong: str) -> None:
        for kind in KINDS:
            self.series.wrong.labels(task, kind).set(kind == wrong)

    def asks(self, url: Callable[[], str]) -> None:
        self._mqtt.url = url

    def turned(self, *, writable: bool, uncounted: int = 0) -> None:
        self._turned_s, self._writable = self._clock(), writable
        if not self._uncounted or not uncounted:
            self._uncounted_since_s = self._turned_s
        self._uncounted = uncounted
        if not uncounted:
            self._read(_IDLE)

    def connected(self, *, up: bool) -> None:
        """What devices said is told again by the broker."""
        self._up = up
        if up:
            self._backlog.clear()
            self.fleet.connected()

    def heard(self, topic: str, payload: bytes) -> bool:
        """Statuses are put aside until the service is idle or somebody scrapes."""
        if topic.split("/", 5)[3:4] == ["status"]:
            if len(payload) > MAX_STATUS_BYTES:
                self.rejected("too-large")
                return True
            if self._backlog.full:
                self._read(_IDLE)
            self._backlog.put(topic, payload)
            return True
        return self._mqtt.hear(topic, payload)

    def uploaded(self, size: int) -> None:
        self.series.uploaded.inc(size)

    def rejected(self, reason: str) -> None:
        """A reason that nobody knows is "other"."""
        self.series.rejected.labels(reason if reason in REASONS else _OTHER).inc()

    def committed(self, seconds: float) -> None:
        self.series.commit.observe(seconds)

    def answered(self, task: str, verdict: str, reason: str) -> None:
        key = (task, verdict, reason)
        counter = self._answers.get(key)
        if counter is None:
            counter = self._answers[key] = self.series.admissions.labels(*key)
        counter.inc()

    def applied(self, task: str, size: int, parts: int, base_version: int) -> None:
        """All parts of an update together are one dense update."""
        frame_bytes, dense_bytes, staleness = self._applied[task]
        frame_bytes.inc(size)
        dense_bytes.inc(self._dense[task] / parts)
        staleness.observe(max(0, self._current[task] - base_version))

    def kept(self, task: str, device: str, entries: int) -> None:
        if len(self._kept) < MAX_DEVICES or (task, device) in self._kept:
            self._kept[task, device] = entries

    def waits(self, task: str, updates: int, age_s: float) -> None:
        self.series.waiting.labels(task).set(updates)
        self._age_s[task] = age_s

    def version(self, task: str, number: int, created_s: float) -> None:
        self._current[task] = number
        self._held.pop(task, None)
        self.series.version.labels(task).set(number)
        self.series.created.labels(task).set(created_s)

    def held(self, task: str, number: int, why: str) -> None:
        """Told until the next version that is not."""
        self.series.held.labels(task).inc()
        self._held[task] = f"version {number} is held back: {why}"

    def closed(self, task: str) -> None:
        age_s = self._age_s[task]
        if math.isfinite(age_s):  # it is not when the clock was set back
            self.series.round.labels(task).observe(age_s)

    def evaluated(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            self.series.evaluated.labels(task).set(number)
        for metric, value in metrics.items():
            self.series.metric.labels(task, metric).set(value)

    def served(self, task: str, *, yes: bool) -> None:
        self.series.served.labels(task).set(yes)

    def met(self, task: str, contact: str) -> None:
        self.series.met.labels(task, contact).inc()

    def lost(self, frames: int) -> None:
        self.series.lost.inc(frames)

    # Statuses

    @property
    def unread(self) -> int:
        """Devices whose newest status nobody has looked at yet."""
        return len(self._backlog)

    def look(self) -> None:
        """Look at all that was put aside: somebody wants to see the fleet. 10,000 take 0.3 s, once."""
        for _ in range(0, len(self._backlog), _IDLE):
            self._read(_IDLE)  # piece by piece, since the service may want to look, too

    def _read(self, most: int) -> None:
        """Look at so many statuses; what cannot be read is a rejected message."""
        with self._reading:
            for topic, payload in self._backlog.take(most):
                try:
                    self.fleet.hear(topic, payload)
                except WireError as error:
                    self.rejected(error.reason)

    # Asked by a scrape

    def exposition(self) -> bytes:
        """The text format of Prometheus, version 0.0.4."""
        return generate_latest(self.series.registry)

    def healthy(self) -> str:
        """Empty when the service turns, else what is wrong: it should be restarted."""
        stuck_s = self._clock() - self._turned_s
        return f"no turn for {stuck_s:.0f} s" if stuck_s > STUCK_S else ""

    def held_back(self, task: str) -> str:
        """The newest version, if the fleet does not see it, and why; else ""."""
        return self._held.get(task, "")

    def ready(self) -> str:
        """Empty when uploads are counted and answered, else why not."""
        if not self._up:
            return "not connected to the MQTT broker"
        return self.healthy() or ("" if self._writable else "the ledger or the registry cannot be written")

    def _scraped(self) -> Iterator[Metric]:
        """What is not counted as it happens: devices by their last words, the MQTT broker's, and how the service is."""
        self._read(_SCRAPE)
        yield from series.of_fleet({task: self.summary(task) for task in self.fleet.tasks()}, self.fleet.left_out)
        yield from series.of_service(
            disk=self._disk(),
            uncounted=self._uncounted,
            uncounted_s=self._clock() - self._uncounted_since_s if self._uncounted else 0.0,
            connected=self._up,
            writable=self._writable,
        )
        yield from series.of_mqtt(self._mqtt.told(), self._mqtt.age_s())

    # Asked by the page

    def summary(self, task: str) -> Summary:
        """How the devices of a task are, as far as they were looked at: 10,000 take 15 ms."""
        return summary(self.fleet.devices(task).values(), self._clock())

    def answers(self, task: str) -> dict[tuple[str, str], int]:
        """Those of the ledger, by verdict and reason."""
        counted = series.values(self.series.admissions)
        return {(verdict, reason): count for (name, verdict, reason), count in counted.items() if name == task}

    def unreadable(self) -> dict[str, int]:
        """Messages that were dropped, by reason."""
        return {reason: count for (reason,), count in series.values(self.series.rejected).items()}

    def upload_bytes(self) -> int:
        """Everything that has come on `up`, resends included."""
        return sum(series.values(self.series.uploaded).values())

    def dense_bytes(self, task: str) -> int:
        """What an update of the task would take as dense float32."""
        return self._dense.get(task, 0)

    def density(self, task: str, device: str) -> float | None:
        """The fraction of the coordinates that the device's last update kept; None before the first."""
        entries = self._kept.get((task, device))
        return None if entries is None else min(1.0, entries / max(1, self._dense[task] // 4))
