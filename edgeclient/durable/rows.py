"""What the store holds, as values."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a frame is in its life."""

    QUEUED = "queued"
    SENT = "sent"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Stored:
    """A frame in the store; `sequence` is None until it is first sent."""

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
    renewals: int
