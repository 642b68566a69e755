"""What goes into the ledger and comes out, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from edgeclient.wire.messages import Refusal


class TaskRow(NamedTuple):
    """A task: its id, the digest of its bundle, and what it was added with, as JSON."""

    name: str
    bundle: str
    settings: dict[str, Any]


class Verdict(StrEnum):
    """What became of a frame, or of a withdrawal: APPLIED and REFUSED then say that it came too late."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A decoded frame that asks to be counted.

    Attributes:
        task: task id.
        device: device id.
        epoch: of the device's store.
        sequence: within the epoch.
        digest: 8 bytes that tell frames of one identity apart.
        number: of the update that the frame is part of.
        part: of `parts` frames.
        parts: frames of the update.
        base_version: model version it was trained from.
        num_examples: as the device claims.
        weight: what the update weighs if this is its first frame.
        refusal: why it may not count, as judged at the door.
        body: the frame's bytes.
        terms: what else the update brings, as numbers, if this is its first frame.
    """

    task: str
    device: str
    epoch: int
    sequence: int
    digest: bytes
    number: int
    part: int
    parts: int
    base_version: int
    num_examples: int
    weight: int
    refusal: Refusal | None
    body: bytes
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A device asks that a frame which may still be under way shall not count.

    Attributes:
        task: task id.
        device: device id.
        epoch: of the device's store.
        sequence: within the epoch.
        digest: 8 bytes, as of an Entry.
    """

    task: str
    device: str
    epoch: int
    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict on an entry or a withdrawal, and the reason of a refusal."""

    verdict: Verdict
    refusal: Refusal | None = None

    @property
    def conflict(self) -> bool:
        """Whether the device used an identity twice for different bytes."""
        return self.refusal is Refusal.CONFLICT


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """An applied frame, as a batch member.

    Attributes:
        id: rises in order of admission.
        device: device id.
        epoch: of the device's store.
        sequence: within the epoch.
        number: of its update.
        leads: whether it is the first frame of its update: it counts for triggers.
        weight: of its update, fixed at the first frame.
        terms: what else was fixed then.
        base_version: that it was trained from.
        body: the frame's bytes.
    """

    id: int
    device: str
    epoch: int
    sequence: int
    number: int
    leads: bool
    weight: int
    terms: Mapping[str, float]
    base_version: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """A model version.

    Attributes:
        number: rises.
        digest: of its parameters in the registry.
        batch: that it was made of; None for one that no batch made.
        created_s: Unix seconds.
        updates: that the batch counted.
        frames: in the batch.
        total_weight: of all updates that had frames in it.
        metrics: what it is worth; empty until it is evaluated.
        terms: numbers that it depended on besides its members, as `aggregate.batch.finish` says them.
        state: of the server's optimiser after it, as numbers.
        state_digest: of the rest of that state in the registry; "" for none.
    """

    number: int
    digest: str
    batch: int | None
    created_s: float
    updates: int = 0
    frames: int = 0
    total_weight: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    terms: Mapping[str, float] = field(default_factory=dict)
    state: Mapping[str, float] = field(default_factory=dict)
    state_digest: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for the next batch: whole updates (by their first frame) and since when (Unix seconds)."""

    updates: int
    frames: int
    opened_s: float | None
