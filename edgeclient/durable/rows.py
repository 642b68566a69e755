"""What the store holds, as values, and the life of a frame as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where a frame is in its life."""

    QUEUED = "queued"
    SENT = "sent"
    WITHDRAWING = "withdrawing"
    RETURNED = "returned"


class Event(StrEnum):
    """What may happen to a frame."""

    SEND = "gets its sequence"
    WITHDRAW = "is withdrawn"
    APPLIED = "receipt: applied"
    REFUSED = "receipt: refused or withdrawn"
    MERGE = "joins a round"


# The whole life: (state, event) → state; None is gone; what is not listed changes nothing. PROTOCOL.md draws it.
LIFE: Final[Mapping[tuple[State, Event], State | None]] = MappingProxyType(
    {
        (State.QUEUED, Event.SEND): State.SENT,
        (State.QUEUED, Event.WITHDRAW): State.RETURNED,
        (State.QUEUED, Event.MERGE): None,
        (State.SENT, Event.WITHDRAW): State.WITHDRAWING,
        (State.SENT, Event.APPLIED): None,
        (State.SENT, Event.REFUSED): State.RETURNED,
        (State.WITHDRAWING, Event.APPLIED): None,
        (State.WITHDRAWING, Event.REFUSED): State.RETURNED,
        (State.RETURNED, Event.MERGE): None,
    }
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame that a round made: its bytes, and its layer, 0 being the one that matters most."""

    body: bytes
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A frame in the store, without its bytes.

    Attributes:
        id: in order of making.
        state: see State.
        sequence: None until it is first sent.
        layer: 0 is sent first.
        base_version: model version that its update was trained from.
        created_s: Unix seconds, by the device's clock.
        size: bytes.
    """

    id: int
    state: State
    sequence: int | None
    layer: int
    base_version: int
    created_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A frame in the store; `sequence` is None until it is first sent, and is not in the bytes."""

    id: int
    state: State
    sequence: int | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """The counters of a store; see the schema for their meaning."""

    epoch: int
    next_sequence: int
    next_update: int
    layout: str
    size: int
    trained_version: int | None
    round_token: str
    rounds: int
    applied: int
    refused: int
    withdrawn: int
    renewals: int
