"""Everything that cells wrote, in one object: the tables, the curves, and what is missing."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tools.bench.report import host
from tools.compare import claims, summary
from tools.compare.cell import Cell
from tools.compare.methods import CONVEX, DENSE
from tools.compare.plan import Row, Scale, ahead, cells, rows, score_of, tuning


def scores(found: Mapping[Cell, Any]) -> dict[Cell, float]:
    """Of all cells that are done, whatever became of them."""
    return {cell: score_of(each.get("late"), each.get("avg")) for cell, each in found.items()}


def report(scale: Scale, found: Mapping[Cell, Any]) -> dict[str, Any]:
    """What the documents say.

    Args:
        scale: of the comparison.
        found: what cells wrote, those that failed included.
    """
    known = scores(found)

    def runs(row: Row) -> dict[int, Any]:
        wanted = {cell.seed: found.get(cell) for cell in cells(row, scale, known)}
        return {seed: each for seed, each in wanted.items() if each and "failed" not in each}

    compared, distances, tuned, curves = [], [], [], []
    for row in rows(scale):
        some = runs(row)
        if row.task == CONVEX:
            distances += [summary.convergence(row, each) for each in some.values()]
            continue
        compared.append(summary.summary(row, some, runs(Row(row.task, DENSE))))
        curves += [
            {"task": row.task, "scheme": row.label, "points": each["points"]} for each in list(some.values())[:1]
        ]
        if row.kind == "tuned":
            tuned += [
                {"task": row.task, "scheme": row.scheme, **asdict(cell.tuning), "chosen": cell.tuning == search.best,
                 "late": found[cell].get("late"), "avg": found[cell].get("avg")}
                for search in [tuning(row, scale, known)]
                for cell in search.cells
                if cell in found
            ]  # fmt: skip
    plan = ahead(scale, known)
    used = [found[cell] for cell in plan.cells if cell in found]
    return {
        "scale": asdict(scale),
        "host": host(),
        "commits": sorted({each["commit"] for each in used}),
        "cpu_s": math.fsum(each["cpu_s"] for each in used),
        "rows": compared,
        "claims": claims.beside(compared),
        "tuning": tuned,
        "convergence": distances,
        "curves": curves,
        "missing": [asdict(cell) for cell in plan.cells if cell not in found],
        "failed": [{**each["cell"], "why": each["failed"]} for each in used if "failed" in each],
    }
