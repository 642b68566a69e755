"""Every Prometheus series of the aggregator, with its unit in its name.

prometheus-client is imported here and in families.py alone.

No label names a device, so that ten thousand of them cost the monitoring no more than ten. Written by the service's
thread, read by that of a scrape.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from broker.monitor.families import counts, gauge, spread
from broker.monitor.mqtt_health import MqttHealth
from broker.monitor.presence import AGES_S, DEPTHS, NORMS, Presence
from broker.monitor.unread import Unread
from broker.monitor.watch import Watch
from edgeclient.wire.errors import REASONS, WireError
from edgeclient.wire.limits import MAX_STATUS_BYTES
from edgeclient.wire.messages import Refusal

# A turn that aggregates a large model takes seconds; one that takes this long hangs.
STUCK_S: Final = 60.0
_OTHER: Final = "other"
# Statuses that are read at once, 20 us each: in an idle turn, and in a scrape, which shall take less than 0.1 s.
_IDLE: Final = 256
_SCRAPE: Final = 1000
_ANSWERS: Final = (
    ("applied", ""),
    ("duplicate", ""),
    ("withdrawn", Refusal.WITHDRAWN.reason),
    *(("refused", each.reason) for each in Refusal),
)
_STALENESS: Final = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
_ROUND_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10800)
_COMMIT_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs


class Metrics(Watch):
    """The watch that counts.

    Args:
        disk: bytes of the ledger (its log included) and of the registry, asked for at each scrape.
        clock: steady seconds.

    Example:
        >>> metrics = Metrics(disk=lambda: (4096, 0))
        >>> metrics.task("har", 4000)
        >>> metrics.version("har", 7, 1.7e9)
        >>> metrics.applied("har", 100, parts=1, base_version=5)
        >>> text = metrics.exposition().decode()
        >>> 'edgebroker_applied_dense_bytes_total{task="har"} 4000.0' in text, metrics.ready()
        (True, 'not connected to the MQTT broker')
    """

    listens = True

    def __init__(self, disk: Callable[[], tuple[int, int]], clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = made = CollectorRegistry()
        ProcessCollector(registry=made)
        made.register(_Seen(self, disk))
        task, name = ["task"], "edgebroker_{}".format
        self._clock = clock
        self._turned_s, self._writable, self._up = clock(), True, False
        self._uncounted, self._uncounted_since_s = 0, clock()
        self._presence = Presence(clock=clock)
        self._unread, self._reading = Unread(), threading.Lock()
        self._mqtt = MqttHealth(clock)
        self._dense: dict[str, int] = {}
        # labels() takes as long as a count does, so what a frame needs is looked up once.
        self._answers: dict[tuple[str, str, str], Counter] = {}
        self._applied: dict[str, tuple[Counter, Counter, Histogram]] = {}
        self._current: dict[str, int] = {}
        self._age_s: dict[str, float] = {}
        self._admissions = Counter(
            name("admissions_total"),
            "Answers of the ledger to frames and withdrawals; reason is empty unless refused or withdrawn.",
            ["task", "verdict", "reason"],
            registry=made,
        )
        self._rejected = Counter(
            name("rejected_messages_total"), "Messages that could not be read.", ["reason"], registry=made
        )
        self._uploaded = Counter(name("upload_bytes_total"), "Payload bytes on up, resends included.", registry=made)
        self._frame_bytes = Counter(name("applied_frame_bytes_total"), "Bytes of applied frames.", task, registry=made)
        self._dense_bytes = Counter(
            name("applied_dense_bytes_total"), "What applied frames would take as dense float32.", task, registry=made
        )
        self._lost = Counter(
            name("lost_to_restore_frames_total"), "Frames that a restored ledger does not know.", registry=made
        )
        self._staleness = Histogram(
            name("staleness_versions"),
            "Versions between an applied frame's base and the current one.",
            task,
            buckets=_STALENESS,
            registry=made,
        )
        self._round = Histogram(
            name("round_seconds"),
            "From the first update of a batch to its version.",
            task,
            buckets=_ROUND_S,
            registry=made,
        )
        self._commit = Histogram(
            name("commit_seconds"), "One transaction of admissions.", buckets=_COMMIT_S, registry=made
        )
        self._version = Gauge(name("model_version"), "Current version.", task, registry=made)
        self._created = Gauge(
            name("model_version_created_timestamp_seconds"), "When it was made (Unix seconds).", task, registry=made
        )
        self._evaluated = Gauge(
            name("model_evaluated_version"), "Version that the metrics are of.", task, registry=made
        )
        self._metric = Gauge(
            name("model_metric"), "What the evaluated version is worth.", ["task", "metric"], registry=made
        )
        self._waiting = Gauge(name("updates_waiting"), "Updates that wait for the next version.", task, registry=made)

        for reason in (*REASONS, _OTHER):
            self._rejected.labels(reason)

    # Told by the service

    def task(self, task: str, dense_bytes: int) -> None:
        """See Watch."""
        self._dense[task] = dense_bytes
        self._applied[task] = (
            self._frame_bytes.labels(task),
            self._dense_bytes.labels(task),
            self._staleness.labels(task),
        )
        # From 0 on, or the first of a kind would be no increase for an alert.
        for verdict, reason in _ANSWERS:
            self._admissions.labels(task, verdict, reason)

    def asks(self, url: Callable[[], str]) -> None:
        """See Watch."""
        self._mqtt.url = url

    def turned(self, *, writable: bool, uncounted: int = 0) -> None:
        """See Watch."""
        self._turned_s, self._writable = self._clock(), writable
        if not self._uncounted or not uncounted:
            self._uncounted_since_s = self._turned_s
        self._uncounted = uncounted
        if not uncounted:
            self._read(_IDLE)

    def connected(self, *, up: bool) -> None:
        """See Watch; what devices said is told again by the broker."""
        self._up = up
        if up:
            self._unread.clear()
            self._presence.forget()

    def heard(self, topic: str, payload: bytes) -> bool:
        """See Watch; statuses are put aside until the service is idle or somebody scrapes."""
        if topic.split("/", 5)[3:4] == ["status"]:
            if len(payload) > MAX_STATUS_BYTES:
                self.rejected("too-large")
                return True
            if self._unread.full:
                self._read(_IDLE)
            self._unread.put(topic, payload)
            return True
        return self._mqtt.hear(topic, payload)

    @property
    def unread(self) -> int:
        """Devices whose newest status nobody has looked at yet."""
        return len(self._unread)

    def _read(self, most: int) -> None:
        """Look at so many statuses; what cannot be read is a rejected message."""
        with self._reading:
            for topic, payload in self._unread.take(most):
                try:
                    self._presence.hear(topic, payload)
                except WireError as error:
                    self.rejected(error.reason)

    def uploaded(self, size: int) -> None:
        """See Watch."""
        self._uploaded.inc(size)

    def rejected(self, reason: str) -> None:
        """See Watch; a reason that nobody knows is "other"."""
        self._rejected.labels(reason if reason in REASONS else _OTHER).inc()

    def committed(self, seconds: float) -> None:
        """See Watch."""
        self._commit.observe(seconds)

    def answered(self, task: str, verdict: str, reason: str) -> None:
        """See Watch."""
        key = (task, verdict, reason)
        counter = self._answers.get(key)
        if counter is None:
            counter = self._answers[key] = self._admissions.labels(*key)
        counter.inc()

    def applied(self, task: str, size: int, parts: int, base_version: int) -> None:
        """See Watch; all parts of an update together are one dense update."""
        frame_bytes, dense_bytes, staleness = self._applied[task]
        frame_bytes.inc(size)
        dense_bytes.inc(self._dense[task] / parts)
        staleness.observe(max(0, self._current[task] - base_version))

    def waits(self, task: str, updates: int, age_s: float) -> None:
        """See Watch."""
        self._waiting.labels(task).set(updates)
        self._age_s[task] = age_s

    def version(self, task: str, number: int, created_s: float) -> None:
        """See Watch."""
        self._current[task] = number
        self._version.labels(task).set(number)
        self._created.labels(task).set(created_s)

    def closed(self, task: str) -> None:
        """See Watch."""
        age_s = self._age_s[task]
        if math.isfinite(age_s):  # it is not when the clock was set back
            self._round.labels(task).observe(age_s)

    def evaluated(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        """See Watch."""
        if metrics:
            self._evaluated.labels(task).set(number)
        for metric, value in metrics.items():
            self._metric.labels(task, metric).set(value)

    def lost(self, frames: int) -> None:
        """See Watch."""
        self._lost.inc(frames)

    # Asked by a scrape

    def exposition(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self.registry)

    def healthy(self) -> str:
        """Empty when the service turns, else what is wrong: it should be restarted."""
        stuck_s = self._clock() - self._turned_s
        return f"no turn for {stuck_s:.0f} s" if stuck_s > STUCK_S else ""

    def ready(self) -> str:
        """Empty when uploads are counted and answered, else why not."""
        if not self._up:
            return "not connected to the MQTT broker"
        return self.healthy() or ("" if self._writable else "the ledger or the registry cannot be written")

    def seen(self) -> Iterator[Metric]:
        """What is not counted as it happens: devices by their last words, the MQTT broker's, and how the service is."""
        self._read(_SCRAPE)
        devices = self._presence.summary()
        yield counts("devices", "Devices by what they last said.", "state", devices.devices)
        yield counts("devices_doing", "Connected devices by what they do or wait for.", "doing", devices.doings)
        yield counts("silent_devices", "Devices silent for an hour, by likely reason.", "reason", devices.silent)
        yield counts("outbox_frames", "Frames on devices, as they report them.", "stage", devices.outbox)
        yield spread("device_outbox_frames", "Frames on a device.", DEPTHS, devices.depths)
        yield spread("device_oldest_frame_seconds", "Age of the oldest frame on a device.", AGES_S, devices.ages)
        yield spread("device_residual_norm", "Euclidean norm of a device's residual.", NORMS, devices.norms)
        yield CounterMetricFamily(
            "edgebroker_statuses_left_out",
            "Statuses of devices beyond the most that are kept.",
            value=self._presence.left_out,
        )
        lag_s = self._clock() - self._uncounted_since_s if self._uncounted else 0.0
        yield gauge("uncounted_messages", "Messages that wait in the aggregator to be counted.", self._uncounted)
        yield gauge("uncounted_seconds", "Since when some wait without a break: none is older.", lag_s)
        yield gauge("mqtt_connected", "1: listens on the MQTT broker.", self._up)
        yield gauge("writable", "1: there is room on the disk.", self._writable)
        told = self._mqtt.told()
        for name, (kind, text) in _MQTT.items():
            yield kind(f"edgebroker_mqtt_{name}", text, value=told.get(name))
        yield gauge("mqtt_told_age_seconds", "How long ago the MQTT broker told the above.", self._mqtt.age_s())


# Figures of the MQTT broker, as far as it tells them.
_MQTT: Final[dict[str, tuple[Callable[..., Metric], str]]] = {
    "uptime_seconds": (GaugeMetricFamily, "Since the MQTT broker started (Mosquitto)."),
    "clients": (GaugeMetricFamily, "Its connections."),
    "received_messages": (CounterMetricFamily, "Messages it has received from all clients."),
    "sent_messages": (CounterMetricFamily, "Messages it has sent to all clients."),
    "dropped_messages": (CounterMetricFamily, "Messages it has dropped, queues being full (Mosquitto)."),
    "slow_consumers": (CounterMetricFamily, "Clients it has cut off for being too slow (NATS)."),
    "stored_bytes": (GaugeMetricFamily, "Messages it keeps."),
}


class _Seen(Collector):
    """Reads at the time of a scrape."""

    def __init__(self, metrics: Metrics, disk: Callable[[], tuple[int, int]]) -> None:
        self._metrics = metrics
        self._disk = disk

    def describe(self) -> Iterator[Metric]:
        """Of nothing: their names are asked for while the metrics are still being made."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every family, those without a sample included."""
        ledger, registry = self._disk()
        yield GaugeMetricFamily("edgebroker_ledger_bytes", "Size of the ledger and its log.", value=ledger)
        yield GaugeMetricFamily("edgebroker_registry_bytes", "Size of models and bundles.", value=registry)
        yield from self._metrics.seen()
