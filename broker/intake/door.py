"""Messages are read in order of arrival, each device within its share of the time; what is over it comes again."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.intake.decode import Incoming, Rejected, WithdrawIn, decode, misaddressed
from edgeclient.bundle.layout import Layout
from edgeclient.link.mqtt import Message

_CROWD: Final = 64  # messages that are there at once: then nobody gets more than a share of the time
_RECORD_S: Final = 50e-6  # that the ledger takes for an identity, measured
_SHARE: Final = 0.1  # of the time
_SAVED_S: Final = 1.0  # at most, by a device that was quiet; and owed at most
_MANY: Final = 1024  # devices that are remembered: those that took something lately
# The reason of what is dropped unread; it may come again.
SHARE: Final = "share"


@dataclass(slots=True)
class Shares:
    """Seconds that each device has left; who has none left is not heard.

    Example:
        >>> shares = Shares()
        >>> shares.took("pi-7", 1.5, now=0.0)
        >>> shares.may("pi-7", now=1.0), shares.may("pi-8", now=1.0), shares.may("pi-7", now=9.0)
        (False, True, True)
    """

    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def may(self, device: str, *, now: float) -> bool:
        """Whether what the device sends is read."""
        return self._now(device, now) > 0

    def took(self, device: str, seconds: float, *, now: float) -> None:
        """Reading it took so long."""
        if device not in self._left and len(self._left) >= _MANY:
            del self._left[next(iter(self._left))]
        left = self._now(device, now) - seconds
        self._left.pop(device, None)  # to the end: the oldest goes first
        self._left[device] = (max(-_SAVED_S, left), now)

    def _now(self, device: str, now: float) -> float:
        left, at = self._left.get(device, (_SAVED_S, now))
        return min(_SAVED_S, left + _SHARE * (now - at))


class Door:
    """Reads what has arrived for a ledger; never raises, whatever the bytes."""

    def __init__(self, ledger: str) -> None:
        self._ledger = ledger
        self._shares = Shares()

    def read(self, arrived: Sequence[Message], layouts: Mapping[str, Layout], crowd: int) -> list[Incoming]:
        """What devices say on `up`, one for each message but those of unknown tasks; `crowd` were there at once."""
        crowded = max(crowd, len(arrived)) >= _CROWD
        found = [self._read(message, layouts, crowded=crowded) for message in arrived]
        return [said for said in found if isinstance(said, Rejected) or said.task in layouts]

    def _read(self, message: Message, layouts: Mapping[str, Layout], *, crowded: bool) -> Incoming:
        device, now, began_s = message.topic.rpartition("/")[2], time.monotonic(), time.thread_time()
        if crowded and not self._shares.may(device, now=now):
            return Rejected(device[:64], SHARE, "takes more than its share of the time: dropped, may come again")
        said = decode(message.topic, message.payload, layouts)
        if not isinstance(said, Rejected):
            said = misaddressed(said, self._ledger) or said
        recorded = len(said.withdraw.frames) if isinstance(said, WithdrawIn) else 1
        self._shares.took(device, time.thread_time() - began_s + recorded * _RECORD_S, now=now)
        return said
