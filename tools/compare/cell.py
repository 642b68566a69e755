"""A cell of the comparison: one scheme on one task with one seed, from version 0 to the last."""

import json
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np

from broker.settings import Task as Settings
from broker.simulate.run import run
from broker.simulate.scheme import Scheme, Sparse
from broker.simulate.trial import Point, Run, Trial
from broker.simulate.world import Part, World
from tools.compare.tasks.task import Task

_FOR_EVER_S: Final = 1e6  # every device of a cohort is waited for
_POINTS: Final = 50  # that are evaluated, at least every second version


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings beside the task's own.

    Attributes:
        rate: times the learning rate of devices.
        server: learning rate of the aggregator.
        epochs: times the local passes.
    """

    rate: float = 1.0
    server: float = 1.0
    epochs: int = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """What is run.

    Attributes:
        task, scheme: by name.
        seed: of split, start, cohorts and batches, so that cells of one seed are paired.
        versions: that are made.
        tuning: see Tuning.
        devices: only the first so many take part; 0: all.
        falling: whether the task's falling learning rate holds.
        bytes_matter: without, frames are some more bytes and much less work; the accuracies are the same.
    """

    task: str
    scheme: str
    seed: int
    versions: int
    tuning: Tuning = Tuning()
    devices: int = 0
    falling: bool = False
    bytes_matter: bool = True


def name_of(cell: Cell, task: Task, scheme: Scheme) -> str:
    """Of its file: another one whenever anything else would come out, but for the engine itself.

    Example:
        >>> from tools.compare.methods import DENSE, METHODS
        >>> from tools.compare.tasks.watch_har import watch_har
        >>> cell, task = Cell("watch-har", DENSE, 0, 100), watch_har()
        >>> name = name_of(cell, task, METHODS[DENSE])
        >>> name[:29], name == name_of(replace(cell, versions=50), task, METHODS[DENSE])
        ('watch-har.dense-float32-4n.0.', False)
    """
    settings = [asdict(cell), repr(scheme), _data(task), _drawn(task, cell.seed)]
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    readable = re.sub(r"[^a-z0-9.]+", "-", cell.scheme.lower()).strip("-")
    return f"{cell.task}.{readable}.{cell.seed}.{digest}"


def outcome(cell: Cell, task: Task, scheme: Scheme, told: Callable[[Point], None] = lambda _: None) -> dict[str, Any]:
    """Run it; what came out, for JSON.

    Raises:
        TrainingError: a round diverges.
    """
    places = task.split(cell.seed)[: cell.devices or None]
    parts = [Part(task.examples, each) for each in places]
    test = Part(task.test, np.arange(len(task.test[-1])))
    cohort = min(task.cohort, len(parts))
    policy = replace(
        task.policy,
        learning_rate=task.policy.learning_rate * cell.tuning.rate,
        local_epochs=task.policy.local_epochs * cell.tuning.epochs,
        local_steps=task.policy.local_steps * cell.tuning.epochs,
    )
    settings = Settings(
        goal=cohort, min_interval_s=0.0, deadline_s=_FOR_EVER_S, learning_rate=cell.tuning.server, policy=policy
    )
    every = max(2, cell.versions // _POINTS)
    trial = Trial(settings, versions=cell.versions, cohort=cohort, seed=cell.seed, every=every, gate=False)
    rate = task.rate if cell.falling else lambda _: 1.0
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        world = World.open(task.bundle, Path(folder), parts, test, task.start(cell.seed))
        if isinstance(scheme, Sparse) and not cell.bytes_matter:
            scheme = replace(scheme, tensors=False)
        # What is compiled on its first use is not timed.
        run(world, replace(trial, settings=attrs.evolve(settings, goal=1), versions=1, cohort=1), scheme)
        made = run(world, trial, scheme, told=told, rate=rate)
        least = None if task.optimum is None else world.trainer.evaluate(task.optimum, test).loss
    return {"cell": asdict(cell), "feedback": scheme.feedback, "least_loss": least, **_kept(made)}


def _kept(made: Run) -> dict[str, Any]:
    """Only versions that were evaluated."""
    values = made.as_json()
    return {**values, "points": [each for each in values["points"] if each["metrics"]]}


@cache
def _data(task: Task) -> list[Any]:
    """What a task is, whatever the seed."""
    arrays = (*task.examples, *task.test)
    return [sha256(task.bundle).hexdigest(), [_checksum(each) for each in arrays], repr(task.policy), task.cohort]


@cache
def _drawn(task: Task, seed: int) -> list[int]:
    """What it draws from a seed."""
    return [*map(_checksum, task.split(seed)), _checksum(task.start(seed))]


def _checksum(array: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
