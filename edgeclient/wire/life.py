"""The life of a frame on the device, as the table that PROTOCOL.md tells, and what a device holds at a moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


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
class Row:
    """A frame that is held, without its bytes.

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


class Owner(NamedTuple):
    """Of an account: device and task that it is of, and the ledger that the device follows."""

    task: str = ""
    device: str = ""
    ledger: str = "0" * 16


@dataclass(frozen=True, slots=True)
class Account:
    """What one epoch of a device counts.

    Attributes:
        epoch: 64 random bits.
        next_sequence: the first that is not given yet.
        next_update: number of the next round's update.
        layout: digest of the parameter layout that the residual belongs to.
        size: n.
        trained_version: base version of the last committed round; None before the first.
        round_token: names the last committed round.
        rounds: committed in this epoch.
        applied: frames that the aggregator has applied, ever.
        refused: frames that it has refused, ever.
        withdrawn: frames taken back before they counted, ever.
        renewals: residuals dropped, each with a new epoch.
        task, device: whose account it is.
        ledger: that the device follows; its frames count there alone.
    """

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
    task: str = ""
    device: str = ""
    ledger: str = "0" * 16

    @property
    def owner(self) -> Owner:
        """Whose it is, and with whom."""
        return Owner(self.task, self.device, self.ledger)


@dataclass(frozen=True, slots=True)
class Outbox:
    """What is held and counted at one moment; `rows` are in the order of sending: by layer, then oldest first."""

    account: Account
    rows: tuple[Row, ...]

    def of(self, *states: State) -> list[Row]:
        """Frames in these states."""
        return [row for row in self.rows if row.state in states]

    @property
    def waiting(self) -> list[Row]:
        """Frames that are not settled."""
        return [row for row in self.rows if row.state is not State.RETURNED]

    def age_s(self, now_s: float) -> float:
        """Age of the oldest frame that is not settled (s), at a Unix time; 0 without one."""
        return max((now_s - row.created_s for row in self.waiting), default=0.0)

    @property
    def numbered(self) -> dict[int, Row]:
        """Those that have a sequence, by it, in the order of sending."""
        return {row.sequence: row for row in self.rows if row.sequence is not None}

    @property
    def confirmed(self) -> int:
        """Every sequence below this one is settled here."""
        waits = (State.SENT, State.WITHDRAWING)
        awaited = [sequence for sequence, row in self.numbered.items() if row.state in waits]
        return min(awaited, default=self.account.next_sequence)

    def counts(self) -> dict[State, int]:
        """How many frames are in each state."""
        return {state: len(self.of(state)) for state in State}
