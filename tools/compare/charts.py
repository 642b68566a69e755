"""Accuracy over bytes, and distance to the optimum over rounds; matplotlib is imported here alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from broker.monitor.text import size

_WINDOW: Final = 5  # evaluations that a point of a curve is the mean of, for versions move by points
_DIRECTIONS: Final = (
    ("bytes sent by devices", ("uplink_bytes",)),
    ("both directions", ("uplink_bytes", "downlink_bytes")),
)


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """A chart of each task, as PNG."""
    made = []
    for task in dict.fromkeys(each["task"] for each in report["curves"]):
        path = folder / f"{task}.png"
        _save(_accuracy([each for each in report["curves"] if each["task"] == task]), path)
        made.append(path)
    if report["convergence"]:
        path = folder / "convex.png"
        _save(_distance(report["convergence"]), path)
        made.append(path)
    return made


def _accuracy(curves: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for axes, (label, keys) in zip(panels, _DIRECTIONS, strict=True):
        for at, curve in enumerate(curves):
            points = curve["points"][1:]  # version 0 has cost nothing
            places = [sum(point[key] for key in keys) for point in points]
            accuracies = _smooth([point["metrics"]["accuracy"] for point in points])
            axes.plot(
                places, accuracies, color=colors[at % len(colors)], linestyle="-" if at < len(colors) else "--",
                linewidth=1.2, label=curve["scheme"],
            )  # fmt: skip
        axes.set(xlabel=f"{label}, whole fleet", xscale="log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: size(count)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _plain(axes)
    panels[0].set_ylabel(f"accuracy, mean of {_WINDOW} evaluations")
    figure.suptitle(str(curves[0]["task"]))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _distance(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        versions = [version for version, gap in row["gaps"].items() if gap > 0]
        axes.plot(versions, [row["gaps"][version] for version in versions], linewidth=1.2, label=row["scheme"])
    axes.set(xlabel="rounds", ylabel="loss above the least one", yscale="log")
    _plain(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _smooth(values: Sequence[float]) -> list[float]:
    """Each the mean of the last few up to it."""
    return [float(np.mean(values[max(0, at + 1 - _WINDOW) : at + 1])) for at in range(len(values))]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
