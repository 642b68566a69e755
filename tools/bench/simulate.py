"""A large fleet in a dry run: seconds, memory, and whether a seed gives the same model again."""

import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from broker.settings import Task
from broker.simulate.run import run
from broker.simulate.trial import Trial
from broker.simulate.world import Part, World
from edgeclient.wire.announcement import Policy
from tools.bench import report

DEVICES: Final = 10_000
VERSIONS: Final = 100
QUICK_VERSIONS: Final = 10
COHORT: Final = 64
_EXAMPLES: Final = 20  # of a device
_TEST: Final = 1000
_CLASSES: Final = 10
_BUNDLE: Final = Path(__file__).parents[1] / "chaos/task.bundle"
# Bars of the full run, on two cores.
BARS: Final = {"seconds": 600.0, "peak_mib": 2048.0}


@click.command("simulate")
@click.option("--devices", type=click.IntRange(COHORT), default=DEVICES, show_default=True)
@report.options(f"{QUICK_VERSIONS} versions instead of {VERSIONS}.", plots=False)
def simulate_command(devices: int, seed: int, *, quick: bool, as_json: bool) -> None:
    """Twice a fleet of ten thousand in cohorts of 64, by one seed.

    \b
    Example:
      python -m tools.bench simulate --quick
    """
    versions = QUICK_VERSIONS if quick else VERSIONS
    trial = Trial(Task(policy=Policy(learning_rate=0.1)), versions, cohort=COHORT, seed=seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgeclient-bench-") as folder:
        world = _world(Path(folder) / "bundle", devices, seed)
        for at in range(2):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            made = run(world, trial)
            rows.append(
                {
                    "run": at,
                    "seconds": time.perf_counter() - began_s,
                    "cpu_s": time.process_time() - began_cpu_s,
                    "updates": made.points[-1].updates,
                    "late": made.late,
                    "digest": made.digest[:16],
                }
            )
    summary: dict[str, Any] = {
        "n": world.manifest.layout.size,
        "devices": devices,
        "versions": versions,
        "seconds": max(row["seconds"] for row in rows),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "different": len({row["digest"] for row in rows}) - 1,
    }
    report.tell(summary, rows, as_json=as_json, seed=seed, bars={**BARS, "different": 0})


def _world(folder: Path, devices: int, seed: int) -> World:
    """Ten classes of 128 numbers, two a device."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 0.5, (_CLASSES, 128)).astype(np.float32)
    own = np.arange(devices * _EXAMPLES).reshape(devices, _EXAMPLES)
    labels = np.concatenate(
        [((own // _EXAMPLES + own % 2 * (1 + own // _EXAMPLES // _CLASSES)) % _CLASSES).ravel(), np.arange(_TEST) % 10]
    )
    x = centres[labels] + rng.normal(0, 1, (labels.size, 128)).astype(np.float32)
    parts = [Part((x, labels), row) for row in own]
    return World.open(_BUNDLE.read_bytes(), folder, parts, Part((x, labels), np.arange(own.size, labels.size)))
