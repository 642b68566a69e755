"""A self-contained HTML page with charts of one run; matplotlib is imported here alone."""

import html
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "edgeclient"

from matplotlib.axes import Axes  # noqa: E402 (the backend is chosen first)
from matplotlib.figure import Figure  # noqa: E402

from broker.monitor.text import size  # noqa: E402

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } table { border-collapse: collapse }
td, th { text-align: left; padding: .15rem 1.5rem .15rem 0 }
.good { color: #0a7d36 } .bad { color: #b3261e; font-weight: bold } svg { width: 100%; height: auto }
"""


def page(report: dict[str, Any], events: Sequence[str]) -> str:
    """The page.

    Args:
        report: as in report.json; `curve` is a list of {version, seconds, accuracy, uplink_bytes, dense_bytes}.
        events: notable moments, oldest first.
    """
    rows = "".join(f"<tr><th>{html.escape(key)}</th><td>{_shown(value)}</td></tr>" for key, value in _summary(report))
    told = "".join(f"<li>{html.escape(event)}</li>" for event in events)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>edgeclient demo</title><style>{_STYLE}</style>'
        f"<h1>What the fleet learned, and what it cost</h1>{_verdict(report)}"
        f"<table>{rows}</table>{_charts(report)}<h2>What happened</h2><ul>{told}</ul></html>\n"
    )


def _verdict(report: dict[str, Any]) -> str:
    good = report["law_holds"] and not report["frames_lost"] and not report["frames_doubled"]
    text = (
        f"{report['frames_applied']} frames applied, {report['frames_lost']} lost, {report['frames_doubled']} counted"
        f" twice; the law of conservation {'holds' if report['law_holds'] else 'is broken'}."
    )
    return f'<p class="{"good" if good else "bad"}">{text}</p>'


def _summary(report: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = []
    for key, value in report.items():
        if isinstance(value, list | dict):
            continue
        shown.append((key, size(value) if key.endswith("_bytes") else value))
    return shown


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))


def _charts(report: dict[str, Any]) -> str:
    curve = report["curve"]
    figure = Figure(figsize=(9, 9), layout="constrained")
    accuracy, volume, bars = figure.subplots(3, 1, height_ratios=[3, 3, 1.2])
    evaluated = [each for each in curve if each["accuracy"] is not None]
    accuracy.plot([e["version"] for e in evaluated], [e["accuracy"] for e in evaluated], marker="o", markersize=3)
    accuracy.axhline(report["majority_baseline"], color="grey", linestyle="--", label="always the most common class")
    accuracy.set(xlabel="model version", ylabel="accuracy", ylim=(0, 1), title="Accuracy on people never seen")
    accuracy.legend(loc="lower right")
    paid = [each for each in curve if each["dense_bytes"] and each["uplink_bytes"]]
    versions = [each["version"] for each in paid]
    volume.plot(versions, [each["dense_bytes"] for each in paid], label="the same updates as dense float32")
    volume.plot(versions, [each["uplink_bytes"] for each in paid], label="uploaded, resends included")
    volume.set(xlabel="model version", ylabel="bytes", yscale="log", title="Bytes uploaded by the fleet")
    volume.legend(loc="lower right")
    _bars(bars, report)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _bars(axes: Axes, report: dict[str, Any]) -> None:
    values = [report["uplink_bytes"], report["dense_bytes"]]
    drawn = axes.barh(["uploaded", "dense float32"], values, color=["tab:orange", "tab:blue"])
    axes.bar_label(drawn, labels=[size(value) for value in values], padding=4)
    axes.set(title=f"{report['reduction']:.0f} times fewer bytes", xlim=(0, max(values) * 1.15 or 1))
    axes.xaxis.set_visible(False)
