"""Where devices stand by their own words, in bounded memory: who publishes chooses the device's name."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edgeclient.wire import status, topics

MAX_DEVICES: Final = 50_000  # 26 MB, measured
# A device that lies about its outbox must not drown the others in the sum.
MAX_FRAMES: Final = 1_000_000


class Said(NamedTuple):
    """The part of a status that is counted."""

    state: str
    session: str
    frames: tuple[int, int, int]  # queued, sent, returned
    told_bytes: int


@dataclass(slots=True)
class Presence:
    """The last status of each device, of so many at most.

    Attributes:
        most: further devices are left out, and counted in `left_out`.
        left_out: statuses of devices for which there was no room.

    Example:
        >>> presence = Presence()
        >>> presence.hear("edge/v1/har/status/pi-7", status.encode(status.Status("online", "a", queued=3)))
        True
        >>> presence.devices(), presence.outbox()["har", "queued"]
        (Counter({('har', 'online'): 1}), 3)
    """

    most: int = MAX_DEVICES
    left_out: int = 0
    _last: dict[tuple[str, str], Said] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take in a message; False when it is on another topic than a status. Empty ones forget the device.

        Raises:
            WireError: it is no status; nothing has changed.
        """
        if "/status/" not in topic:  # three times as fast as to take every upload's topic apart
            return False
        parsed = topics.parse(topic)
        if parsed.kind != "status":
            return False
        key = (parsed.task, parsed.rest[0])
        if not payload:
            self._last.pop(key, None)
            return True
        told, known = status.decode(payload), self._last.get(key)
        if known is None and len(self._last) >= self.most:
            self.left_out += 1
            return True
        late_will = known is not None and told.state == status.OFFLINE and told.session != known.session
        if not late_will:
            self._last[key] = _merged(known, told)
        return True

    def forget(self) -> None:
        """A new connection brings the retained statuses again; what it does not bring is gone."""
        self._last.clear()

    def devices(self) -> Counter[tuple[str, str]]:
        """How many by task and state."""
        return Counter((task, said.state) for (task, _), said in list(self._last.items()))

    def outbox(self) -> Counter[tuple[str, str]]:
        """Frames by task and stage (queued, sent, returned), summed over devices."""
        sums = Counter[tuple[str, str]]()
        for (task, _), said in list(self._last.items()):
            for stage, count in zip(("queued", "sent", "returned"), said.frames, strict=True):
                sums[task, stage] += count
        return sums


def _merged(known: Said | None, told: status.Status) -> Said:
    """A last will carries no counters: then the outbox is what the same session said before."""
    if known is not None and known.session == told.session and told.socket_sent < known.told_bytes:
        return known._replace(state=told.state)
    queued, sent, returned = (min(max(each, 0), MAX_FRAMES) for each in (told.queued, told.sent, told.returned))
    return Said(told.state, told.session, (queued, sent, returned), told.socket_sent)
