"""What goes into the ledger and comes out, as values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from broker.ledger.record import Member
from edgeclient.wire.messages import Hello, Refusal

PENDING: Final = "waits for its evaluation"
SAME_AS: Final = "parameters_of"  # among the terms of a version that repeats an older one


class TaskRow(NamedTuple):
    """A task: its id, the digest of its bundle, and what it was added with, as JSON."""

    name: str
    bundle: str
    settings: dict[str, Any]


class Start(NamedTuple):
    """Of an aggregator on a ledger.

    Attributes:
        ledger: 16 hexadecimal digits, drawn when the ledger was made; copies and backups keep them.
        term: rises with each start.
        service: 16 hexadecimal digits, drawn at the start.
        place: which file on which machine, see `opening.place`.
    """

    ledger: str
    term: int
    service: str = ""
    place: str = ""


class Verdict(StrEnum):
    """What became of a frame, or of a withdrawal: APPLIED and REFUSED then say that it came too late."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which frame of which epoch of a device's store, and the 8 bytes that tell frames of one identity apart."""

    task: str
    device: str
    epoch: int
    sequence: int
    digest: bytes


class Withdrawal(Identity):
    """A device asks that a frame which may still be under way shall not count."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Identity):
    """A decoded frame that asks to be counted.

    Attributes:
        number: of the update that the frame is `part` of.
        base_version: model version it was trained from.
        num_examples: as the device claims.
        weight: what the update weighs if this is its first frame.
        refusal: why it may not count, as judged at the door.
        body: the frame's bytes.
        terms: what else the update brings, as numbers, if this is its first frame.
    """

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
class Admission:
    """The verdict on an entry or a withdrawal, and the reason of a refusal."""

    verdict: Verdict
    refusal: Refusal | None = None

    @property
    def conflict(self) -> bool:
        """Whether the device used an identity twice for different bytes."""
        return self.refusal is Refusal.CONFLICT


def receipts_due(
    hellos: Iterable[tuple[str, str, Hello]], asked: Sequence[Entry | Withdrawal], admissions: Sequence[Admission]
) -> dict[tuple[str, str, int], tuple[int, bytes] | None]:
    """Every (task, device, epoch) of which is told now, with the newest conflict in it (sequence, digest).

    Example:
        >>> receipts_due([("har", "pi-7", Hello(5, 3, 0))], [], [])
        {('har', 'pi-7', 5): None}
    """
    found: dict[tuple[str, str, int], tuple[int, bytes] | None] = {
        (task, device, hello.epoch): None for task, device, hello in hellos
    }
    for each, admission in zip(asked, admissions, strict=True):
        key = (each.task, each.device, each.epoch)
        found[key] = (each.sequence, each.digest) if admission.conflict else found.get(key)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Contribution(Member):
    """An applied frame that waits for a batch or is in one, with its bytes; `id` rises in order of admission."""

    id: int = 0
    body: bytes = b""


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
        held: why the fleet does not see it, PENDING while that is not decided; "": it does.
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
    held: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for the next batch: whole updates (by their first frame) and since when (Unix seconds)."""

    updates: int
    frames: int
    opened_s: float | None
