"""Trials side by side: in this process, or in children that share the examples through files mapped into memory."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np

from broker.simulate.population import Population
from broker.simulate.run import run
from broker.simulate.search import curve_of, hopeless
from broker.simulate.split import halves
from broker.simulate.trial import Point, Run, Trial
from broker.simulate.world import Part, World
from edgeclient.compress.arrays import I64
from edgeclient.settings import ConfigError
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.frame import context

_HALVES: Final = 0x4A
_PATIENCE_S: Final = 5.0
_MANY_ROUNDS: Final = 500
_DEALT: Final = "devices.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A trial and what of the population takes part.

    Attributes:
        trial: see there.
        judges: which of the population's; None for all of its test set.
        half: devices have a half of their examples each.
        best: worth of each version of the best trial, for `hopeless`; empty where nothing is given up.
    """

    trial: Trial
    judges: int | None = None
    half: bool = False
    best: Sequence[float] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a job.

    Attributes:
        points: of the versions that were made.
        run: of all; None where it ended before.
        ended: why that.
        why: in words, of one that diverged.
    """

    points: Sequence[Point]
    run: Run | None = None
    ended: Literal["", "hopeless", "diverged", "stopped"] = ""
    why: str = ""

    @property
    def curve(self) -> list[float]:
        """Worth of each version."""
        return curve_of((each.version, each.metrics) for each in self.points)


Told: TypeAlias = Callable[[int, Point], None]
Link: TypeAlias = Any  # a Connection, whose types differ from release to release


class _HopelessError(Exception):
    pass


class Crew:
    """Plays jobs of one bundle and population.

    Args:
        bundle: its bytes.
        population: who has what.
        children: processes; 0: this one.
    """

    def __init__(self, bundle: bytes, population: Population, children: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgeclient-simulate-")
        self._bundle, self._population, self._children = bundle, population, children
        self._stage: _Stage | None = None
        self._links: list[tuple[Any, Link]] = []

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        if not self._children:
            self._stage = _Stage(self._bundle, self._population, folder)
            return self
        _save(folder, self._bundle, self._population)
        spawning = multiprocessing.get_context("spawn")
        # Ctrl-C reaches the whole group: it is ours to act on.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for _ in range(self._children):
                ours, theirs = spawning.Pipe()
                child = spawning.Process(target=_work, args=(theirs, folder), daemon=True)
                child.start()
                theirs.close()
                self._links.append((child, ours))
        finally:
            signal.signal(signal.SIGINT, before)
        return self

    def __exit__(self, *_: object) -> None:
        for child, link in self._links:
            link.close()
            child.terminate()
        for child, _ in self._links:
            child.join(_PATIENCE_S)
        self._folder.cleanup()

    def play(self, jobs: Sequence[Job], told: Told) -> list[Outcome]:
        """Play all of them; `told` hears of every version, by number of job. Ctrl-C ends those that are under way.

        Raises:
            ConfigError, TrainingError: a job cannot be played at all.
            OSError: a child has died.
        """
        if self._stage is not None:
            outcomes: list[Outcome] = []
            for at, job in enumerate(jobs):
                outcomes.append(_play(self._stage, job, partial(told, at)))
                if outcomes[-1].ended == "stopped":
                    break
            return outcomes
        return self._shared(jobs, told)

    def _shared(self, jobs: Sequence[Job], told: Told) -> list[Outcome]:
        link: Link
        waiting, busy = list(enumerate(jobs)), dict[Link, int]()
        points: list[list[Point]] = [[] for _ in jobs]
        made: dict[int, Outcome] = {}
        idle = [link for _, link in self._links]
        try:
            while waiting or busy:
                while idle and waiting:
                    link, (at, job) = idle.pop(), waiting.pop(0)
                    link.send(job)
                    busy[link] = at
                ready: list[Link] = connection.wait(list(busy))
                for link in ready:
                    try:
                        said = link.recv()
                    except EOFError:
                        raise OSError("a child process of the dry run has died: is there enough memory?") from None
                    if isinstance(said, Point):
                        points[busy[link]].append(said)
                        told(busy[link], said)
                        continue
                    if isinstance(said, Exception):
                        raise said
                    made[busy.pop(link)] = said
                    idle.append(link)
        except KeyboardInterrupt:
            made |= {at: Outcome(points[at], ended="stopped") for at in busy.values()}
            made |= {at: Outcome([], ended="stopped") for at, _ in waiting}
        return [made[at] for at in range(len(jobs))]


class _Stage:
    """A world, and how a job sees it."""

    def __init__(self, bundle: bytes, population: Population, folder: Path) -> None:
        self._population = population
        devices = [Part(population.arrays, places) for places in population.devices]
        everyone = np.arange(len(population.test[-1]))
        self._world = World.open(bundle, folder / f"bundle-{os.getpid()}", devices, Part(population.test, everyone))

    def world(self, job: Job) -> World:
        made, population = self._world, self._population
        if job.judges is not None:
            made = replace(made, test=Part(population.test, population.judges[job.judges]))
        if job.half:
            rng = np.random.default_rng([job.trial.seed, _HALVES])
            made = replace(made, devices=[Part(each.arrays, halves(each.chosen, rng)) for each in made.devices])
        return made


def _play(stage: _Stage, job: Job, told: Callable[[Point], None]) -> Outcome:
    points: list[Point] = []
    curve: list[float] = []

    def hear(point: Point) -> None:
        points.append(point)
        told(point)
        if not job.best:
            return
        curve.extend(curve_of(iter([(point.version, point.metrics)])))
        if hopeless(curve, job.best, job.trial.versions):
            raise _HopelessError

    try:
        return Outcome(points, run(stage.world(job), job.trial, told=hear))
    except _HopelessError:
        return Outcome(points, ended="hopeless")
    except TrainingError as error:
        if not points:
            raise
        return Outcome(points, ended="diverged", why=str(error))
    except KeyboardInterrupt:
        return Outcome(points, ended="stopped")


def _work(link: Link, folder: Path) -> None:
    """A child: jobs in, points and outcomes out, until nobody is there."""
    with suppress(EOFError, OSError):
        stage: _Stage | None = None
        while True:
            job = link.recv()
            try:
                if stage is None:
                    bundle, population = _load(folder)
                    stage = _Stage(bundle, population, folder)
                    if job.trial.versions * len(population.devices) >= _MANY_ROUNDS:
                        context.KERNEL.why_not()  # loads numba, which all kernels use then: a third less time
                link.send(_play(stage, job, link.send))
            except (ConfigError, TrainingError) as error:
                link.send(error)


def _save(folder: Path, bundle: bytes, population: Population) -> None:
    (folder / "bundle").write_bytes(bundle)
    for name, arrays in (("arrays", population.arrays), ("test", population.test)):
        for at, array in enumerate(arrays):
            np.save(folder / f"{name}-{at}.npy", array, allow_pickle=False)
    bounds = np.cumsum([len(each) for each in population.devices])
    first, second = population.judges
    np.savez(folder / _DEALT, places=np.concatenate(population.devices), bounds=bounds, first=first, second=second)


def _load(folder: Path) -> tuple[bytes, Population]:
    def mapped(name: str) -> tuple[Any, ...]:
        count = len(list(folder.glob(f"{name}-*.npy")))
        return tuple(np.asarray(np.load(folder / f"{name}-{at}.npy", mmap_mode="r")) for at in range(count))

    with np.load(folder / _DEALT) as dealt:
        places: I64 = dealt["places"]
        devices = np.split(places, dealt["bounds"][:-1])
        population = Population(mapped("arrays"), devices, mapped("test"), (dealt["first"], dealt["second"]))
    return (folder / "bundle").read_bytes(), population
