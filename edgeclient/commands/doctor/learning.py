"""Whether the model that has come can be learnt here: a loss on the right value, a learning rate that it survives."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.commands.doctor.findings import Finding
from edgeclient.compress.arrays import F32, Array
from edgeclient.models.slots import Model, Models
from edgeclient.settings import Device
from edgeclient.train.batches import Batch, DataError, Dataset
from edgeclient.train.compiled import Statistics
from edgeclient.train.inference import answering
from edgeclient.train.local import gain, open_measured
from edgeclient.train.trainer import Plan, TrainingError
from edgeclient.train.trainers import open_trainer

_STEPS: Final = 20
_TRAIN_S: Final = 5.0
_EXAMPLES: Final = 512  # a slow board goes over them four times
# Of few steps, a sound rate makes the loss smaller or leaves it about where it was.
_FACTOR: Final = 2.0
_SLACK: Final = 0.5
_LARGE: Final = 1000.0
_NEAR: Final = 1e-4


def learning(settings: Device) -> Iterator[Finding]:
    """Of the model and its task's learning rate, on this device's own data; nothing is kept. Silent without a model."""
    directory = settings.models
    model = Models(directory).active() if directory.is_dir() else None
    if model is None:
        return
    try:
        data = open_measured(settings.data, model.manifest, directory=settings.directory, device=settings.device)
        local = Statistics(model.bundle_directory).load()
        *inputs, _ = next(data.batches(_STEPS, None))
        answer = answering(model.bundle_directory, model.manifest, model.parameters, local)
        yield from judge_answers(model.manifest, answer(_enlarged(inputs)))
        yield from _tried(settings, model, data, local)
    except (DataError, TrainingError, StopIteration):
        return  # other checks tell


def judge_answers(manifest: Manifest, answers: F32) -> Iterator[Finding]:
    """Whether the loss is put on scores, not on probabilities; `answers` (batch, ...) to inputs far too large."""
    again = "compile it with --output NAME, the value that goes into the {}"
    if manifest.loss == "cross_entropy" and manifest.classes == 1:
        advice = "compile it with --loss bce_with_logits"
        yield Finding("fail", "learning", "the model has one class, so that its loss is always 0", advice)
    elif manifest.loss == "cross_entropy" and (abs(answers.sum(axis=1) - 1) < _NEAR).all() and (answers >= 0).all():
        what = "the model ends in a Softmax, and cross_entropy applies one itself: it learns slowly and stops early"
        yield Finding("warn", "learning", what, again.format("Softmax"))
    elif manifest.loss == "bce_with_logits" and (answers >= 0).all() and (answers <= 1).all() and np.ptp(answers):
        what = "the model ends in a Sigmoid, and bce_with_logits applies one itself: it learns slowly and stops early"
        yield Finding("warn", "learning", what, again.format("Sigmoid"))


def judge_rate(rate: float, before: float, after: float, steps: int) -> Finding:
    """Whether a learning rate kills: the loss before and after a few steps."""
    what = f"loss {before:.4g} → {after:.4g} in {steps} steps at the task's learning rate of {rate:g}"
    if after <= _FACTOR * before + _SLACK:
        return Finding("ok", "learning", what)
    advice = f"on the server: a smaller [policy] learning_rate for the task, such as {rate / 10:g}; or scale the inputs"
    return Finding("warn", "learning", f"{what}: it kills the model", advice)


def _enlarged(inputs: list[Array]) -> list[Array]:
    return [each * np.float32(_LARGE) if each.dtype == np.float32 else each for each in inputs]


def _tried(settings: Device, model: Model, data: Dataset, local: F32) -> Iterator[Finding]:
    policy, own = model.announcement.policy, settings.training
    trainer = open_trainer(model.bundle_directory, own.runtime, own.threads)
    some = _Some(data, max(policy.batch_size, min(_EXAMPLES, _STEPS * policy.batch_size)))
    plan = Plan(
        policy.learning_rate,
        1,
        policy.batch_size,
        micro_batch=own.max_batch,
        clip_norm=policy.clip_norm or None,
        max_steps=_STEPS,
        max_seconds=_TRAIN_S,
    )
    before = trainer.evaluate(model.parameters, some, local).loss
    try:
        made = trainer.train(model.parameters, some, plan, np.random.default_rng(0), local)
    except TrainingError:
        yield judge_rate(policy.learning_rate, before, float("nan"), _STEPS)
        return
    found = gain(trainer, some, version=model.announcement.version, parameters=model.parameters, made=made, local=local)
    if found is not None:
        yield judge_rate(policy.learning_rate, found.loss_before, found.loss_after, made.steps)


@dataclass(frozen=True, slots=True)
class _Some:
    """The first examples of a dataset."""

    dataset: Dataset
    most: int

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        left = self.most
        for batch in self.dataset.batches(batch_size, rng):
            yield tuple(array[:left] for array in batch)
            left -= len(batch[-1])
            if left <= 0:
                return
