"""What a fleet is asked for, its task, and the files that it runs from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from broker.demo import files
from broker.demo.plan import AGGREGATOR
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.compress.arrays import F32, I64
from edgeclient.settings import Mqtt
from edgeclient.wire.announcement import Policy
from tools.chaos.schedule import Faults

TASK: Final = "chaos"
# Small enough that uploads, not model downloads, are the traffic.
BUNDLE: Final = Path(__file__).with_name("task.bundle")
FEATURES: Final = 128
CLASSES: Final = 10
EXAMPLES: Final = 64
# 1,161 of 1,290 entries as float32: a frame of 4.8 kB, and a residual that is not empty.
DENSITY: Final = 0.9
_ALWAYS: Final = "min_free_disk_bytes = 0"
_NEVER: Final = f"min_free_disk_bytes = {1 << 50}"  # no disk is so large: no training


@dataclass(frozen=True, slots=True)
class Plan:
    """What `--fleet` was asked for; see its options."""

    out: Path
    broker: str
    seed: int
    updates: int
    devices: int
    goal: int
    kill_every_s: float
    outage_s: float
    faults: Faults
    upload: tuple[str, ...]
    sabotage: str | None

    @property
    def names(self) -> list[str]:
        """Device ids."""
        return [f"device-{i}" for i in range(self.devices)]

    def config(self, name: str) -> Path:
        """The configuration of the aggregator or of a device."""
        return self.out / "aggregator.toml" if name == AGGREGATOR else self.out / name / "device.toml"

    def log(self, name: str) -> Path:
        """What a process says."""
        return self.out / "logs" / f"{name}.log"


def examples(seed: int, device: int) -> tuple[F32, I64]:
    """A device's own data: features (64, 128), labels (64,).

    Example:
        >>> x, labels = examples(1, 0)
        >>> x.shape, labels.shape
        ((64, 128), (64,))
    """
    rng = np.random.default_rng([seed, device])
    x = rng.normal(0, 1, (EXAMPLES, FEATURES)).astype(np.float32)
    return x, rng.integers(0, CLASSES, EXAMPLES)


def write(plan: Plan, port: int, links: dict[str, int]) -> Aggregator:
    """Files that a person would write by hand, and the task; `links` says where each device finds the broker."""
    files.write_aggregator(plan.config(AGGREGATOR), port)
    for i, name in enumerate(plan.names):
        (plan.out / name).mkdir()
        x, labels = examples(plan.seed, i)
        np.savez(plan.out / name / "examples.npz", x=x, labels=labels)
        more = f'[training]\nseed = {plan.seed}\nmax_density = 1.0\n[upload]\nvalues = "float32"\n'
        more += "".join(f"{line}\n" for line in plan.upload)
        files.write_device(plan.config(name), name, links[name], task=TASK, source="examples.npz", more=more)
    settings = Aggregator(directory=plan.out / "aggregator", mqtt=Mqtt(port=port))
    policy = Policy(density=DENSITY, learning_rate=0.05, max_staleness=1 << 20)
    made = Task(goal=plan.goal, deadline_s=1.0, min_interval_s=0.0, keep_frames_of_versions=-1, policy=policy)
    add_task(settings, TASK, BUNDLE.read_bytes(), made)
    return settings


def drain_only(plan: Plan, name: str) -> None:
    """From its next start on a device sends what it has, and trains no more."""
    config = plan.config(name)
    config.write_text(config.read_text().replace(_ALWAYS, _NEVER))
