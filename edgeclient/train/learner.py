"""The device's learning side: a model and what the device grants in, a local round out; the agent decides when."""

import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.compress.arrays import F32
from edgeclient.settings import Device, Training
from edgeclient.train.batches import NoExamplesError
from edgeclient.train.compiled import Statistics
from edgeclient.train.local import Gain, Local, gain, open_local
from edgeclient.train.rounds import micro_batch, peak_bytes
from edgeclient.train.trainer import Interrupted, LocalRound, Plan, Trainer, TrainingError
from edgeclient.train.trainers import open_trainer
from edgeclient.wire.announcement import Announcement, Policy

_LOG = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[Path, Manifest, Device], tuple[Trainer, Local]]
Proceed: TypeAlias = Callable[[], bool]
Limit: TypeAlias = Callable[[], float]  # seconds


class Untrained(NamedTuple):
    """Nothing was learnt and nothing is lost.

    Attributes:
        cause: conditions ended before a first step; there is no example yet; this version cannot be trained from.
        why: the same in plain words.
    """

    cause: Literal["interrupted", "starved", "failed"]
    why: str


def open_bundle(directory: Path, manifest: Manifest, settings: Device) -> tuple[Trainer, Local]:
    """The trainer of a bundle, and the local data that fits it."""
    trainer = open_trainer(directory, settings.training.runtime, settings.training.threads)
    return trainer, open_local(settings.data, manifest, directory=settings.directory, device=settings.device)


def order(seed: int, device: str, version: int) -> np.random.Generator:
    """What orders the examples of a device's round: each version another way, the same one if it is trained again."""
    return np.random.default_rng([seed, zlib.crc32(device.encode()), version])


def plan_of(policy: Policy, own: Training, limit_s: float = math.inf) -> Plan:
    """A round as the task asks for it and as far as the device grants it; it ends after so many seconds.

    Example:
        >>> plan_of(Policy(local_epochs=20), Training(max_epochs=5)).epochs
        5
    """
    return Plan(
        policy.learning_rate,
        min(policy.local_epochs, own.max_epochs),
        policy.batch_size,
        micro_batch=own.max_batch,
        clip_norm=policy.clip_norm or None,
        max_steps=policy.local_steps or None,
        max_seconds=min(own.max_seconds, policy.local_seconds or own.max_seconds, limit_s),
        duty=own.duty_percent / 100,
    )


class Learner:
    """Trains rounds of one task.

    Args:
        settings: the device's configuration.
        opener: gives trainer and data for a bundle.

    """

    def __init__(self, settings: Device, opener: Opener = open_bundle) -> None:
        self._settings = settings
        self._opener = opener
        self._opened: tuple[Path, Trainer, Local] | None = None
        self._example_bytes = 0.0  # that training takes, as measured in the first round
        self._gain: Gain | None = None  # of the last round
        self._starved = ""  # why there is nothing to learn from

    def open(self, bundle: Path) -> None:
        """Open trainer and data for the bundle in this folder, unless they are open.

        Raises:
            TrainingError, DataError: the device cannot learn this; the text says what to do.
        """
        if self._opened is None or self._opened[0] != bundle:
            self._opened = (bundle, *self._opener(bundle, read_manifest(bundle), self._settings))

    @property
    def told(self) -> dict[str, Any]:
        """What stays on the device, for its owner: `gain` of the last round, and lines about the `data`."""
        notes = self._opened[2].notes.values() if self._opened else ()
        return {"gain": self._gain and asdict(self._gain), "data": [*filter(None, [self._starved]), *notes]}

    def train(
        self, announced: Announcement, parameters: F32, free_bytes: int | None, proceed: Proceed, limit_s: Limit
    ) -> LocalRound | Untrained:
        """Train once from the parameters (n,) of the bundle that is open.

        Args:
            announced: the version, and how to train from it.
            parameters: of that version, float32 (n,).
            free_bytes: memory there is; None if unknown.
            proceed: asked before each step whether training may go on; what was learnt until then counts.
            limit_s: asked when the data is there: after so many seconds no further step begins.

        Raises:
            DataError: the source has failed.
        """
        assert self._opened is not None, "open comes first"
        bundle, trainer, data = self._opened
        own = self._settings
        rng = order(own.training.seed, own.device, announced.version)
        try:
            data.refresh(proceed)
            micro = micro_batch(own.training.max_batch, self._example_bytes, free_bytes)
            granted = plan_of(announced.policy, own.training, limit_s())
            held_bytes, plan = peak_bytes(), replace(granted, micro_batch=micro, proceed=proceed)
            made = trainer.train(parameters, data, plan, rng, Statistics(bundle).load())
        except Interrupted as error:
            return Untrained("interrupted", str(error))
        except TrainingError as error:
            return Untrained("failed", str(error))
        except NoExamplesError as error:
            self._starved = str(error)
            return Untrained("starved", self._starved)
        self._starved = ""
        at_once = min(plan.micro_batch or plan.batch_size, plan.batch_size)
        self._example_bytes = self._example_bytes or (peak_bytes() - held_bytes) / at_once
        _LOG.info("trained version %d: %d steps, loss %.4f", announced.version, made.steps, made.loss)
        return made

    def keep(self, version: int, parameters: F32, made: LocalRound, proceed: Proceed) -> None:
        """After a round is committed: keep its running statistics, and measure what it was worth.

        Args:
            version: that it began from.
            parameters: of that version, float32 (n,).
            made: the round.
            proceed: as of `train`; without time for it, nothing is measured.
        """
        assert self._opened is not None, "train comes first"
        bundle, trainer, data = self._opened
        statistics = Statistics(bundle)
        before = statistics.load()
        try:
            statistics.save(made.local)
        except OSError as error:  # a full disk: the round is committed, and training moves them again
            _LOG.warning("running statistics were not kept: %s", error)
        self._gain = gain(
            trainer, data.holdout, version=version, parameters=parameters, made=made, local=before, proceed=proceed
        )
