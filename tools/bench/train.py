"""Training steps of the zoo: compiled bundles against ONNX Runtime training, each trainer in its own process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import click
import numpy as np

from tools.bench import report

ROOT: Final = Path(__file__).parents[2]
NATIVE: Final = ROOT / ".venv-native/bin/python"
BATCH: Final = 32
# One turn of a worker is as many steps as fit into this time; turns alternate.
TURN_S: Final = 0.25
TURNS: Final = 9


class Worker:
    """A trainer process; see train_worker.py."""

    def __init__(self, python: Path, kind: str, directory: Path, batch: Path) -> None:
        command = [str(python), "-m", "tools.bench.train_worker", kind, str(directory), str(batch)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.session_s = float(self._answer()["session_s"])
        self.cpu_s: list[float] = []
        self.rss_mib = 0.0

    def turn(self, steps: int) -> float:
        """CPU seconds per step."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        said = self._answer()
        self.rss_mib = float(said["rss_mib"])
        return float(said["cpu_s"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{' '.join(self._process.args)} ended with {self._process.wait()}")  # type: ignore[arg-type]  # a list of str
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@click.command("train")
@click.option("--model", "models", multiple=True, help="Only this model of the zoo; repeatable.")
@report.options("Under a minute.")
def train_command(models: tuple[str, ...], seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """CPU time of a training step: compiled bundles on the plain runtime against ONNX Runtime training 1.19.2.

    Needs .venv-native, which tools/test makes.

    \b
    Example:
      python -m tools.bench train --model cnn --model gru
    """
    if not NATIVE.exists():
        raise click.ClickException(f"{NATIVE} is missing: tools/test makes it on x86-64 with Python 3.11 or 3.12")
    from tools.zoo import ZOO  # noqa: PLC0415 (loads onnx)

    names = list(models) or list(ZOO)
    if unknown := sorted(set(names) - ZOO.keys()):
        raise click.ClickException(f"no model {unknown[0]!r} in the zoo: it has {', '.join(ZOO)}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeclient-bench-") as folder:
        make = [str(NATIVE), "-m", "tools.bundles", "zoo", folder, *names]
        if subprocess.run(make, cwd=ROOT, check=False).returncode:
            raise click.ClickException("the zoo could not be compiled, see above")
        for name in names:
            place = Path(folder) / name
            np.savez(place / "batch.npz", *ZOO[name].batch(BATCH, np.random.default_rng(seed)))
            rows.append(_row(name, place, turns=5 if quick else TURNS, turn_s=0.08 if quick else TURN_S))
            if not as_json:
                click.echo(f"{name}: {rows[-1]['ratio']:.3f}", err=True)
            errors = json.loads((place / "verified.json").read_text())
            rows[-1]["gradient_error"] = errors["gradient_error"]
    ratios = [row["ratio"] for row in rows]
    summary = {
        "median_cpu_ratio": median(ratios),
        "worst_cpu_ratio": max(ratios),
        "worst_rss_ratio": max(row["compiled_rss_mib"] / row["native_rss_mib"] for row in rows),
        "worst_gradient_error": max(row["gradient_error"] for row in rows),
    }
    if out is not None:
        _plot(rows, out)
    report.tell(summary, rows, as_json=as_json, seed=seed)


def _row(name: str, place: Path, *, turns: int, turn_s: float) -> dict[str, Any]:
    batch = place / "batch.npz"
    with (
        Worker(NATIVE, "native", place, batch) as native,
        Worker(NATIVE, "compiled", place, batch) as compiled_same,
        Worker(Path(sys.executable), "compiled", place, batch) as compiled,
    ):
        workers = (native, compiled_same, compiled)
        steps = max(1, int(turn_s / native.turn(3)))
        for worker in workers:
            worker.turn(steps)
        for _ in range(turns):
            for worker in workers:
                worker.cpu_s.append(worker.turn(steps))
        native_ms, same_ms, compiled_ms = (median(worker.cpu_s) * 1e3 for worker in workers)
        return {
            "model": name,
            "native_ms": native_ms,
            "compiled_ms": compiled_ms,
            "ratio": median(c / n for c, n in zip(compiled.cpu_s, native.cpu_s, strict=True)),
            "same_runtime_ms": same_ms,
            "same_runtime_ratio": median(c / n for c, n in zip(compiled_same.cpu_s, native.cpu_s, strict=True)),
            "native_rss_mib": native.rss_mib,
            "compiled_rss_mib": compiled.rss_mib,
            "session_s": compiled.session_s,
            "native_session_s": native.session_s,
        }


def _plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with report.figure(out / "train.png", 8, 4) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))
        axes.bar(places, [row["ratio"] for row in rows], width=0.6)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(places, [row["model"] for row in rows], rotation=30)
        axes.set_ylabel("CPU per step, compiled ÷ native")
