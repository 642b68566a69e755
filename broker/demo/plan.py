"""What is asked of a demo, and where everything of it lies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TASK: Final = "watch-har"
AGGREGATOR: Final = "aggregator"


class DemoError(Exception):
    """The demo cannot run here, or a process ended by itself; one line that says which and where its log is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `edgebroker demo` was asked for; see its options.

    Example:
        >>> plan = Plan(Path("run"), seconds=60, devices=16, density=0.01, seed=0, sabotage=None)
        >>> plan.config("person-1-left").as_posix(), plan.log("aggregator").as_posix()
        ('run/devices/person-1-left/device.toml', 'run/logs/aggregator.log')
    """

    out: Path
    seconds: float
    devices: int
    density: float
    seed: int
    sabotage: str | None
    web: bool = True

    def config(self, name: str) -> Path:
        """The configuration of the aggregator or of a device."""
        return self.out / "aggregator.toml" if name == AGGREGATOR else self.out / "devices" / name / "device.toml"

    def log(self, name: str) -> Path:
        """What a process says."""
        return self.out / "logs" / f"{name}.log"
