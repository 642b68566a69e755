"""Running statistics in a late and sparse fleet: as absolute values, and as differences like any parameter.

A small network with batch normalisation learns exercises from a watch, in the product's own functions: `train`,
`compress`, `pack`, frames decoded, admitted and added, versions finished and judged. Every update begins at a version
that is up to ten versions old.
"""

import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from broker.aggregate.version import Member, Partial, Sgd, State, Strategy, add, finish
from broker.aggregate.weight import weight
from broker.demo import data as demo_data
from broker.intake.decode import refusal
from edgeclient.bundle import archive
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress
from edgeclient.compress.quantise import Quantiser
from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.data import open_data
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.trainer import Plan
from edgeclient.wire import frame
from edgeclient.wire.announcement import VALUE_LIMIT
from edgeclient.wire.frame.pack import pack
from tools.bench import report

BUNDLE: Final = Path(__file__).with_name("statistics.bundle")
RULES: Final = ("absolute", "differences")
COHORT: Final = 8
STALENESS: Final = 10
DENSITY: Final = 0.01
PLAN: Final = Plan(learning_rate=0.05, epochs=1, batch_size=16, max_steps=8)
TOLD: Final = 0.9  # of the best so far: an evaluation below it is a fall
_HELD_OUT: Final = 400  # windows
_TASK: Final = "statistics"


@click.command("statistics")
@click.option("--versions", default=300, show_default=True, help="Of the model.")
@click.option("--seeds", default=3, show_default=True)
@report.options("60 versions, one seed.")
def statistics_command(versions: int, seeds: int, seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """Batch normalisation at 1 % density and a staleness of up to 10: versions out of their domain, and falls.

    \b
    Example:
      python -m tools.bench statistics --versions 100 --seeds 1
    """
    if quick:
        versions, seeds = min(versions, 60), 1
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = World.open(Path(folder))
        for each in range(seed, seed + seeds):
            for rule in RULES:
                rows.append(run(world, rule, versions, each))
                if not as_json:
                    click.echo(f"seed {each}, {rule}: {rows[-1]}", err=True)
    del out
    report.tell({}, rows, as_json=as_json, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A model, what each device has, and what its versions are judged on."""

    opened: archive.Bundle
    trainer: RoundTrainer
    devices: list[Any]
    held_out: Any

    @classmethod
    def open(cls, folder: Path) -> "World":
        """Unpacked into a folder."""
        opened = archive.decode(BUNDLE.read_bytes())
        for name, content in opened.files.items():
            (folder / name).write_bytes(content)

        def dataset(name: str, x: F32, labels: Any) -> Any:
            np.savez(folder / f"{name}.npz", x=x, labels=labels)
            return open_data(str(folder / f"{name}.npz"), {}, opened.manifest)

        devices = [dataset(f"{p}-{s}", *demo_data.device_windows(p, s)) for p, s in demo_data.DEVICES]
        x, labels = demo_data.held_out_windows()
        chosen = np.random.default_rng(0).permutation(len(labels))[:_HELD_OUT]
        return cls(opened, compiled_trainer(folder), devices, dataset("test", x[chosen], labels[chosen]))


def run(world: World, rule: str, versions: int, seed: int) -> dict[str, Any]:
    """One run, in numbers."""
    began_s, rng = time.monotonic(), np.random.default_rng([seed, 17])
    known = world.opened.manifest.layout
    layout = known if rule == "absolute" else Layout(tuple(replace(each, bounds=None) for each in known.parameters))
    recent: deque[F32] = deque([world.opened.parameters], maxlen=STALENESS + 1)
    residuals = [np.zeros(layout.size, np.float32) for _ in world.devices]
    numbers = [0] * len(world.devices)
    best = total_bytes = 0.0
    outside, falls, accuracies = 0, 0, list[float]()
    for version in range(versions):
        partial = Partial.empty(layout.size, layout.domain)
        for device in rng.permutation(len(world.devices))[:COHORT].tolist():
            late = min(int(rng.integers(0, STALENESS + 1)), len(recent) - 1)
            body, residuals[device] = _update(
                world, layout, recent[-1 - late], residuals[device], device, numbers[device], version - late, rng
            )
            numbers[device] += 1
            made = frame.decode(body, layout.tensors)
            assert refusal(made, frame.address(_TASK, f"d{device}"), layout, version, STALENESS) is None
            add(
                partial,
                Member(made.update, (device, made.number), weight(made.num_examples, late), {}, made.absolute),
                Strategy(Sgd()),
            )
            total_bytes += len(body)
        parameters = finish(Strategy(Sgd()), recent[-1], State(), partial).parameters
        recent.append(parameters)
        outside += bool(known.fault(parameters))
        accuracy = world.trainer.evaluate(parameters, world.held_out).accuracy or 0.0
        falls += accuracy < TOLD * best
        best = max(best, accuracy)
        accuracies.append(accuracy)
    return {
        "rule": rule,
        "seed": seed,
        "versions": versions,
        "outside": outside,
        "falls": falls,
        "worst_of_best": round(
            min(a / b for a, b in zip(accuracies, np.maximum.accumulate(accuracies), strict=True)), 3
        ),
        "best": round(best, 3),
        "late": round(float(np.mean(accuracies[-20:])), 3),
        "bytes_per_update": round(total_bytes / versions / COHORT, 1),
        "seconds": round(time.monotonic() - began_s, 1),
    }


def _update(
    world: World,
    layout: Layout,
    base: F32,
    residual: F32,
    device: int,
    number: int,
    version: int,
    rng: np.random.Generator,
) -> tuple[bytes, F32]:
    with np.errstate(all="ignore"):
        made = world.trainer.train(base, world.devices[device], PLAN, rng)
    delta, absolute = made.delta, made.absolute
    if not layout.domain.size:
        delta, absolute = made.applied_to(base) - base, absolute[:0]
    quantiser = Quantiser(VALUE_LIMIT, bounds=layout.bounds)
    compressed = compress(delta, residual, int(DENSITY * layout.size), quantiser=quantiser)
    origin = frame.Origin(_TASK, f"d{device}", layout.tag, number, version, made.num_examples)
    packed = pack(compressed, origin, frame.Coding(), quantiser, 0, absolute)
    ((body,),) = packed.layers
    return frame.stamp(body, epoch=device, sequence=number), packed.residual
