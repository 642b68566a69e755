"""A report in sentences: texts with the names of figures in braces, filled in for people."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

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
        >>> fill("{up:size} of {all}, {ratio:times} times", {"up": 20_480, "all": None, "ratio": 3.62})
        '20.5 kB of ?, 3.6 times'
    """
    return _FIGURE.sub(lambda found: _KINDS[found[2] or ""](report[found[1]]), text)


def told(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with what sentences need beside its figures."""
    made = {
        **report,
        "law": "holds" if report["law_holds"] else "IS BROKEN",
        "model_bytes": max(0, report["downlink_bytes"] - report["first_fetch_bytes"] - report["receipt_bytes"]),
    }
    verdict = _GOOD if adds_up(report) else _BAD + (_ASKED_FOR if report["sabotage"] else "")
    return {**made, "verdict": fill(verdict, made)}


def closing(report: Mapping[str, Any]) -> str:
    """The terminal's last lines: what happened, what was learned, what it cost in both directions, the account."""
    return "\n".join((*report["events"], fill(_CLOSING, told(report))))


def times(ratio: float) -> str:
    """A ratio for people.

    Example:
        >>> times(319.4), times(3.62)
        ('319', '3.6')
    """
    return f"{ratio:,.0f}" if round(ratio, 1) >= 10 else f"{ratio:.1f}"


def _plain(value: float | str | None) -> str:
    if value is None:
        return "?"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


_KINDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "": _plain,
    "size": size,
    "times": times,
    "whole": "{:,.0f}".format,
    "percent": lambda share: "?" if share is None else f"{100 * share:.3g} %",
}
