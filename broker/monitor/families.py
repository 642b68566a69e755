"""Metric families that are worked out at a scrape; their names and texts are in metrics.py."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from broker.monitor.presence import Spread


def gauge(name: str, text: str, value: float | None) -> Metric:
    """One value; without a sample where there is none."""
    return GaugeMetricFamily(f"edgebroker_{name}", text, value=value)


def counts(name: str, text: str, label: str, by: Mapping[tuple[str, str], int]) -> Metric:
    """Gauges by task and one more label."""
    family = GaugeMetricFamily(f"edgebroker_{name}", text, labels=["task", label])
    for labels, count in by.items():
        family.add_metric(labels, count)
    return family


def spread(name: str, text: str, bounds: Sequence[float], spreads: Mapping[str, Spread]) -> Metric:
    """A histogram by task, of values that may fall again; `bounds` but for infinity."""
    family = GaugeHistogramMetricFamily(f"edgebroker_{name}", text, labels=["task"])
    named = [*(str(float(bound)) for bound in bounds), "+Inf"]
    for task, each in spreads.items():
        family.add_metric([task], list(zip(named, accumulate(each.counts), strict=True)), each.total)
    return family
