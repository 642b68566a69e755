"""A simulated device: a local round from a version to the messages of an update."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.simulate.residuals import Residuals
from broker.simulate.scheme import Scheme, Turn
from broker.simulate.world import Part, World
from edgeclient.compress.arrays import F32
from edgeclient.settings import Training
from edgeclient.train.learner import order, plan_of
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.frame import Frame

# Nobody's time ends a simulated round but the task's own limits, which would make it depend on the machine.
_GRANTED = Training(max_epochs=1000, max_seconds=86_400.0, max_batch=1 << 20)


@dataclass(slots=True, eq=False)
class Device:
    """What a device is and keeps.

    Attributes:
        at: its row among residuals.
        name: its id.
        examples: its own.
        rate: bytes a second of its link.
        updates: made so far.
        trained: newest version that it trained from; -1: none yet.
        memory: of the scheme.
        statistics: running statistics that stay on it, float32 (l,).
    """

    at: int
    name: str
    examples: Part
    rate: float
    updates: int = 0
    trained: int = -1
    memory: dict[str, Any] = field(default_factory=dict)
    statistics: F32 | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What a round came to.

    Attributes:
        device: who made it.
        number: of the update.
        bodies: its messages; none where nothing was worth sending.
        made: the round; its delta tells how well the direction is kept.
        examples: that were seen, passes counted each.
        train_s, send_s: CPU seconds here, of training and of making the messages.
    """

    device: Device
    number: int
    bodies: Sequence[bytes]
    made: LocalRound
    examples: int
    train_s: float
    send_s: float


def local_round(
    world: World, scheme: Scheme, residuals: Residuals, device: Device, announced: Announcement, parameters: F32,
    seed: int,
) -> Update:  # fmt: skip
    """Train once, compress, keep the residual.

    Args:
        world: with the trainer.
        scheme: how the delta travels.
        residuals: of all devices.
        device: who; its state goes on.
        announced: the version.
        parameters: of that, float32 (n,).
        seed: of the run.
    """
    plan = plan_of(announced.policy, _GRANTED)
    began_s = time.process_time()
    rng = order(seed, device.name, announced.version)
    made = world.trainer.train(parameters, device.examples, plan, rng, device.statistics)
    trained_s = time.process_time()
    layout = world.manifest.layout
    residual = residuals.read(device.at) if scheme.feedback else np.zeros(layout.size, np.float32)
    kept: F32 = np.empty(layout.size, np.float32)
    bodies = scheme.send(
        made, residual, kept, Turn(announced, layout, device.name, device.updates, seed, device.memory)
    )
    sent_s = time.process_time()
    if scheme.feedback:
        residuals.write(device.at, kept)
    number = device.updates
    device.updates, device.trained, device.statistics = number + 1, announced.version, made.local
    examples = min(made.steps * plan.batch_size, made.num_examples * plan.epochs)
    return Update(device, number, bodies, made, examples, trained_s - began_s, sent_s - trained_s)


def returned(residuals: Residuals, device: Device, frames: Sequence[Frame]) -> None:
    """What was refused is the device's again."""
    row = residuals.read(device.at)
    for each in frames:
        each.update.add_to(row)
    residuals.write(device.at, row)
