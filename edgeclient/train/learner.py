"""The device's learning side: model → delta → sparse update → frames → ONE commit; the agent decides when."""

import logging
import math
import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeclient.audit import Auditor
from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.compress.feedback import compress, fewer
from edgeclient.compress.pace import Limits, Pace, learnt, target, within_budget
from edgeclient.compress.quantise import Quantiser
from edgeclient.durable.store import Store
from edgeclient.models.slots import Model
from edgeclient.settings import Device
from edgeclient.train.effort import micro_batch, peak_bytes
from edgeclient.train.local import Gain, Local, gain, open_local
from edgeclient.train.statistics import Statistics
from edgeclient.train.trainer import LocalRound, Plan, Trainer
from edgeclient.train.trainers import open_trainer
from edgeclient.uplink.outbox import merged
from edgeclient.wire import frame
from edgeclient.wire.announcement import Announcement

_LOG = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[Path, Manifest, Device], tuple[Trainer, Local]]


def open_bundle(directory: Path, manifest: Manifest, settings: Device) -> tuple[Trainer, Local]:
    """The trainer of a bundle, and the local data that fits it."""
    trainer = open_trainer(directory, settings.training.runtime, settings.training.threads)
    return trainer, open_local(settings.data, manifest, directory=settings.directory, device=settings.device)


class Learner:
    """Trains rounds of one task into a store.

    Args:
        settings: the device's configuration.
        opener: gives trainer and data for a bundle.
    """

    def __init__(self, settings: Device, opener: Opener = open_bundle) -> None:
        self._settings = settings
        self._opener = opener
        self._opened: tuple[Path, Manifest, Trainer, Local] | None = None
        self._auditor: Auditor | None = None
        self._threshold = 0.0  # of the last round; speeds the next one up
        self._pace = Pace()
        self._example_bytes = 0.0  # that training takes, as measured in the first round
        self.gain: Gain | None = None  # of the last round, on the holdout
        self.residual_norm: float | None = None  # after the last round

    def open(self, model: Model) -> None:
        """Open trainer and data for a model's bundle, unless they are open.

        Raises:
            TrainingError, DataError: the device cannot learn this; the text says what to do.
        """
        if self._opened is None or self._opened[0] != model.bundle_directory:
            manifest = read_manifest(model.bundle_directory)
            self._opened = (
                model.bundle_directory,
                manifest,
                *self._opener(model.bundle_directory, manifest, self._settings),
            )

    def begin(self, store: Store) -> None:
        """Open the auditor's account of the store's epoch, if this device keeps one."""
        if self._settings.audit:
            account = store.account()
            self._auditor = Auditor(
                self._settings.directory / "audit",
                epoch=account.epoch,
                size=account.size,
                committed=account.round_token,
            )

    def round(
        self,
        model: Model,
        store: Store,
        *,
        frame_bytes: int,
        free_bytes: int | None,
        proceed: Callable[[], bool] | None = None,
    ) -> int:
        """Train once from the model and commit what came of it.

        Args:
            model: what to train from; it is open.
            store: where the round goes.
            frame_bytes: of a frame, at most.
            free_bytes: memory there is; None if unknown.
            proceed: asked before each step whether training may go on; what was learnt until then is committed.

        Returns:
            Bytes of the new frames.

        Raises:
            Interrupted: nothing was changed; try again when conditions are better.
            TrainingError, NotFinite: nothing was changed; this version cannot be trained from.
            NoExamplesError: nothing was changed; a growing source may have some later.
            DiskFull: nothing was changed; try again when there is room.
        """
        assert self._opened is not None
        announced, account = model.announcement, store.account()
        _, manifest, trainer, data = self._opened
        statistics = Statistics(model.bundle_directory)
        rng = np.random.default_rng(
            [self._settings.training.seed, zlib.crc32(self._settings.device.encode()), announced.version]
        )
        data.refresh(proceed)
        held_bytes, plan, local = peak_bytes(), self._plan(announced, free_bytes, proceed), statistics.load()
        made = trainer.train(model.parameters, data, plan, rng, local)
        self._example_bytes = self._example_bytes or (peak_bytes() - held_bytes) / min(
            plan.micro_batch or plan.batch_size, plan.batch_size
        )
        origin = frame.Origin(
            announced.task,
            self._settings.device,
            bytes.fromhex(announced.layout)[:8],
            account.next_update,
            announced.version,
            made.num_examples,
        )
        coding = frame.Coding(frame_bytes, manifest.layout.tensors, self._settings.training.accel)
        quantiser = Quantiser(announced.value_limit, self._settings.upload.values, bounds=manifest.layout.bounds)
        joining = self._merged(store, announced)
        limits = self._limits(announced, made, free_bytes)
        aim = target(
            announced.size,
            announced.policy.density,
            self._pace,
            limits,
            steady=announced.policy.steady,
            warm_up=announced.version < announced.policy.warm_up,
        )
        residual, idle = store.slots()
        compressed = compress(
            made.delta,
            residual,
            0 if self._full(store, joining) else aim,
            returned=[frame.decode(store.body(id_), coding.tensors).update for id_ in joining],
            quantiser=quantiser,
            accel=coding.accel,
            last_threshold=self._threshold,
            out=idle,
        )
        layers = frame.encode_layers(compressed.update, origin, coding)
        entries = compressed.update.indices.size
        while (fit := within_budget(entries, _bytes(layers), limits.budget_bytes)) < entries:
            compressed = fewer(compressed, fit, quantiser)
            entries, layers = fit, frame.encode_layers(compressed.update, origin, coding)
        self._pace = learnt(self._pace, aim, compressed.selection.values, entries=entries, frame_bytes=_bytes(layers))
        token = secrets.token_hex(8)
        if self._auditor is not None:
            self._auditor.begin(token, made.delta)
        store.commit_round(
            layers,
            compressed.residual,
            token=token,
            base_version=announced.version,
            merged=joining,
            now_s=time.time(),
        )
        if self._auditor is not None:
            self._auditor.confirm()
        self._threshold = compressed.threshold
        # Once a round, while the residual is in memory anyway: 0.2 ms per million parameters, measured.
        norm = math.sqrt(np.dot(compressed.residual, compressed.residual))
        self.residual_norm = norm if math.isfinite(norm) else None
        try:
            statistics.save(made.local)
        except OSError as error:  # a full disk: the round is committed, and training moves them again
            _LOG.warning("running statistics were not kept: %s", error)
        _LOG.info("trained version %d: %d steps, loss %.4f", announced.version, made.steps, made.loss)
        self.gain = gain(
            trainer,
            data.holdout,
            version=announced.version,
            parameters=model.parameters,
            made=made,
            local=local,
            proceed=proceed,
        )
        return _bytes(layers)

    def _plan(self, announced: Announcement, free_bytes: int | None, proceed: Callable[[], bool] | None) -> Plan:
        policy, own = announced.policy, self._settings.training
        return Plan(
            policy.learning_rate,
            min(policy.local_epochs, own.max_epochs),
            policy.batch_size,
            micro_batch=micro_batch(own.max_batch, self._example_bytes, free_bytes),
            clip_norm=policy.clip_norm or None,
            max_steps=policy.local_steps or None,
            max_seconds=min(own.max_seconds, policy.local_seconds or own.max_seconds),
            proceed=proceed,
            duty=own.duty_percent / 100,
        )

    def _limits(self, announced: Announcement, made: LocalRound, free_bytes: int | None) -> Limits:
        budgets = announced.policy.update_bytes, self._settings.upload.max_update_bytes
        return Limits(
            self._settings.training.max_density, min(filter(None, budgets), default=0), made.share, free_bytes
        )

    def _merged(self, store: Store, announced: Announcement) -> list[int]:
        """Frames whose entries join this round: what came back, and what never left and is superseded."""
        rows = merged(store.outbox(), version=announced.version, max_staleness=announced.policy.max_staleness)
        return [row.id for row in rows]

    def _full(self, store: Store, merged: Sequence[int]) -> bool:
        """Whether the outbox has no room for another update even so: then the whole delta joins the residual."""
        held = sum(row.size for row in store.outbox().rows if row.id not in merged)
        return held >= self._settings.upload.max_outbox_bytes


def _bytes(layers: list[list[bytes]]) -> int:
    return sum(len(body) for bodies in layers for body in bodies)
