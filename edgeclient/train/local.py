"""What a device learns from and measures itself on: one source, split for ever, replayed where it grows."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import F32
from edgeclient.settings import Data
from edgeclient.train.batches import Batch, DataError, Dataset, NoExamplesError
from edgeclient.train.data import open_source
from edgeclient.train.holdout import Examples
from edgeclient.train.replay.buffer import Replay
from edgeclient.train.trainer import LocalRound, Trainer

REPLAY: Final = "replay"
# Enough to see a loss fall, and two passes over them take about as long as one over 700 examples that trains.
_MOST_MEASURED: Final = 1024


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Gain:
    """What a round was worth on the device's own holdout.

    Attributes:
        version: the model version it began from.
        num_examples: measured on.
        loss_before: of that version, mean.
        loss_after: with the round's delta, mean.
        accuracy_before: fraction of labels hit; None when labels are no classes.
        accuracy_after: as above.
    """

    version: int
    num_examples: int
    loss_before: float
    loss_after: float
    accuracy_before: float | None
    accuracy_after: float | None


@dataclass(frozen=True, slots=True)
class Local:
    """The data of a device for one model.

    Attributes:
        train: what rounds learn from.
        holdout: what they never see; None without one.
        take: takes in what is new before a round, and says how many examples that was.
        notes: see Source.
    """

    train: Dataset
    holdout: Dataset | None = None
    take: Callable[[Callable[[], bool]], int] = lambda _: 0
    notes: Mapping[str, str] = field(default_factory=dict)

    def refresh(self, proceed: Callable[[], bool] = _always) -> int:
        """Take in what a growing source has; to be called before a round. Other sources are read by the pass.

        Args:
            proceed: asked after every block whether to go on; what is left waits for the next round.

        Returns:
            How many examples were new.

        Raises:
            DataError: the source has failed.
            OSError: the disk is full; nothing was lost.
        """
        return self.take(proceed)

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """What rounds learn from; see Dataset."""
        return self.train.batches(batch_size, rng)


def open_local(data: Data, manifest: Manifest, *, directory: Path, device: str) -> Local:
    """The data that a configuration names, as rounds need it.

    Args:
        data: the configuration.
        manifest: what the model wants.
        directory: of the device's state; the replay buffer is a folder in it.
        device: its id, which seeds the sampling.

    Raises:
        DataError: it is not there, does not fit the model, or does not grow although it is to be replayed.
    """
    source = open_source(data.source, data.options, manifest)
    if data.holdout and source.overlaps:
        shared = "held-out windows share rows with those that train, and look better than they are"
        source.note("holdout", f"{shared}: stride = window measures")
    if not data.replay_examples:
        holdout = Examples(source, data.holdout, "holdout") if data.holdout else None
        return Local(Examples(source, data.holdout), holdout, notes=source.notes)
    if not source.grows:
        raise DataError(
            f"{data.source} is read whole in every round, [data] replay_examples is for sources that grow:"
            ' a function that yields what is new, or a SQLite query with since = "rowid" in [data.options]'
        )
    replay = _replay(data, manifest, directory, device)
    held_out = replay.side("holdout") if data.holdout else None
    return Local(replay.side("train"), held_out, partial(replay.take, source), source.notes)


def open_measured(data: Data, manifest: Manifest, *, directory: Path, device: str) -> Dataset:
    """What `edgeclient evaluate` measures on: the holdout if there is one, else all examples; nothing is changed.

    Raises:
        DataError: see `open_local`.
    """
    if data.replay_examples:
        return _replay(data, manifest, directory, device).side("holdout" if data.holdout else "train")
    local = open_local(data, manifest, directory=directory, device=device)
    return local if local.holdout is None else local.holdout


def gain(
    trainer: Trainer,
    holdout: Dataset | None,
    *,
    version: int,
    parameters: F32,
    made: LocalRound,
    local: F32,
    proceed: Callable[[], bool] = _always,
) -> Gain | None:
    """Measure a round on the holdout, at most 1,024 examples of it; None when there is nothing to measure on.

    Args:
        trainer: of the model.
        holdout: what training has not seen.
        version: the model version that the round began from.
        parameters: of that version, float32 (n,).
        made: the round.
        local: running statistics that it began with, float32 (l,).
        proceed: asked before each batch whether there is time for this; without, the result is None.

    Raises:
        DataError: the data does not fit the model.
    """
    if holdout is None:
        return None
    some = _Some(holdout, proceed)
    try:
        before = trainer.evaluate(parameters, some, local)
        after = trainer.evaluate(made.applied_to(parameters), some, made.local)
    except (NoExamplesError, _StoppedError):
        return None
    return Gain(version, after.num_examples, before.loss, after.loss, before.accuracy, after.accuracy)


class _StoppedError(Exception):
    """There is no time to measure."""


@dataclass(frozen=True, slots=True)
class _Some:
    """The first batches of a dataset."""

    dataset: Dataset
    proceed: Callable[[], bool]

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        left = _MOST_MEASURED
        for batch in self.dataset.batches(batch_size, rng):
            if not self.proceed():
                raise _StoppedError
            yield tuple(array[:left] for array in batch)
            left -= len(batch[-1])
            if left <= 0:
                return


def _replay(data: Data, manifest: Manifest, directory: Path, device: str) -> Replay:
    return Replay(
        directory / REPLAY,
        manifest,
        data.replay_examples,
        data.holdout,
        seed=zlib.crc32(device.encode()),
        about={"source": data.source, "options": data.options},
        name=data.source,
    )
