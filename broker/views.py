"""What a ledger tells people: values that are read and never written back; times are Unix seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

Epoch: TypeAlias = tuple[str, str, int]  # task, device, epoch as the ledger has it
Mark: TypeAlias = tuple[int, int, int, int]  # watermark, seen, confirmed, lost


class Counted(NamedTuple):
    """The newest counted update of a device; None where no longer known."""

    base_version: int
    received_s: float | None
    version: int | None
    made_s: float | None


class Past(NamedTuple):
    """What is known of one device in one task.

    Attributes:
        version: the task's current one.
        waiting: updates that wait for the next version.
        epochs: stores that the device has begun, as far as they have uploaded.
        applied: frames, ever.
        refused: frames, ever.
        lost: frames that a restored ledger does not know.
        last_frame_s: when its newest frame came, counted or refused, if that is still known.
        update: its newest counted update.
        refusals: how many by reason, as far as reasons are still known.
        last_refusal: sequence, reason and time of the newest of them.
        stores: for each that it has begun, when its first and its newest frame came, as far as that is still known.
    """

    settings: dict[str, Any]
    version: int
    waiting: int
    epochs: int
    applied: int
    refused: int
    lost: int
    last_frame_s: float | None
    update: Counted | None
    refusals: dict[str, int]
    last_refusal: tuple[int, str, float] | None
    stores: Sequence[tuple[float, float]] = ()


class NewVersion(NamedTuple):
    """A version that is new.

    Attributes:
        task: its task.
        number: its own.
        made_s: when.
        updates: of how many; None for one not made of any.
        held: why the fleet does not see it; "": it does.
        same_as: the version whose parameters it has again, if it does.
    """

    task: str
    number: int
    made_s: float
    updates: int | None
    held: str = ""
    same_as: float | None = None


class NewMark(NamedTuple):
    """An epoch that has moved: when its first and its newest frame came, and (sequence, reason, time) of refusals."""

    epoch: Epoch
    mark: Mark
    first_s: float | None
    last_s: float | None
    refused: tuple[tuple[int, str, float], ...]


class Point(NamedTuple):
    """A version on the learning curve; updates and bytes of frames are those of all versions up to it."""

    number: int
    made_s: float
    updates: int
    frame_bytes: int
    metrics: dict[str, float]


class Round(NamedTuple):
    """A version and who contributed: up to a dozen devices, and how many there are."""

    number: int
    made_s: float
    updates: int
    frames: int
    frame_bytes: int
    devices: list[str]
    contributors: int


class Recent(NamedTuple):
    """A frame that was counted: of which update, from which version, when, in which version, its bytes.

    `version` is None while it waits, `size` when its bytes are no longer kept.
    """

    update: int
    base_version: int
    received_s: float
    version: int | None
    examples: int
    size: int | None


class Contact(StrEnum):
    """What came of meeting another aggregator that serves a task, or would."""

    ASKED = "asked"  # it was told that this one serves
    ANNOUNCED = "announced"  # it announced the task while this one served, and goes on
    ALIVE = "alive"  # it serves, so that this one does not
    SILENT = "silent"  # it served last and does not answer; this one does not serve


class Rival(NamedTuple):
    """Another aggregator, or another start on a copy of this ledger, as it was met last (Unix seconds)."""

    task: str
    ledger: str
    term: int
    service: str
    contact: Contact
    met_s: float


RESTORE: Final = "move the ledger away and restore a backup (edgebroker restore), or keep it and accept this"
REPORT: Final = "keep a copy of the ledger and report this as an error of edgebroker"


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that is not as promised: in which file, task, device or version; what is wrong; what to do about it."""

    where: str
    what: str
    todo: str
