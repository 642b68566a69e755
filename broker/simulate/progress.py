"""What a dry run is doing: a live table on a terminal, lines elsewhere. On standard error, results go to the other."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from broker.monitor.text import age, size
from broker.simulate.crew import Outcome
from broker.simulate.rehearsal import Step
from broker.simulate.trial import Point

_EVERY_S: Final = 5.0
COLUMNS: Final = (
    "for", "learning rate", "epochs", "density", "version", "time", "accuracy", "late", "avg", "an update", "up",
    "down",
)  # fmt: skip
Tell: TypeAlias = Callable[[Step, Point | Outcome], None]


class Table:
    """Trials as rows of text, as far as they are known.

    Args:
        versions: that each makes.
    """

    def __init__(self, versions: int) -> None:
        self._versions = versions
        self.rows: dict[Step, tuple[str, ...]] = {}

    def take(self, step: Step, said: Point | Outcome) -> tuple[str, ...]:
        """The row of a trial, with what it has said."""
        outcome = said if isinstance(said, Outcome) else None
        points = [said] if isinstance(said, Point) else list(said.points)
        if points:
            self.rows[step] = self._row(step, points, outcome)
        return self.rows.get(step, ())

    def _row(self, step: Step, points: list[Point], outcome: Outcome | None) -> tuple[str, ...]:
        last, (rate, epochs, density) = points[-1], step.choice
        run = outcome.run if outcome else None
        accuracy = last.accuracy if last.accuracy is not None else last.metrics.get("loss")
        late = "" if run is None else _figure(run.late)
        avg = "" if run is None else _figure(run.avg_loss if run.avg is None else run.avg)
        ended = f" {outcome.ended}" if outcome is not None and outcome.ended else ""
        each = size(run.update_bytes) if run else ""
        return (
            step.purpose, f"{rate:g}", f"{epochs}", f"{density:g}", f"{last.version}/{self._versions}{ended}",
            age(last.time_s), _figure(accuracy), late, avg, each, size(last.uplink_bytes), size(last.downlink_bytes),
        )  # fmt: skip


@contextmanager
def shown(versions: int) -> Iterator[Tell]:
    """A function that hears of every version and every trial's end."""
    table = Table(versions)
    if sys.stderr.isatty() and (live := _live()) is not None:
        with live as board:

            def redraw(step: Step, said: Point | Outcome) -> None:
                table.take(step, said)
                board.update(_drawn(table))

            yield redraw
        return
    due_s = time.monotonic() + _EVERY_S

    def tell(step: Step, said: Point | Outcome) -> None:
        nonlocal due_s
        row, now_s = table.take(step, said), time.monotonic()
        if row and (isinstance(said, Outcome) or now_s >= due_s):
            due_s = now_s + _EVERY_S
            words = (f"{name} {cell}" for name, cell in zip(COLUMNS[1:], row[1:], strict=True) if cell)
            print(f"{row[0]}: {', '.join(words)}", file=sys.stderr, flush=True)

    yield tell


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _live() -> Any:
    try:
        from rich.console import Console  # noqa: PLC0415 (an extra, and 0.1 s to load)
        from rich.live import Live  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    return Live(console=Console(stderr=True), refresh_per_second=4)


def _drawn(table: Table) -> Any:
    from rich.table import Table as Drawn  # noqa: PLC0415 (see above)

    drawn = Drawn(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        drawn.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    for row in table.rows.values():
        drawn.add_row(*row)
    return drawn
