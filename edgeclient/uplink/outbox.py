"""What to take back from the outbox, and how large frames should be: pure functions.

Nothing is lost by taking back: the entries of a withdrawn frame join the next round. Old and less important frames go
first, since a newer update says the same and more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edgeclient.wire.announcement import Announcement
from edgeclient.wire.life import Outbox, Row, State

# A link that breaks before so much has passed is a bad one: 16 KiB frames, not 64 KiB, limit what a break costs.
GOOD_LINK_BYTES: Final = 1 << 20
BAD_LINK_FRAME_BYTES: Final = 16 << 10
_REMEMBERED: Final = 0.5


class Frames(Protocol):
    """What sending and settling need of the device's frames, wherever they are kept; each change is one commit."""

    def outbox(self) -> Outbox:
        """What is held at this moment."""

    def body(self, id_: int) -> bytes:
        """The bytes of a frame, without identity."""

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Give queued frames their sequences; only then may they leave the device."""

    def withdraw(self, ids: Sequence[int]) -> None:
        """Take frames back."""

    def settle(
        self, *, applied: Sequence[int] = (), refused: Sequence[int] = (), withdrawn: Sequence[int] = ()
    ) -> None:
        """Receipts, by sequence."""

    def renew(self) -> None:
        """Begin a new epoch without frames."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the outbox: all frames together, and the age of the oldest; see the settings of the same names."""

    max_bytes: int
    max_age_s: float


def superseded(frames: Iterable[Row], *, version: int, max_staleness: int) -> list[int]:
    """Ids of frames that the update of a new round replaces.

    These are less important layers of older updates, and what the aggregator would refuse as stale.

    Args:
        frames: that are not applied yet.
        version: that the new round is trained from.
        max_staleness: of the task.
    """
    return [
        each.id
        for each in frames
        if (each.layer and each.base_version < version) or each.base_version < version - max_staleness
    ]


def merged(outbox: Outbox, announced: Announcement) -> list[int]:
    """Ids of frames whose entries join a round of this version: what came back, and what is superseded unsent."""
    queued, policy = outbox.of(State.QUEUED), announced.policy
    old = superseded(queued, version=announced.version, max_staleness=policy.max_staleness)
    return [row.id for row in outbox.rows if row.state is State.RETURNED or row.id in old]


def overflow(frames: Sequence[Row], bounds: Bounds, *, now_s: float) -> list[int]:
    """Ids of frames to withdraw, so that the rest keeps to the bounds: less important layers first, oldest first.

    A clock that jumps back makes frames young; one that jumps ahead returns all of them to the residual.

    Example:
        >>> from types import SimpleNamespace as Frame
        >>> frames = [Frame(id=i, layer=i % 2, base_version=0, created_s=float(i), size=100) for i in range(4)]
        >>> overflow(frames, Bounds(max_bytes=250, max_age_s=60.0), now_s=4.0)
        [1, 3]
        >>> overflow(frames, Bounds(max_bytes=250, max_age_s=60.0), now_s=61.5)
        [0, 1]
    """
    gone = {each.id for each in frames if now_s - each.created_s > bounds.max_age_s}
    left = sum(each.size for each in frames if each.id not in gone)
    for each in sorted(frames, key=lambda frame: (-frame.layer, frame.id)):
        if left <= bounds.max_bytes:
            break
        if each.id not in gone:
            gone.add(each.id)
            left -= each.size
    return sorted(gone)


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """Bytes that pass between breaks, a running average; None while the link has never broken."""

    bytes_between_breaks: float | None = None

    def broken(self, passed_bytes: int) -> "LinkQuality":
        """After a connection that carried so much."""
        if self.bytes_between_breaks is None:
            return LinkQuality(float(passed_bytes))
        return LinkQuality(self.bytes_between_breaks + _REMEMBERED * (passed_bytes - self.bytes_between_breaks))

    def frame_bytes(self, most: int) -> int:
        """How large frames should be, at most `most`.

        Example:
            >>> LinkQuality().frame_bytes(65536), LinkQuality().broken(100_000).frame_bytes(65536)
            (65536, 16384)
        """
        if self.bytes_between_breaks is None or self.bytes_between_breaks >= GOOD_LINK_BYTES:
            return most
        return min(most, BAD_LINK_FRAME_BYTES)
