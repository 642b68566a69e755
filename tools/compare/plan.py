"""Which cells make the comparison, the most telling first; and how a row is tuned. Pure functions."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from tools.compare.cell import Cell, Tuning
from tools.compare.methods import CONVEX, MAIN, OF_CONVEX, TUNED

TUNING_SEED: Final = 1000  # is never reported
# What is tried one step further along each, as long as it gets better.
LADDERS: Final[dict[str, tuple[float, ...]]] = {
    "rate": (0.25, 0.5, 1.0, 2.0, 4.0),
    "server": (1.0, 1.5, 2.0, 3.0),
    "epochs": (1, 2, 4),
}
_STEPS_LEFT: Final = 7  # of a tuning that has just begun, about


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it is run.

    Attributes:
        tasks, schemes: by name, in the order of the tables.
        seeds: of the main rows.
        others: seeds of all other rows.
        versions, convex_versions: rounds.
        devices: only so many; 0: all.
    """

    tasks: tuple[str, ...]
    schemes: tuple[str, ...]
    seeds: int = 3
    others: int = 1
    versions: int = 100
    convex_versions: int = 6000
    devices: int = 0


class Row(NamedTuple):
    """Of a table: a scheme on a task, with the task's own settings, with the best ones, or with a falling rate."""

    task: str
    scheme: str
    kind: str = ""  # or "tuned", or "falling rate"

    @property
    def label(self) -> str:
        """As in tables."""
        return f"{self.scheme}, {self.kind}" if self.kind else self.scheme


class Search(NamedTuple):
    """Of the best settings, so far.

    Attributes:
        tried: everything that a decision needs, in order.
        best: None while a score of those is missing.
    """

    tried: tuple[Tuning, ...]
    best: Tuning | None


def search(score: Callable[[Tuning], float | None]) -> Search:
    """Climb one ladder after the other, from the task's own settings.

    Args:
        score: of settings, higher is better; None: it is not known yet.

    Example:
        >>> search(lambda each: each.rate - each.epochs).best
        Tuning(rate=4.0, server=1.0, epochs=1)
        >>> search(lambda each: None).tried
        (Tuning(rate=1.0, server=1.0, epochs=1), Tuning(rate=0.5, server=1.0, epochs=1), \
Tuning(rate=2.0, server=1.0, epochs=1))
    """
    best, tried = Tuning(), [Tuning()]
    for name, ladder in LADDERS.items():
        while True:
            at = ladder.index(getattr(best, name))
            changes: list[Any] = [{name: ladder[to]} for to in (at - 1, at + 1) if 0 <= to < len(ladder)]
            steps = [replace(best, **each) for each in changes]
            tried += [each for each in steps if each not in tried]
            scores = {each: score(each) for each in (best, *steps)}
            known = {each: found for each, found in scores.items() if found is not None}
            if len(known) < len(scores):
                return Search(tuple(tried), None)
            top = max(known, key=lambda each: known[each])  # of equal ones the first, which is where we are
            if top == best:
                break
            best = top
    return Search(tuple(tried), best)


def rows(scale: Scale) -> Iterator[Row]:
    """All of them, in the order of the tables."""
    for task in scale.tasks:
        if task == CONVEX:
            for scheme in OF_CONVEX:
                yield Row(task, scheme)
                yield Row(task, scheme, "falling rate")
            continue
        for scheme in scale.schemes:
            yield Row(task, scheme)
            if scheme in TUNED:
                yield Row(task, scheme, "tuned")


class Tried(NamedTuple):
    """The search behind a tuned row.

    Attributes:
        cells: everything that a decision needs, in order.
        best: None while one of those is missing.
    """

    cells: list[Cell]
    best: Tuning | None


def tuning(row: Row, scale: Scale, scores: Mapping[Cell, float]) -> Tried:
    """Of a tuned row, with the scores of the cells that are done."""

    def cell(settings: Tuning) -> Cell:
        return replace(_cell(row, scale, TUNING_SEED, settings), bytes_matter=False)

    tried, best = search(lambda settings: scores.get(cell(settings)))
    return Tried([cell(each) for each in tried], best)


def cells(row: Row, scale: Scale, scores: Mapping[Cell, float]) -> list[Cell]:
    """Of a row; none while its settings are not known.

    Args:
        row: which.
        scale: of the comparison.
        scores: of the cells that are done.
    """
    if row.kind == "tuned":
        found = tuning(row, scale, scores).best
        return [] if found is None else [_cell(row, scale, seed, found) for seed in range(scale.seeds)]
    seeds = 1 if row.task == CONVEX else scale.seeds if row.scheme in MAIN else scale.others
    return [_cell(row, scale, seed, Tuning()) for seed in range(seeds)]


class Ahead(NamedTuple):
    """What there is to run.

    Attributes:
        cells: known ones, the most telling first.
        hidden: about how many more of each task follow once a tuning is decided.
    """

    cells: list[Cell]
    hidden: dict[str, int]


def ahead(scale: Scale, scores: Mapping[Cell, float]) -> Ahead:
    """All cells, done or not.

    Args:
        scale: of the comparison.
        scores: of the cells that are done.
    """
    ranked, hidden = list[tuple[int, int, Cell]](), dict[str, int]()
    for row in rows(scale):
        for each in cells(row, scale, scores):
            stage = 4 if row.task == CONVEX else 3 if row.kind else 5 if row.scheme not in MAIN else min(1, each.seed)
            ranked.append((stage, each.seed, each))
        if row.kind == "tuned":
            found = tuning(row, scale, scores)
            ranked += [(2, 0, each) for each in found.cells]
            if found.best is None:
                rest = max(1, _STEPS_LEFT - len(found.cells)) + scale.seeds
                hidden[row.task] = hidden.get(row.task, 0) + rest
    ranked.sort(key=lambda each: each[:2])
    return Ahead(list(dict.fromkeys(cell for *_, cell in ranked)), hidden)


def score_of(late: float | None, avg: float | None) -> float:
    """What settings are chosen by; a run that failed is the worst."""
    return -math.inf if late is None or avg is None else late + avg


def _cell(row: Row, scale: Scale, seed: int, settings: Tuning) -> Cell:
    versions = scale.convex_versions if row.task == CONVEX else scale.versions
    devices = 0 if row.task == CONVEX else scale.devices
    return Cell(row.task, row.scheme, seed, versions, settings, devices, falling=row.kind == "falling rate")
