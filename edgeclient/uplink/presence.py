"""What a device tells about itself, and when: on change, at most every so many seconds."""

import math
from dataclasses import replace
from typing import Any

from edgeclient.wire import status
from edgeclient.wire.status import OFFLINE, ONLINE, Status


class Presence:
    """Counters of one session, and the last thing told.

    Args:
        session: random per start.
        every_s: at least this long between two statuses.

    Example:
        >>> presence = Presence("5e55101d", every_s=1.0)
        >>> presence.uploaded(120)
        >>> presence.due(0.0, {"note": "training"}, socket_bytes=(0, 0)).up_bytes
        120
        >>> presence.due(0.5, {"note": "sending"}, socket_bytes=(0, 0)) is None
        True
    """

    def __init__(self, session: str, *, every_s: float) -> None:
        self._every_s = every_s
        self._status = Status(ONLINE, session, note="starting")
        self._told: tuple[float, Status] = (-math.inf, self._status)

    @property
    def will(self) -> bytes:
        """What the broker says when the connection breaks."""
        return status.encode(Status(OFFLINE, self._status.session, note="connection lost"))

    def uploaded(self, count: int) -> None:
        """Payload bytes were published on `up`."""
        self._status = replace(self._status, up_bytes=self._status.up_bytes + count)

    def received(self, count: int) -> None:
        """Payload bytes have come."""
        self._status = replace(self._status, down_bytes=self._status.down_bytes + count)

    def due(self, now: float, facts: dict[str, Any], socket_bytes: tuple[int, int]) -> Status | None:
        """The status to tell now, or None when nothing changed or too little time has passed.

        Args:
            now: seconds on a steady clock.
            facts: fields of Status that the caller knows.
            socket_bytes: sent and received; they change with the telling, so they alone are no reason.
        """
        self._status = replace(self._status, **facts)
        since_s, last = self._told
        if now - since_s < self._every_s or self._status == last:
            return None
        self._told = (now, self._status)
        return self._with(socket_bytes)

    def again(self) -> None:
        """Tell even without a change: a new connection may be to a broker that has forgotten."""
        self._told = (-math.inf, Status(OFFLINE, self._status.session))

    def goodbye(self, facts: dict[str, Any], socket_bytes: tuple[int, int]) -> Status:
        """The last status of this session."""
        self._status = replace(self._status, **{**facts, "state": OFFLINE})
        return self._with(socket_bytes)

    def _with(self, socket_bytes: tuple[int, int]) -> Status:
        sent, received = socket_bytes
        return replace(self._status, socket_sent=sent, socket_received=received)
