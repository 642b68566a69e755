"""Learning curves over versions and over bytes; matplotlib, an extra, is imported here and where bars are drawn."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from broker.monitor.text import size

UP, DOWN, DENSE = "#0b6b4f", "#1f5fae", "#8a5a00"
_COLORS: Final = (UP, DOWN, DENSE)
# Place and worth of each version, by what the curve is called.
Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]


def by_version(curves: Curves, majority: float | None, measure: str = "accuracy") -> Figure:
    """Worth over model versions.

    Args:
        curves: three at most.
        majority: what a constant answer would reach; None where that is not known.
        measure: what is drawn.
    """
    figure, axes = _drawn(curves, majority, measure)
    axes.set(xlabel="model version")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def by_bytes(curves: Curves, majority: float | None, measure: str = "accuracy") -> Figure:
    """Worth over bytes that have travelled until then; arguments as of `by_version`."""
    some = {name: [each for each in curve if each[0]] for name, curve in curves.items()}
    figure, axes = _drawn(some, majority, measure)
    axes.set(xlabel="bytes of the whole fleet until then", xscale="log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: size(count)))
    return figure


def _drawn(curves: Curves, majority: float | None, measure: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set(ylabel=measure)
    if measure == "accuracy":
        axes.set(ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    if majority is not None:
        axes.axhline(majority, color="grey", linestyle="--", linewidth=1)
    for (name, curve), color in zip(curves.items(), _COLORS, strict=False):
        places, worth = [place for place, _ in curve], [each for _, each in curve]
        axes.plot(places, worth, color=color, marker="o", markersize=2.5, label=name)
    if len(curves) > 1:
        axes.legend(loc="upper left", fontsize=8)
    return figure, axes
