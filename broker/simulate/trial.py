"""What is tried with a simulated fleet, and what that came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from broker.monitor.measures import Cost
from broker.settings import Task
from broker.simulate.links import FLOPS, Availability, Links
from edgeclient.compress.arrays import F32


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        settings: of the task, as `edgebroker task add` takes them.
        versions: how many are made.
        cohort: so many devices train at once; 0: every one that is there.
        refill: "version": the next cohort begins at the next version; "always": whoever has ended makes room for
            another, so that updates come late.
        seed: draws links, cohorts and the order of examples.
        every: each so many versions, and the last, are evaluated.
        gate: whether a version that falls off a cliff is held back, as the service does.
        links, availability: see there.
        flops: operations a second of a device.
    """

    settings: Task
    versions: int = 100
    cohort: int = 0
    refill: Literal["version", "always"] = "version"
    seed: int = 0
    every: int = 1
    gate: bool = True
    links: Links = field(default_factory=Links)
    availability: Availability = field(default_factory=Availability)
    flops: float = FLOPS


@dataclass(frozen=True, slots=True)
class Point:
    """A version, and what had been spent when it came.

    Attributes:
        version: its number.
        time_s: virtual.
        metrics: what it is worth; empty if it was not evaluated.
        uplink_bytes, downlink_bytes: payloads and MQTT headers, first fetches included.
        updates: applied so far.
        held: whether the fleet does not see it.
    """

    version: int
    time_s: float
    metrics: Mapping[str, float]
    uplink_bytes: int
    downlink_bytes: int
    updates: int
    held: bool = False

    @property
    def accuracy(self) -> float | None:
        """On the test set; None if that is not known."""
        return self.metrics.get("accuracy")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a trial came to.

    Attributes:
        points: of every version.
        late, avg: accuracies, see `measures`; None where labels are no classes.
        avg_loss: of the mean of the last versions.
        parameters: of the last version, float32 (n,).
        digest: SHA-256 of them.
        cost: in both directions, without status messages.
        update_bytes: of the frames of an update, mean.
        cosine: between what an update says and its delta, mean; 1 keeps the direction.
        train_s, send_s, server_s: CPU seconds here, in all.
        staleness: versions between base and arrival, mean.
        refused: frames, by reason.
        held: versions held back.
    """

    points: Sequence[Point]
    late: float | None
    avg: float | None
    avg_loss: float
    parameters: F32
    digest: str
    cost: Cost
    update_bytes: float
    cosine: float
    train_s: float
    send_s: float
    server_s: float
    staleness: float
    refused: Mapping[str, int]
    held: int

    def as_json(self) -> dict[str, Any]:
        """Everything but the parameters."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in {"parameters", "points", "cost"}}
        points = [{name: getattr(each, name) for name in Point.__slots__} for each in self.points]
        return {**values, **self.cost._asdict(), "points": points}
