"""`python -m tools.compare`: the table of the literature on real frames."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from tools.compare import tables
from tools.compare.cell import Cell, name_of
from tools.compare.methods import DENSE, METHODS, SHORT, TASKS, task_of
from tools.compare.plan import Ahead, Scale, ahead
from tools.compare.pool import run_all
from tools.compare.report import report, scores
from tools.compare.schemes import SCHEMES
from tools.compare.tasks.fashion_mnist import DEBIAN

# CPU seconds of a version on x86-64, until cells of the task are done.
_CPU_S: Final = {"fashion-mnist": 0.5, "watch-har": 0.35, "next-word": 0.5, "convex": 0.013}


class Book:
    """What is done so far, in memory as in the folder.

    Attributes:
        found: what cells wrote.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder, self._data = folder / "cells", data
        self._folder.mkdir(parents=True, exist_ok=True)
        self.found: dict[Cell, Any] = {}
        self._absent = set[Cell]()

    def file(self, cell: Cell) -> Path:
        """Where it is written."""
        return self._folder / f"{name_of(cell, task_of(cell.task, self._data), METHODS[cell.scheme])}.json"

    def take(self, cell: Cell) -> bool:
        """Whether it is done."""
        if cell not in self.found and cell not in self._absent:
            file = self.file(cell)
            if file.exists():
                self.found[cell] = json.loads(file.read_text())
            else:
                self._absent.add(cell)
        return cell in self.found

    def written(self, cell: Cell) -> Any:
        """Of a cell that has just been run."""
        self._absent.discard(cell)
        self.take(cell)
        return self.found[cell]

    def plan(self, scale: Scale) -> Ahead:
        """With all that is done taken, on which the rest depends."""
        while True:
            before, plan = len(self.found), ahead(scale, scores(self.found))
            for cell in plan.cells:
                self.take(cell)
            if len(self.found) == before:
                return plan


def left_s(plan: Ahead, found: Mapping[Cell, Any]) -> float:
    """CPU seconds that are left, by what cells of the same task took, about."""
    waiting = [(cell.task, cell.versions) for cell in plan.cells if cell not in found]
    versions = {cell.task: cell.versions for cell in plan.cells}
    waiting += [(task, versions[task]) for task, count in plan.hidden.items() for _ in range(count)]
    each_s = dict(_CPU_S)
    for task in versions:
        done = [(each["cpu_s"], cell.versions) for cell, each in found.items() if cell.task == task]
        if done:
            each_s[task] = sum(cpu_s for cpu_s, _ in done) / sum(count for _, count in done)
    return sum(each_s[task] * count for task, count in waiting)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--task", "tasks", multiple=True, type=click.Choice([*TASKS]), help="Only these; again for each.")
@click.option("--scheme", "schemes", multiple=True, type=click.Choice([*METHODS]), help="Only these, and dense.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Of the main rows.")
@click.option("--all-seeds", is_flag=True, help="As many for all other rows, which have one.")
@click.option("--versions", type=click.IntRange(5, 10_000), default=100, show_default=True)
@click.option("--short", is_flag=True, help="A few versions on a few devices: does it work?")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes side by side.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=DEBIAN, show_default=True,
              help="Folder of Fashion-MNIST's four files.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("comparison"), show_default=True,
              help="Cells, comparison.md, comparison.json and plots.")  # fmt: skip
@click.option("--document", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Put the tables between this file's markers, too.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The whole report as one JSON object on the last line.")
def cli(  # noqa: PLR0913 (one for each option)
    *, tasks: tuple[str, ...], schemes: tuple[str, ...], seeds: int, all_seeds: bool, versions: int, short: bool,
    jobs: int, data: Path, out: Path, document: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compare compressors on federated tasks: accuracy, bytes in both directions, time.

    Every cell (task, scheme, seed) that is done stays in --out, so that the same command goes on where it was
    stopped, or makes its documents again. Ctrl-C makes them of what there is.

    \b
    Example:
      python -m tools.compare --task watch-har --scheme "top-k 1 %, EF" --out comparison
    """
    chosen = {DENSE, *schemes} if schemes else set(SHORT if short else SCHEMES)
    wanted = tuple(name for name in METHODS if name in chosen)
    scale = Scale(tuple(tasks) or tuple(TASKS), wanted, seeds, seeds if all_seeds else 1, versions)
    if short:
        scale = Scale(scale.tasks, wanted, seeds=1, versions=5, convex_versions=20, devices=2)
    text = document and document.read_text()
    if text:
        _between(text, "", document)
    for name in scale.tasks:
        try:
            task_of(name, data)
        except (FileNotFoundError, ValueError) as error:
            raise click.ClickException(f"{name}: {error}") from None
    book = Book(out, data)
    failed: list[Cell] = []
    stopped = False
    try:
        failed = _run(book, scale, jobs, data)
    except KeyboardInterrupt:
        click.echo("stopped: this is made of what there is; the same command goes on from here", err=True)
        stopped = True
    made = report(scale, book.found)
    found = tables.markdown(made)
    _write(out / "comparison.md", found)
    _write(out / "comparison.json", json.dumps(made) + "\n")
    if text and document:
        _write(document, _between(text, found, document))
    from tools.compare.charts import draw  # noqa: PLC0415 (matplotlib takes a second)

    for path in draw(made, out):
        click.echo(path, err=True)
    click.echo(json.dumps(made) if as_json else found)
    if stopped:
        sys.exit(130)
    if failed:
        raise click.ClickException(f"{len(failed)} cells could not be run, such as {failed[0]}: see above")


def _run(book: Book, scale: Scale, jobs: int, data: Path) -> list[Cell]:
    """All that is missing."""
    began_s = time.monotonic()

    def missing() -> list[Cell]:
        return [each for each in book.plan(scale).cells if each not in book.found]

    def done(cell: Cell) -> None:
        found, plan = book.written(cell), book.plan(scale)
        worth = found.get("failed") or f"late {_share(found['late'])}, avg {_share(found['avg'])}"
        click.echo(
            f"{_progress(plan, book, jobs)}: {cell.task}, {cell.scheme}, seed {cell.seed}: {worth}"
            f" ({found['cpu_s']:.0f} s)",
            err=True,
        )

    plan = book.plan(scale)
    click.echo(f"{_progress(plan, book, jobs)}, {left_s(plan, book.found) / 60:.0f} of one core", err=True)
    failed = run_all(missing, book.file, done, jobs=jobs, data=data, commit=_commit())
    click.echo(f"{len(book.found)} cells are done, {(time.monotonic() - began_s) / 60:.0f} minutes", err=True)
    return failed


def _progress(plan: Ahead, book: Book, jobs: int) -> str:
    done = sum(each in book.found for each in plan.cells)
    hidden = sum(plan.hidden.values())
    return (
        f"{done} of {'about ' if hidden else ''}{len(plan.cells) + hidden} cells, about"
        f" {left_s(plan, book.found) / jobs / 60:.0f} minutes left"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _commit() -> str:
    """Of the work tree, as Git names it."""
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"


def _between(text: str, found: str, document: Path | None) -> str:
    try:
        return tables.between(text, found)
    except ValueError as error:
        raise click.ClickException(f"{document}: {error}") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    written = path.with_name(f"{path.name}.tmp")
    written.write_text(text)
    written.replace(path)


if __name__ == "__main__":
    cli.main(prog_name="python -m tools.compare")
