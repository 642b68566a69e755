"""Every Prometheus series of the aggregator, with its unit in its name.

No label names a device, so that ten thousand of them cost the monitoring no more than ten.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from operator import attrgetter
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from broker.monitor.summary import Spread, Summary

_STALENESS: Final = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
_ROUND_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10800)
_COMMIT_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs


class Series(Collector):
    """What is counted as it happens, an attribute each, and what `scraped` works out."""

    def __init__(self, scraped: Callable[[], Iterator[Metric]]) -> None:
        self.registry = CollectorRegistry()
        self._scraped = scraped
        ProcessCollector(registry=self.registry)
        self.registry.register(self)
        self.admissions = self._counter(
            "admissions",
            "Answers of the ledger to frames and withdrawals; reason is empty unless refused or withdrawn.",
            *("task", "verdict", "reason"),
        )
        self.rejected = self._counter("rejected_messages", "Messages that could not be read.", "reason")
        self.uploaded = self._counter("upload_bytes", "Payload bytes on up, resends included.")
        self.frame_bytes = self._counter("applied_frame_bytes", "Bytes of applied frames.", "task")
        self.dense_bytes = self._counter(
            "applied_dense_bytes", "What applied frames would take as dense float32.", "task"
        )
        self.lost = self._counter("lost_to_restore_frames", "Frames that a restored ledger does not know.")
        self.staleness = self._histogram(
            "staleness_versions", "Versions between an applied frame's base and the current one.", _STALENESS, "task"
        )
        self.round = self._histogram(
            "round_seconds", "From the first update of a batch to its version.", _ROUND_S, "task"
        )
        self.commit = self._histogram("commit_seconds", "One transaction of admissions.", _COMMIT_S)
        self.version = self._gauge("model_version", "Current version.", "task")
        self.created = self._gauge(
            "model_version_created_timestamp_seconds", "When it was made (Unix seconds).", "task"
        )
        self.evaluated = self._gauge("model_evaluated_version", "Version that the metrics are of.", "task")
        self.metric = self._gauge("model_metric", "What the evaluated version is worth.", "task", "metric")
        self.held = self._counter("versions_held", "Versions held back: the fleet does not see them.", "task")
        self.rests = self._gauge("rests", "1: no version is made before new data comes, as the task asks.", "task")
        self.wrong = self._gauge(
            "learning_wrong", "1: the learning curve shows it, as edgebroker status tells.", *("task", "kind")
        )
        self.served = self._gauge("task_served", "1 while this aggregator serves it, 0 when another one does.", "task")
        self.met = self._counter("rivals", "Times that another aggregator had to do with a task.", "task", "contact")
        self.waiting = self._gauge("updates_waiting", "Updates that wait for the next version.", "task")

    def describe(self) -> Iterator[Metric]:
        """Of nothing: their names are asked for while the series are still being made."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every family that is worked out, those without a sample included."""
        yield from self._scraped()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"edgebroker_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"edgebroker_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"edgebroker_{name}", text, labels, buckets=bounds, registry=self.registry)


def values(counter: Counter) -> dict[tuple[str, ...], int]:
    """What a counter has counted, by its labels; without those that are 0."""
    samples = (sample for family in counter.collect() for sample in family.samples)
    return {tuple(sample.labels.values()): int(sample.value) for sample in samples if sample.value}


def of_fleet(fleets: Mapping[str, Summary], left_out: int) -> Iterator[Metric]:
    """Devices by their last words, by task; statuses of those for which there was no room."""
    yield _counts("devices", "Devices by what they last said.", "state", fleets, attrgetter("connections"))
    yield _counts(
        "devices_doing", "Connected devices by what they do or wait for.", "doing", fleets, attrgetter("doings")
    )
    yield _counts(
        "silent_devices", "Devices silent for an hour, by likely reason.", "reason", fleets, attrgetter("silent")
    )
    yield _counts("outbox_frames", "Frames on devices, as they report them.", "stage", fleets, attrgetter("outbox"))
    yield _spread("device_outbox_frames", "Frames on a device.", fleets, attrgetter("depths"))
    yield _spread("device_oldest_frame_seconds", "Age of the oldest frame on a device.", fleets, attrgetter("ages"))
    yield _spread("device_residual_norm", "Euclidean norm of a device's residual.", fleets, attrgetter("norms"))
    text = "Statuses of devices beyond the most that are kept."
    yield CounterMetricFamily("edgebroker_statuses_left_out", text, value=left_out)


def of_service(
    *, disk: tuple[int, int], uncounted: int, uncounted_s: float, connected: bool, writable: bool
) -> Iterator[Metric]:
    """How the aggregator is; `disk` is bytes of the ledger and of the registry."""
    ledger, registry = disk
    yield _value("ledger_bytes", "Size of the ledger and its log.", ledger)
    yield _value("registry_bytes", "Size of models and bundles.", registry)
    yield _value("uncounted_messages", "Messages that wait in the aggregator to be counted.", uncounted)
    yield _value("uncounted_seconds", "Since when some wait without a break: none is older.", uncounted_s)
    yield _value("mqtt_connected", "1: listens on the MQTT broker.", connected)
    yield _value("writable", "1: there is room on the disk.", writable)


def of_mqtt(told: Mapping[str, int], age_s: float | None) -> Iterator[Metric]:
    """Figures of the MQTT broker, as far as it tells them, and how old they are."""
    for name, (kind, text) in _MQTT.items():
        yield kind(f"edgebroker_mqtt_{name}", text, value=told.get(name))
    yield _value("mqtt_told_age_seconds", "How long ago the MQTT broker told the above.", age_s)


_MQTT: Final[dict[str, tuple[Callable[..., Metric], str]]] = {
    "uptime_seconds": (GaugeMetricFamily, "Since the MQTT broker started (Mosquitto)."),
    "clients": (GaugeMetricFamily, "Its connections."),
    "received_messages": (CounterMetricFamily, "Messages it has received from all clients."),
    "sent_messages": (CounterMetricFamily, "Messages it has sent to all clients."),
    "dropped_messages": (CounterMetricFamily, "Messages it has dropped, queues being full (Mosquitto)."),
    "slow_consumers": (CounterMetricFamily, "Clients it has cut off for being too slow (NATS)."),
    "stored_bytes": (GaugeMetricFamily, "Messages it keeps."),
}


def _value(name: str, text: str, value: float | None) -> Metric:
    """One value; without a sample where there is none."""
    return GaugeMetricFamily(f"edgebroker_{name}", text, value=value)


def _counts(
    name: str, text: str, label: str, fleets: Mapping[str, Summary], of: Callable[[Summary], Mapping[str, int]]
) -> Metric:
    family = GaugeMetricFamily(f"edgebroker_{name}", text, labels=["task", label])
    for task, fleet in fleets.items():
        for each, count in of(fleet).items():
            family.add_metric([task, each], count)
    return family


def _spread(name: str, text: str, fleets: Mapping[str, Summary], of: Callable[[Summary], Spread]) -> Metric:
    """A histogram of values that may fall again."""
    family = GaugeHistogramMetricFamily(f"edgebroker_{name}", text, labels=["task"])
    for task, fleet in fleets.items():
        each = of(fleet)
        bounds = [*(str(float(bound)) for bound in each.bounds), "+Inf"]
        if sum(each.counts):
            family.add_metric([task], list(zip(bounds, accumulate(each.counts), strict=True)), each.total)
    return family
