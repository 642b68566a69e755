"""A round of local training over an engine that knows gradients: batches, steps, limits."""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import F32, I64
from edgeclient.train.batches import Batch, Dataset
from edgeclient.train.optimiser import stepper
from edgeclient.train.trainer import Evaluation, Interrupted, LocalRound, Plan, TrainingError

_EVALUATION_BATCH: Final = 256
# Of the free memory; the rest is for what else runs there, and for the update.
_SHARE: Final = 0.5


class Engine(Protocol):
    """Runs the graphs of a bundle on arrays that it is given once."""

    def begin(self, parameters: F32, statistics: F32, gradients: F32) -> None:
        """Read `parameters` (m,) at every call from now on, write `gradients` (m,) and `statistics` (s,)."""

    def learn(self, batch: Batch) -> float:
        """The loss of a batch; fills the gradients and moves the running statistics."""

    def judge(self, parameters: F32, statistics: F32, batch: Batch) -> tuple[float, F32]:
        """Loss and first output in evaluation mode."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundTrainer:
    """See Trainer.

    Attributes:
        manifest: of the bundle.
        engine: what computes.
        initial: the bundle's running statistics that stay on the device, float32 (l,).
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """

    manifest: Manifest
    engine: Engine
    initial: F32
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def train(
        self, parameters: F32, data: Dataset, plan: Plan, rng: np.random.Generator, local: F32 | None = None
    ) -> LocalRound:
        trained, domain = self.manifest.trained_size, self.manifest.layout.domain
        kept = domain.places[domain.places < trained]  # those with a gradient, which may lead out of their bounds
        low, high = domain.low[: kept.size], domain.high[: kept.size]
        weights = parameters[:trained].copy()
        # Shared statistics stand behind the trained parameters in the flat vector; local ones follow here.
        statistics = np.concatenate([parameters[trained:], self.initial if local is None else local])
        gradients = np.zeros(trained, np.float32)
        self.engine.begin(weights, statistics, gradients)
        optimiser = stepper(self.manifest.optimiser, trained)
        progress = _Progress(plan, self.clock, self.sleep)
        with np.errstate(all="ignore"):
            for batch in progress.batches(data, rng):
                loss = self._step(batch, plan, gradients)
                if loss is None:
                    progress.cut = True
                    break
                progress.add(loss, len(batch[-1]))
                optimiser.step(weights, gradients, plan.learning_rate)
                weights[kept] = np.clip(weights[kept], low, high)
            if not progress.steps:
                raise Interrupted("training was stopped before its first step")
            shared = len(parameters) - trained
            local_model = np.concatenate([weights, statistics[:shared]])
            absolute = domain.clipped(local_model[domain.places])
            delta = local_model - parameters
        loss = progress.loss
        if not (np.isfinite(loss) and np.isfinite(delta).all() and np.isfinite(statistics).all()):
            raise TrainingError(f"loss {loss}: the parameters diverge; a smaller learning rate may help")
        delta[domain.places] = 0
        return LocalRound(
            delta, progress.examples, progress.steps, progress.share, loss, statistics[shared:].copy(), absolute,
            domain.places,
        )  # fmt: skip

    def evaluate(self, parameters: F32, data: Dataset, local: F32 | None = None) -> Evaluation:
        trained, classes = self.manifest.trained_size, self.manifest.classes
        statistics = np.concatenate([parameters[trained:], self.initial if local is None else local])
        weights = np.ascontiguousarray(parameters[:trained])
        total, hits, examples, answers = 0.0, 0, 0, 0
        counts: I64 = np.zeros(classes or 0, np.int64)
        for batch in data.batches(_EVALUATION_BATCH, None):
            loss, output = self.engine.judge(weights, statistics, batch)
            labels = batch[-1]
            total += loss * len(labels)
            examples += len(labels)
            if classes is not None:
                asked = labels != self.manifest.ignored
                hits += int((output.argmax(axis=1) == labels)[asked].sum())
                answers += int(asked.sum())
                counts += np.bincount(labels[asked], minlength=classes)
        if classes is None or not answers:
            return Evaluation(None, total / examples, examples, None)
        return Evaluation(hits / answers, total / examples, examples, int(counts.max()) / answers)

    def _step(self, batch: Batch, plan: Plan, gradients: F32) -> float | None:
        """The mean loss of a batch; its mean gradient, clipped, in `gradients`. None if it was stopped halfway."""
        size = len(batch[-1])
        if plan.micro_batch is None or size <= plan.micro_batch:
            loss = self.engine.learn(batch)
        else:
            loss, total = 0.0, np.zeros_like(gradients)
            for first in range(0, size, plan.micro_batch):
                if first and plan.proceed is not None and not plan.proceed():
                    return None
                part = tuple(array[first : first + plan.micro_batch] for array in batch)
                share = len(part[-1]) / size
                loss += self.engine.learn(part) * share
                gradients *= np.float32(share)
                total += gradients
            gradients[:] = total
        if plan.clip_norm is not None and (norm := float(np.linalg.norm(gradients))) > plan.clip_norm:
            gradients *= np.float32(plan.clip_norm / norm)
        return loss


class _Progress:
    def __init__(self, plan: Plan, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._plan = plan
        self._clock = clock
        self._sleep = sleep
        self._total = 0.0
        self._seen = 0
        self._pass_steps = 0
        self.cut = False
        self.examples = 0
        self.steps = 0

    @property
    def loss(self) -> float:
        """Mean over what was seen of the last pass."""
        return self._total / self._seen if self._seen else float("nan")

    @property
    def share(self) -> float:
        """Steps taken of those that were asked for; a pass that was never finished counts as twice what was seen."""
        if not self.cut:
            return 1.0
        asked = self._plan.epochs * (self._pass_steps or 2 * self.steps)
        return min(1.0, self.steps / min(asked, self._plan.max_steps or asked))

    def batches(self, data: Dataset, rng: np.random.Generator) -> Iterator[Batch]:
        """Those of all passes, up to the plan's limits; at least one."""
        plan, began = self._plan, self._clock()
        for _ in range(plan.epochs):
            self._total, self._seen = 0.0, 0
            for batch in data.batches(plan.batch_size, rng):
                if self.steps and plan.max_steps is not None and self.steps >= plan.max_steps:
                    return
                if plan.proceed is not None and not plan.proceed():
                    self.cut = True
                    return
                if self.steps and plan.max_seconds is not None and self._clock() - began >= plan.max_seconds:
                    self.cut = True
                    return
                if plan.duty == 1:
                    yield batch
                    continue
                step_began = self._clock()
                yield batch
                self._sleep((self._clock() - step_began) * (1 / plan.duty - 1))
            self._pass_steps = self._pass_steps or self.steps

    def add(self, loss: float, examples: int) -> None:
        """A step was taken."""
        self._total += loss * examples
        self._seen += examples
        self.steps += 1
        self.examples = max(self.examples, self._seen)


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def micro_batch(granted: int, example_bytes: float, free_bytes: int | None) -> int:
    """Examples in memory at once.

    Args:
        granted: by the device's owner, at most so many.
        example_bytes: what training took for each example, as measured; 0 if it was not.
        free_bytes: memory there is; None if unknown.

    Example:
        >>> micro_batch(1024, 1 << 20, 64 << 20), micro_batch(1024, 0, 64 << 20), micro_batch(1024, 1 << 30, 1 << 20)
        (32, 1024, 1)
    """
    if not example_bytes or free_bytes is None:
        return granted
    return max(1, min(granted, int(free_bytes * _SHARE / example_bytes)))
