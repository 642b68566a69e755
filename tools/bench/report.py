"""What every measuring command prints: a table for people, one JSON object for programs (BENCH.md)."""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Command = TypeVar("_Command", bound=Callable[..., None])
PACKAGES = ("numpy", "numba", "onnxruntime", "onnxruntime-training-cpu", "onnx")


def host() -> dict[str, Any]:
    """CPU, SIMD, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    simd = [name for name in ("avx512f", "avx2", "avx", "sve", "asimd") if name in flags]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "machine": platform.machine(),
        "simd": simd[:1],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
    }


def memory_mib(process: int | str, kind: str) -> float:
    """Of a process, as its /proc/…/status says: VmRSS, or RssAnon beyond files.

    Raises:
        ClickException: it has ended, or Linux is older than 4.5.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise click.ClickException(f"/proc/{process}/status has no {kind}: Linux 4.5 or newer is needed")


def options(quick: str, *, plots: bool = True) -> Callable[[_Command], _Command]:
    """--seed, --quick with this help, --json, and --out where there are plots."""
    made = [
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--quick", is_flag=True, help=quick),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line."),
    ]
    if plots:
        made.append(click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write a plot there."))
    return lambda command: reduce(lambda so_far, each: each(so_far), reversed(made), command)


@contextmanager
def figure(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """A figure of so many inches that is written to `path` in the end."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (only with --out)

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Figure(figsize=(width, height), layout="constrained")
    yield drawn
    drawn.savefig(path, dpi=150)


def tell(
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    seed: int,
    bars: Mapping[str, float] | None = None,
) -> None:
    """Print the rows as a table and the summary, or everything as one JSON object on the last line.

    With `bars`, upper bounds by key, "over" names those that are passed, and then the exit code is 1.
    """
    over = [name for name, bar in (bars or {}).items() if summary[name] > bar]
    if bars is not None:
        summary = {**summary, "over": over}
    if as_json:
        print(json.dumps({"host": host(), "seed": seed, **summary, "rows": list(rows)}))
    else:
        _print(summary, rows)
    if over:
        sys.exit(1)


def _print(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        heads = list(rows[0])
        cells = [heads, *[[_cell(row.get(head)) for head in heads] for row in rows]]
        widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
        for line in cells:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for key, value in summary.items():
        print(f"{key}: {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return np.format_float_positional(value, precision=4, fractional=False, trim="-")
    return str(value)
