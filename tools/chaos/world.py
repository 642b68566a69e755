"""The world of the crash campaign: two devices, an aggregator, and a network that delays, doubles and drops."""

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.settings import Aggregator, Embedded, Task
from broker.task.new import add_task
from edgeclient.settings import Device, load
from edgeclient.wire.announcement import Policy
from tools.chaos import lives
from tools.chaos.lives import BUNDLE, TASK, Said

NAMES: Final = ("a", "b")
_DEVICE: Final = """
device = "{name}"
task = "{task}"
directory = "{name}"
audit = true
[data]
source = "tools.chaos.lives:nothing"
[upload]
values = "float32"
max_frame_bytes = 256
max_outbox_bytes = 2500
[training]
max_density = 1.0
accel = "auto"
[conditions]
preset = "eager"
min_free_disk_bytes = 0
max_written_bytes_per_day = 0
"""


@dataclass(slots=True)
class World:
    """Three stores, and what is on the way between them."""

    folder: Path
    seed: int
    sabotage: str | None
    rng: random.Random
    clock_s: float = 1e9
    retained: dict[str, bytes] = field(default_factory=dict)
    up: deque[Said] = field(default_factory=deque)
    down: dict[str, deque[Said]] = field(default_factory=lambda: {name: deque() for name in NAMES})
    late: list[tuple[int, Said]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    devices: dict[str, Device] = field(default_factory=dict)
    lives: int = 0
    sent_bytes: int = 0
    delivered: Counter[str] = field(default_factory=Counter)

    @property
    def settings(self) -> Aggregator:
        """Of the aggregator."""
        return Aggregator(directory=self.folder / "aggregator", embedded=Embedded())

    def config(self, name: str) -> Path:
        """Of a device."""
        return self.folder / f"{name}.toml"

    def drawn(self, inbox: deque[Said]) -> list[Said]:
        """What arrives in this life: some is late, some comes twice, some never, and in any order."""
        script: list[Said] = []
        if inbox is self.up:
            # A broker that comes back with what everybody has forgotten: copies after many lives.
            self.late += [(self.lives + self.rng.randint(3, 20), said) for said in inbox if self.rng.random() < 0.3]
            inbox += self.due(self.lives)
        for _ in range(len(inbox)):
            said, fate = inbox.popleft(), self.rng.random()
            if fate < 0.15:
                self.delivered["dropped"] += 1
            elif fate < 0.4:
                self.delivered["delayed"] += 1
                inbox.append(said)
            else:
                script.append(said)
                if fate < 0.6:
                    self.delivered["doubled"] += 1
                    self.rng.choice([inbox, script]).append(said)
        self.delivered["delivered"] += len(script)
        self.rng.shuffle(script)
        return script

    def due(self, life: int) -> list[Said]:
        """Late copies whose time has come."""
        due = [said for at, said in self.late if at <= life]
        self.late = [(at, said) for at, said in self.late if at > life]
        self.delivered["late"] += len(due)
        return due

    def spread(self, said: Said, *, retain: bool) -> None:
        """On its way: to whom it concerns, or kept for whoever asks."""
        if retain:
            self.retained[said.topic] = said.payload
            return
        kind, *rest = said.topic.split("/")[3:]
        if kind == "up":
            self.sent_bytes += len(said.payload)
            self.up.append(said)
        elif kind == "down":
            self.down[rest[0]].append(said)


def begun(folder: Path, seed: int, sabotage: str | None) -> World:
    """A new world."""
    world = World(folder, seed, sabotage, random.Random(seed))  # noqa: S311 (a simulation)
    policy = Policy(density=0.15, max_staleness=2)
    add_task(
        world.settings,
        TASK,
        BUNDLE,
        Task(goal=2, deadline_s=30, min_interval_s=0, keep_frames_of_versions=-1, policy=policy),
    )
    for name in NAMES:
        world.config(name).write_text(_DEVICE.format(name=name, task=TASK))
        world.devices[name] = load(world.config(name), Device)
        world.devices[name].directory.mkdir()
    lives.warm_up()
    return world
