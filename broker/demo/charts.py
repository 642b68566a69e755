"""Charts of one run as SVG, narrow enough for a phone; matplotlib is imported here alone."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "edgeclient"
mpl.rcParams["font.size"] = 11  # as large on a phone as the text beside it

from matplotlib.axes import Axes  # noqa: E402 (the backend is chosen first)
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402

from broker.monitor.text import size  # noqa: E402

_UP, _DOWN, _DENSE = "#0b6b4f", "#1f5fae", "#8a5a00"
# Of matplotlib's groups; several charts on one page would repeat them.
_NAMES: Final = re.compile(r' id="[A-Za-z0-9.]+_\d+"')


def accuracy_by_version(report: Mapping[str, Any]) -> str:
    """Accuracy on people never seen over model versions."""
    points = _evaluated(report)
    figure, axes = _axes(report)
    axes.plot([each["version"] for each in points], _accuracies(points), color=_UP, marker="o", markersize=2.5)
    axes.set(xlabel="model version")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, "Accuracy by model version")


def accuracy_by_bytes(report: Mapping[str, Any]) -> str:
    """The same over bytes that have travelled until then, in each direction."""
    points = _evaluated(report)
    figure, axes = _axes(report)
    for key, color, label in (
        ("uplink_bytes", _UP, "sent by devices"),
        ("downlink_bytes", _DOWN, "received by devices"),
        ("dense_bytes", _DENSE, "sent, if it were dense"),
    ):
        some = [each for each in points if each[key]]
        axes.plot([each[key] for each in some], _accuracies(some), color=color, marker="o", markersize=2.5, label=label)
    axes.set(xlabel="bytes of the whole fleet until then", xscale="log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: size(count)))
    axes.legend(loc="upper left", fontsize=8)
    return _svg(figure, "Accuracy by bytes in both directions")


def bars(report: Mapping[str, Any]) -> str:
    """What travelled beside what dense float32 would take."""
    rows = (
        ("sent by devices", report["uplink_bytes"], _UP),
        ("the same, dense", report["dense_bytes"], _DENSE),
        ("both directions", report["socket_bytes"], _DOWN),
        ("the same, dense", report["total_dense_bytes"], _DENSE),
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


def _axes(report: Mapping[str, Any]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set(ylabel="accuracy", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    if report["majority_baseline"] is not None:
        axes.axhline(report["majority_baseline"], color="grey", linestyle="--", linewidth=1)
    return figure, axes


def _evaluated(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in report["curve"] if each["accuracy"] is not None]


def _accuracies(points: Sequence[Mapping[str, Any]]) -> list[float]:
    return [each["accuracy"] for each in points]


def _svg(figure: Figure, title: str) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = _NAMES.sub("", drawn.getvalue())
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
