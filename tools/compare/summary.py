"""What the cells of a row come to. Pure functions of what the cells wrote."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from broker.monitor import measures
from tools.compare.plan import Row

TARGET: Final = 0.95  # of dense's late accuracy with the same seed
Outcome = Mapping[str, Any]


def summary(row: Row, found: Mapping[int, Outcome], dense: Mapping[int, Outcome]) -> dict[str, Any]:
    """A row of the tables.

    Args:
        row: which.
        found: what its cells wrote, by seed; without those that failed.
        dense: of the dense row on the same task, likewise.

    Returns:
        Values by column; deviations are those of single seeds, 0 for one; bytes are the mean over seeds of what the
        whole fleet had spent when a version first reached the target, and None if one of them never did.
    """
    runs, shared = list(found.values()), [seed for seed in found if seed in dense]
    told: dict[str, Any] = {"task": row.task, "scheme": row.label, "seeds": sorted(found)}
    if not runs:
        return told
    updates = [each["points"][-1]["updates"] for each in runs]
    told |= {"feedback": runs[0]["feedback"], **_accuracy("late", runs), **_accuracy("avg", runs)}
    told["by_seed"] = {name: {seed: each[name] for seed, each in found.items()} for name in ("late", "avg")}
    for name in ("late", "avg"):
        pairs = [(found[seed][name], dense[seed][name]) for seed in shared]
        gap = measures.paired(*zip(*pairs, strict=True)) if pairs and None not in pairs[0] else None
        told |= {f"{name}_gap": gap and gap.mean, f"{name}_gap_deviation": gap and gap.deviation}
    for name in ("update_bytes", "reduction", "steady_reduction", "total_reduction", "first_fetch_bytes", "cosine"):
        told[name] = _mean([each[name] for each in runs])
    for name, key in (("client_ms", "send_s"), ("server_ms", "server_s"), ("training_ms", "train_s")):
        told[name] = _mean([1000 * each[key] / count for each, count in zip(runs, updates, strict=True)])
    for name, keys in _DIRECTIONS.items():
        places = [_spent(found[seed], dense[seed]["late"], keys) for seed in shared if dense[seed]["late"] is not None]
        told[name] = _mean([each for each in places if each]) if places and None not in places else None
    return told


_DIRECTIONS: Final = {
    "target_uplink_bytes": ("uplink_bytes",),
    "target_downlink_bytes": ("downlink_bytes",),
    "target_bytes": ("uplink_bytes", "downlink_bytes"),
}


def convergence(row: Row, found: Outcome) -> dict[str, Any]:
    """Loss above the least one, by version."""
    gaps = {each["version"]: each["metrics"]["loss"] - found["least_loss"] for each in found["points"]}
    return {
        "task": row.task, "scheme": row.label, "update_bytes": found["update_bytes"],
        "gaps": {version: max(0.0, gap) for version, gap in gaps.items()},
    }  # fmt: skip


def _accuracy(name: str, runs: Sequence[Outcome]) -> dict[str, float | None]:
    values = [each[name] for each in runs]
    if None in values:
        return {name: None, f"{name}_deviation": None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {name: _mean(values), f"{name}_deviation": deviation}


def _spent(run: Outcome, late: float, keys: Sequence[str]) -> float | None:
    points = [(sum(each[key] for key in keys), each["metrics"]["accuracy"]) for each in run["points"]]
    return measures.reached(points, TARGET * late)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
