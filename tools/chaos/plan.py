"""What a fleet is asked for, and the files that it runs from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from broker.demo import files
from broker.demo.plan import AGGREGATOR
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.settings import Mqtt
from edgeclient.wire.announcement import Policy
from tools.chaos import task
from tools.chaos.faults import Faults

TASK: Final = "chaos"
_ALWAYS: Final = "min_free_disk_bytes = 0"
_NEVER: Final = f"min_free_disk_bytes = {1 << 50}"  # no disk is so large: no training


@dataclass(frozen=True, slots=True)
class Plan:
    """What `--fleet` was asked for.

    Attributes:
        out: folder for everything; made anew.
        broker: "nats" or "mosquitto".
        seed: of faults, kills and data.
        updates: so many are to be applied.
        devices: how many.
        goal: updates per version.
        kill_every_s: mean time between kills; 0: none.
        outage_s: no link for so long at half of the updates; 0: never.
        faults: of every link.
        upload: lines for [upload] of the devices' files.
        sabotage: promise to break, or None.
    """

    out: Path
    broker: str
    seed: int
    updates: int
    devices: int
    goal: int
    kill_every_s: float
    outage_s: float
    faults: Faults
    upload: tuple[str, ...] = ()
    sabotage: str | None = None

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


def write(plan: Plan, port: int, links: dict[str, int]) -> Aggregator:
    """Files that a person would write by hand, and the task; `links` says where each device finds the broker."""
    files.write_aggregator(plan.config(AGGREGATOR), port)
    for i, name in enumerate(plan.names):
        (plan.out / name).mkdir()
        x, labels = task.examples(plan.seed, i)
        np.savez(plan.out / name / "examples.npz", x=x, labels=labels)
        more = f'[training]\nseed = {plan.seed}\nmax_density = 1.0\n[upload]\nvalues = "float32"\n'
        more += "".join(f"{line}\n" for line in plan.upload)
        files.write_device(plan.config(name), name, links[name], task=TASK, source="examples.npz", more=more)
    settings = Aggregator(directory=plan.out / "aggregator", mqtt=Mqtt(port=port))
    policy = Policy(density=task.DENSITY, learning_rate=0.05, max_staleness=1 << 20)
    made = Task(goal=plan.goal, deadline_s=1.0, min_interval_s=0.0, keep_frames_of_versions=-1, policy=policy)
    add_task(settings, TASK, task.BUNDLE.read_bytes(), made)
    return settings


def drain_only(plan: Plan, name: str) -> None:
    """From its next start on a device sends what it has, and trains no more."""
    config = plan.config(name)
    config.write_text(config.read_text().replace(_ALWAYS, _NEVER))
