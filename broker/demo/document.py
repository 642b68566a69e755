"""report.html: one self-contained page that a phone can show; its text is document.html."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from broker.demo import charts, sentences
from broker.demo.report import adds_up


def page(report: Mapping[str, Any], out: str) -> str:
    """The page.

    Args:
        report: as in report.json.
        out: the demo's folder, as a person would type it.
    """
    told = sentences.told(report)
    events = report["events"] or ["Nothing was killed."]
    parts = {
        "class": "good" if adds_up(report) else "bad",
        "verdict": escape(told["verdict"]),
        "chart_versions": charts.accuracy_by_version(report),
        "chart_bars": charts.bars(report),
        "chart_bytes": charts.accuracy_by_bytes(report),
        "happened": "".join(f"<li>{escape(event)}</li>" for event in events),
        "out": escape(out),
    }
    return sentences.fill((files(__package__) / "document.html").read_text(), told | parts)
