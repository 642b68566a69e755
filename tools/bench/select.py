"""Selection: error-feedback add and exact top-k, against NumPy's argpartition, torch and the add alone."""

import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import numpy as np

from edgeclient.commands.doctor.bench import Rounds, in_turns
from edgeclient.compress.arrays import F32
from edgeclient.compress.select import KERNEL
from tools.bench import report

SIZES: Final = (10_000, 30_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
DENSITIES: Final = (0.001, 0.01, 0.05)
# Rounds before the first measured one: the residual and with it the threshold grow like the root of the round.
ROUNDS: Final = 10
# A turn of each contender takes at least this long, in several rounds where one is shorter.
TURN_S: Final = 0.004
TURNS: Final = 9
QUICK_TURNS: Final = 5


@click.command("select")
@click.option("--n", "sizes", multiple=True, type=click.IntRange(1000), help="Parameters; repeatable.")
@click.option("--density", "densities", multiple=True, type=click.FloatRange(0, 1), help="Of entries; repeatable.")
@report.options("Under a minute: up to ten million parameters.")
def select_command(
    sizes: tuple[int, ...], densities: tuple[float, ...], seed: int, out: Path | None, *, quick: bool, as_json: bool
) -> None:
    """Error-feedback add and exact top-k, against NumPy (add, argpartition, sort), torch.topk and the add alone.

    Steady state: deltas are fresh noise, the residual and the threshold come from the round before. The limit is an
    in-place add of the same numbers; apart_ms is the add into a third vector, as a crash-safe residual needs it.
    torch is measured where it is installed.

    \b
    Example:
      python -m tools.bench select --n 10000000 --density 0.01
    """
    rows = []
    for n in sizes or [n for n in SIZES if n < 10**8 or not quick]:
        for density in densities or DENSITIES:
            rows.append(_row(n, density, np.random.default_rng(seed), QUICK_TURNS if quick else TURNS))
            if not as_json:
                click.echo(f"n = {n:,}, {density:.1%}: {rows[-1]['over_limit']:.2f} × the add", err=True)
    if out is not None:
        _plot(rows, out)
    report.tell({}, rows, as_json=as_json, seed=seed)


def _row(n: int, density: float, rng: np.random.Generator, turns: int) -> dict[str, Any]:
    k = max(1, round(n * density))
    device = Rounds(n, k, rng)
    warm = [device.round(device.delta()) for _ in range(ROUNDS)]
    spare = np.zeros(n, np.float32)
    contenders: dict[str, Callable[[F32], float]] = {
        "limit": lambda delta: _add(delta, spare, spare),
        "apart": lambda delta: _add(delta, device.residual, spare),
        "ours": device.round,
        "numpy": lambda delta: _argpartition(delta, device.residual, k, spare),
    }
    if (torch := _torch()) is not None:
        contenders["torch"] = lambda delta: _topk(torch, delta, device.residual, k)
    repeats = max(1, int(TURN_S / median(warm[1:])))

    def measured(run: Callable[[F32], float]) -> Callable[[], float]:
        return lambda: run(device.delta())

    seconds = in_turns({name: measured(run) for name, run in contenders.items()}, turns, repeats)
    middle = {name: median(each) for name, each in seconds.items()}
    over = {name: median(a / b for a, b in zip(seconds["ours"], each, strict=True)) for name, each in seconds.items()}
    return {
        "n": n,
        "density": density,
        "ours_ms": middle["ours"] * 1e3,
        "limit_ms": middle["limit"] * 1e3,
        "numpy_ms": middle["numpy"] * 1e3,
        "torch_ms": middle["torch"] * 1e3 if torch is not None else None,
        "over_limit": over["limit"],
        "over_numpy": 1 / over["numpy"],
        "apart_ms": middle["apart"] * 1e3,
        "over_torch": 1 / over["torch"] if torch is not None else None,
        "first_ms": warm[0] * 1e3,
        "backend": KERNEL.backend(n),
    }


def _add(delta: F32, residual: F32, total: F32) -> float:
    began = time.perf_counter()
    np.add(delta, residual, out=total)
    return time.perf_counter() - began


def _argpartition(delta: F32, residual: F32, k: int, spare: F32) -> float:
    began = time.perf_counter()
    np.add(delta, residual, out=spare)
    np.abs(spare, out=spare)
    indices = np.argpartition(spare, spare.size - k)[spare.size - k :]
    indices.sort()
    return time.perf_counter() - began


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")  # never required
    except ImportError:
        return None
    torch.set_num_threads(1)  # like the others
    return torch


def _topk(torch: Any, delta: F32, residual: F32, k: int) -> float:
    one, other = torch.from_numpy(delta), torch.from_numpy(residual)
    began = time.perf_counter()
    torch.topk((one + other).abs_(), k, sorted=False).indices.sort()
    return time.perf_counter() - began


def _plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with report.figure(out / "select.png", 9, 4) as figure:
        left, right = figure.subplots(1, 2)
        for density in dict.fromkeys(row["density"] for row in rows):
            part = [row for row in rows if row["density"] == density]
            sizes = [row["n"] for row in part]
            left.plot(sizes, [row["ours_ms"] * 1e6 / row["n"] for row in part], "o-", label=f"{density:.1%}")
            right.plot(sizes, [row["over_numpy"] for row in part], "o-", label=f"{density:.1%}")
            last = left.lines[-1].get_color()
            left.plot(sizes, [row["numpy_ms"] * 1e6 / row["n"] for row in part], "x:", color=last, linewidth=0.8)
        left.plot(sizes, [row["limit_ms"] * 1e6 / row["n"] for row in part], "k--", label="in-place add")
        left.set_ylabel("ns per parameter (dotted: NumPy argpartition)")
        right.axhline(1, color="black", linewidth=0.8)
        right.set_ylabel("times faster than NumPy argpartition")
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("parameters")
            axes.legend()
