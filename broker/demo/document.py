"""A report for people: report.html, which a phone can show, and the terminal's last lines.

Texts have the names of figures in braces; that of the page is document.html.
"""

import re
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

from broker.demo.plan import TASK
from broker.demo.report import adds_up
from broker.monitor.text import size

_CLOSING: Final = """\
accuracy on people never seen: {accuracy_before} → {accuracy_after} (always the most common class: {majority_baseline})
up: {uplink_bytes:size}, {reduction:times} times fewer than the same updates as dense float32 ({dense_bytes:size})
down: {downlink_bytes:size}, of which {first_fetch_bytes:size} are the first fetch and {receipt_bytes:size} receipts
both, headers included: {socket_bytes:size}, {total_reduction:times} times fewer than dense float32 \
({total_dense_bytes:size}); {steady_reduction:times} times without the first fetch
frames: {frames_applied} applied, {frames_lost} lost, {frames_doubled} counted twice, {frames_waiting} still waiting
the law of conservation {law} for {devices} devices; {versions_remade} of {versions} versions made again bit for bit"""
_GOOD: Final = (
    "Nothing was lost and nothing counted twice: all {frames_applied} uploads of {devices} devices count once,"
    " although {kills} processes were killed without warning."
)
_BAD: Final = (
    "The account does not add up: {frames_lost} uploads are lost, {frames_doubled} are counted twice, and the law of"
    " conservation {law}."
)
_ASKED_FOR: Final = " That is what --sabotage {sabotage} asked for: a broken promise must show."
_FIGURE: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")


def fill(text: str, report: Mapping[str, Any]) -> str:
    """The text with a report's figures, each `{name}` or `{name:kind}`: whole, size, times or percent.

    Example:
        >>> fill("{up:size} of {all}, {a:times} or {b:times} times", {"up": 20_480, "all": None, "a": 3.62, "b": 319.4})
        '20.5 kB of ?, 3.6 or 319 times'
    """
    return _FIGURE.sub(lambda found: _KINDS[found[2] or ""](report[found[1]]), text)


def page(report: Mapping[str, Any], out: str) -> str:
    """The page, self-contained; `out` is the demo's folder, as a person would type it."""
    from broker.demo import charts  # noqa: PLC0415 (matplotlib takes a second)

    told = _told(report)
    parts = {
        "class": "good" if adds_up(report) else "bad",
        "verdict": escape(told["verdict"]),
        "chart_versions": charts.accuracy_by_version(report),
        "chart_bars": charts.bars(report),
        "chart_bytes": charts.accuracy_by_bytes(report),
        "happened": "".join(f"<li>{escape(event)}</li>" for event in report["events"] or ["Nothing was killed."]),
        "out": escape(out),
        "task": TASK,
    }
    return fill((files(__package__) / "document.html").read_text(encoding="utf-8"), told | parts)


def closing(report: Mapping[str, Any]) -> str:
    """The terminal's last lines: what happened, what was learned, what it cost in both directions, the account."""
    return "\n".join((*report["events"], fill(_CLOSING, _told(report))))


def _told(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with what the texts need beside its figures."""
    made = {
        **report,
        "law": "holds" if report["law_holds"] else "IS BROKEN",
        "model_bytes": max(0, report["downlink_bytes"] - report["first_fetch_bytes"] - report["receipt_bytes"]),
    }
    verdict = _GOOD if adds_up(report) else _BAD + (_ASKED_FOR if report["sabotage"] else "")
    return {**made, "verdict": fill(verdict, made)}


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if round(ratio, 1) >= 10 else f"{ratio:.1f}"


def _plain(value: float | str | None) -> str:
    if value is None:
        return "?"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


_KINDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "": _plain,
    "size": size,
    "times": _times,
    "whole": "{:,.0f}".format,
    "percent": lambda share: "?" if share is None else f"{100 * share:.3g} %",
}
