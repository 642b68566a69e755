"""Messages are read in order of arrival, each device within its share of the time."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from broker.intake.decode import Incoming, Rejected, WithdrawIn, decode
from broker.intake.shares import Shares
from edgeclient.bundle.layout import Layout
from edgeclient.link.mqtt import Message

_CROWD: Final = 64  # messages that are there at once: then nobody gets more than a share of the time
_RECORD_S: Final = 50e-6  # that the ledger takes for an identity, measured
# The reason of what is dropped unread; it may come again.
SHARE: Final = "share"


class Reading:
    """Reads what has arrived; never raises, whatever the bytes."""

    def __init__(self) -> None:
        self._shares = Shares()

    def read(self, arrived: Sequence[Message], layouts: Mapping[str, Layout], crowd: int) -> list[Incoming]:
        """What devices say, one for each message but those of unknown tasks.

        Args:
            arrived: messages on `up`.
            layouts: of the tasks, by name.
            crowd: messages of any kind that were there at once.
        """
        crowded = max(crowd, len(arrived)) >= _CROWD
        found = [self._read(message, layouts, crowded=crowded) for message in arrived]
        return [said for said in found if isinstance(said, Rejected) or said.task in layouts]

    def _read(self, message: Message, layouts: Mapping[str, Layout], *, crowded: bool) -> Incoming:
        device, now, began_s = message.topic.rpartition("/")[2], time.monotonic(), time.thread_time()
        if crowded and not self._shares.may(device, now=now):
            return Rejected(device[:64], SHARE, "takes more than its share of the time: dropped, may come again")
        said = decode(message.topic, message.payload, layouts)
        recorded = len(said.withdraw.frames) if isinstance(said, WithdrawIn) else 1
        self._shares.took(device, time.thread_time() - began_s + recorded * _RECORD_S, now=now)
        return said
