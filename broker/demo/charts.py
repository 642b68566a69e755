"""Charts of one run as SVG, narrow enough for a phone."""

import io
import re
from collections.abc import Mapping
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "edgeclient"
mpl.rcParams["font.size"] = 11  # as large on a phone as the text beside it

from matplotlib.figure import Figure  # noqa: E402 (the backend is chosen first)

from broker.monitor import charts  # noqa: E402
from broker.monitor.charts import DENSE, DOWN, UP  # noqa: E402
from broker.monitor.text import size  # noqa: E402

# Of matplotlib's groups; several charts on one page would repeat them.
_NAMES: Final = re.compile(r' id="[A-Za-z0-9.]+_\d+"')


def accuracy_by_version(report: Mapping[str, Any]) -> str:
    """Accuracy on people never seen over model versions."""
    figure = charts.by_version({"": _curve(report, "version")}, report["majority_baseline"])
    return _svg(figure, "Accuracy by model version")


def accuracy_by_bytes(report: Mapping[str, Any]) -> str:
    """The same over bytes that have travelled until then, in each direction."""
    curves = {
        "sent by devices": _curve(report, "uplink_bytes"),
        "received by devices": _curve(report, "downlink_bytes"),
        "sent, if it were dense": _curve(report, "dense_bytes"),
    }
    return _svg(charts.by_bytes(curves, report["majority_baseline"]), "Accuracy by bytes in both directions")


def bars(report: Mapping[str, Any]) -> str:
    """What travelled beside what dense float32 would take."""
    rows = (
        ("sent by devices", report["uplink_bytes"], UP),
        ("the same, dense", report["dense_bytes"], DENSE),
        ("both directions", report["socket_bytes"], DOWN),
        ("the same, dense", report["total_dense_bytes"], DENSE),
    )
    figure = Figure(figsize=(4.6, 1.9), layout="constrained")
    axes = figure.subplots()
    values = [value for _, value, _ in rows]
    drawn = axes.barh(range(len(rows)), values, color=[color for *_, color in rows])
    axes.bar_label(drawn, labels=[size(value) for value in values], padding=3)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, max(values) * 1.3 or 1))
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    return _svg(figure, "Bytes that travelled, beside dense float32")


def _curve(report: Mapping[str, Any], key: str) -> list[tuple[float, float]]:
    return [(each[key], each["accuracy"]) for each in report["curve"] if each["accuracy"] is not None]


def _svg(figure: Figure, title: str) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = _NAMES.sub("", drawn.getvalue())
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
