"""The learning curves of a dry run as PNG, where matplotlib is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.simulate.crew import Outcome
from broker.simulate.rehearsal import CONFIRM, Rehearsal, Step
from broker.simulate.trial import Point

BY_VERSION, BY_BYTES = "by-version.png", "by-bytes.png"


def draw(rehearsal: Rehearsal, parameters: int, folder: Path) -> str:
    """Write worth over versions, of what was given and what is recommended, and over bytes in both directions.

    Args:
        rehearsal: what is known.
        parameters: n.
        folder: is there.

    Returns:
        What keeps it from being drawn; "" for nothing.
    """
    try:
        from broker.monitor import charts  # noqa: PLC0415 (an extra, and half a second to load)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        return "no charts: they need matplotlib: pip install '.[demo]' in the clone"
    best, given = rehearsal.outcomes[rehearsal.best], rehearsal.outcomes.get(Step(rehearsal.given, CONFIRM))
    first = best.points[0].metrics if best.points else {}
    measure, majority = "accuracy" if "accuracy" in first else "loss", first.get("majority")
    shown = {"recommended": best} if given in {None, best} else {"recommended": best, "as it is": given}
    versions = {name: _curve(each, measure, lambda point: point.version) for name, each in shown.items() if each}
    travelled = {
        "sent by devices": _curve(best, measure, lambda point: point.uplink_bytes),
        "received by devices": _curve(best, measure, lambda point: point.downlink_bytes),
        "sent, if it were dense": _curve(best, measure, lambda point: 4 * parameters * point.updates),
    }
    charts.by_version(versions, majority, measure).savefig(folder / BY_VERSION, dpi=150)
    charts.by_bytes(travelled, majority, measure).savefig(folder / BY_BYTES, dpi=150)
    return ""


def _curve(outcome: Outcome, measure: str, place: Callable[[Point], Any]) -> list[tuple[float, float]]:
    return [(place(each), each.metrics[measure]) for each in outcome.points if measure in each.metrics]
