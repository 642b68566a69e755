"""Running statistics in a late and sparse fleet: as absolute values, and as differences like any parameter.

A small network with batch normalisation learns exercises from 16 watches, in the product's own functions: `train`,
`compress`, `pack`, frames decoded, admitted and added, versions finished. Every update begins at a version that is up
to ten versions old. Nothing is held back here, so that every version that the rule makes is counted.
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
from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.feedback import compress
from edgeclient.compress.pace import Pace, target
from edgeclient.compress.quantise import Quantiser
from edgeclient.train.batches import Dataset
from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.data import open_data
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.trainer import Plan
from edgeclient.wire import frame
from edgeclient.wire.announcement import VALUE_LIMIT
from edgeclient.wire.frame.pack import pack
from tools.bench import report

BUNDLE: Final = Path(__file__).with_name("statistics.bundle")
ABSOLUTE: Final = "absolute"
RULES: Final = (ABSOLUTE, "differences")
STALENESS: Final = 10
DENSITY: Final = 0.01
PLAN: Final = Plan(learning_rate=0.03, epochs=1, batch_size=16, max_steps=8)
WARM_UP: Final = 20  # versions with four times the density
FALL: Final = 0.9  # an evaluation below so much of the best so far is a fall
_HELD_OUT: Final = 50  # windows of each device
_TASK: Final = "statistics"
_STRATEGY: Final = Strategy(Sgd())


@click.command("statistics")
@click.option("--versions", default=300, show_default=True, help="Of the model; a third of them by differences.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each rule.")
@report.options("Under a minute: 30 versions, one seed.", plots=False)
def statistics_command(versions: int, seeds: int, seed: int, *, quick: bool, as_json: bool) -> None:
    """Batch normalisation at 1 % density, updates up to 10 versions late: versions out of their domain, and falls.

    A fall is an evaluation below 0.9 of the best so far.

    \b
    Example:
      python -m tools.bench statistics --versions 100 --seeds 1
    """
    if quick:
        versions, seeds = min(versions, 30), 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgeclient-bench-") as folder:
        world = World.open(Path(folder))
        for each in range(seed, seed + seeds):
            for rule in RULES:
                rows.append(run(world, rule, versions if rule == ABSOLUTE else max(30, versions // 3), each))
                if not as_json:
                    told = "{outside} versions outside, {falls} falls, worst {worst_of_best} of the best"
                    click.echo(f"{rule}, seed {each}: {told.format(**rows[-1])}", err=True)
    summary = {
        f"{rule}_{key}": sum(row[key] for row in rows if row["rule"] == rule)
        for rule in RULES
        for key in ("outside", "falls")
    }
    report.tell(summary, rows, as_json=as_json, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A model, what each device has, and what its versions are judged on."""

    opened: archive.Bundle
    trainer: RoundTrainer
    devices: list[Dataset]
    held_out: Dataset

    @classmethod
    def open(cls, folder: Path) -> "World":
        """Unpacked into a folder."""
        opened = archive.decode(BUNDLE.read_bytes())
        for name, content in opened.files.items():
            (folder / name).write_bytes(content)

        def dataset(name: str, x: F32, labels: I64) -> Dataset:
            np.savez(folder / f"{name}.npz", x=x, labels=labels)
            return open_data(str(folder / f"{name}.npz"), {}, opened.manifest)

        devices, test = [], []
        for person, side in demo_data.DEVICES:
            x, labels = demo_data.device_windows(person, side)
            order = np.random.default_rng([person, side]).permutation(len(labels))
            kept, own = order[:_HELD_OUT], order[_HELD_OUT:]
            devices.append(dataset(f"{person}-{side}", x[own], labels[own]))
            test.append((x[kept], labels[kept]))
        held_out = dataset("test", *(np.concatenate(each) for each in zip(*test, strict=True)))
        return cls(opened, compiled_trainer(folder), devices, held_out)


@dataclass(slots=True, eq=False)
class _Device:
    """What it keeps from round to round."""

    name: str
    data: Dataset
    residual: F32
    number: int = 0


def run(world: World, rule: str, versions: int, seed: int) -> dict[str, Any]:
    """One run, in numbers."""
    began_s, rng = time.monotonic(), np.random.default_rng([seed, 17])
    known = world.opened.manifest.layout
    layout = known if rule == ABSOLUTE else Layout(tuple(replace(each, bounds=None) for each in known.parameters))
    recent: deque[F32] = deque([world.opened.parameters], maxlen=STALENESS + 1)
    devices = [_Device(f"d{i}", data, np.zeros(layout.size, np.float32)) for i, data in enumerate(world.devices)]
    best, worst, sent_bytes, outside, falls, accuracies = 0.0, 1.0, 0, 0, 0, list[float]()
    for version in range(versions):
        partial = Partial.empty(layout.size, layout.domain)
        for device in devices:
            late = min(int(rng.integers(0, STALENESS + 1)), len(recent) - 1)
            body = _update(world, layout, device, recent[-1 - late], version - late, rng)
            made = frame.decode(body)
            assert refusal(made, layout, version, STALENESS) is None
            heavy = weight(made.num_examples, late)
            add(partial, Member(made.update, device.name, heavy, {}, made.absolute), _STRATEGY)
            sent_bytes += len(body)
        recent.append(finish(_STRATEGY, recent[-1], State(), partial).parameters)
        outside += bool(known.fault(recent[-1]))
        with np.errstate(all="ignore"):
            accuracies.append(world.trainer.evaluate(recent[-1], world.held_out).accuracy or 0.0)
        falls += accuracies[-1] < FALL * best
        best = max(best, accuracies[-1])
        worst = min(worst, accuracies[-1] / best if best else 1.0)
    return {
        "rule": rule,
        "seed": seed,
        "versions": versions,
        "outside": outside,
        "falls": falls,
        "worst_of_best": round(worst, 3),
        "best": round(best, 3),
        "late": round(float(np.mean(accuracies[-20:])), 3),
        "bytes_per_update": round(sent_bytes / versions / len(devices), 1),
        "seconds": round(time.monotonic() - began_s, 1),
    }


def _update(world: World, layout: Layout, device: _Device, base: F32, version: int, rng: np.random.Generator) -> bytes:
    """The frame of a round, coded without the tensors: in plain Python their context coder takes most of the time."""
    made = world.trainer.train(base, device.data, PLAN, rng)
    delta, absolute = made.delta, made.absolute
    if not layout.domain.size:
        delta, absolute = made.applied_to(base) - base, absolute[:0]
    quantiser = Quantiser(VALUE_LIMIT, bounds=layout.bounds)
    compressed = compress(
        delta, device.residual, target(layout.size, DENSITY, Pace(), warm_up=version < WARM_UP), quantiser=quantiser
    )
    origin = frame.Origin(_TASK, device.name, layout.tag, device.number, version, made.num_examples)
    packed = pack(compressed, origin, frame.Coding(), quantiser, 0, absolute)
    ((body,),) = packed.layers
    device.residual = packed.residual
    device.number += 1
    return frame.stamp(body, epoch=1, sequence=device.number)
