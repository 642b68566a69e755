"""What a device tells about itself, and when: on change, and as a heartbeat; at most every so many seconds."""

import math
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from edgeclient import __version__
from edgeclient.link.events import Will
from edgeclient.settings import Upload
from edgeclient.wire import status, topics
from edgeclient.wire.status import OFFLINE, ONLINE, Status


class Session:
    """Counters of one session, and the last thing told.

    Args:
        id_: random per start.
        every_s: at least this long between two statuses.
        heartbeat_s: at most this long, whether something has changed or not.

    Example:
        >>> session = Session("5e55101d", every_s=1.0, heartbeat_s=900.0)
        >>> session.uploaded(120)
        >>> session.due(0.0, {"note": "training"}, socket_bytes=(0, 0), health={}).up_bytes
        120
        >>> session.due(0.5, {"note": "sending"}, socket_bytes=(0, 0), health={}) is None
        True
        >>> session.due(901.0, {}, socket_bytes=(0, 0), health={"battery_percent": 80}).battery_percent
        80
    """

    def __init__(self, id_: str, *, every_s: float, heartbeat_s: float = math.inf) -> None:
        self._every_s = every_s
        self._heartbeat_s = heartbeat_s
        beats = 900 if math.isinf(heartbeat_s) else math.ceil(heartbeat_s)
        self._status = Status(ONLINE, id_, note="starting", doing="starting", software=__version__, heartbeat_s=beats)
        self._told: tuple[float, Status] = (-math.inf, self._status)

    @classmethod
    def of(cls, upload: Upload) -> Self:
        """A new session of a device with these settings."""
        return cls(secrets.token_hex(8), every_s=upload.status_every_s, heartbeat_s=upload.heartbeat_s)

    @property
    def id(self) -> str:
        """Random per start."""
        return self._status.session

    def will(self, task: str, device: str, facts: Mapping[str, Any] | None = None, progress: str = "") -> Will:
        """What the broker says when the connection breaks; people read it as long as the device sleeps.

        Args:
            task: task id.
            device: device id.
            facts: fields of Status, as they are at the start.
            progress: how far the model is then, in words.
        """
        note = f"connection lost{progress and ', '}{progress}"
        lost = replace(Status(OFFLINE, self.id, note=note, heartbeat_s=self._status.heartbeat_s), **(facts or {}))
        return Will(topics.status(task, device), status.encode(lost))

    def uploaded(self, count: int, now_s: float = 0.0) -> None:
        """Payload bytes were published on `up` (Unix seconds)."""
        self._status = replace(self._status, up_bytes=self._status.up_bytes + count, uploaded_s=int(now_s))

    def received(self, count: int) -> None:
        """Payload bytes have come."""
        self._status = replace(self._status, down_bytes=self._status.down_bytes + count)

    def due(
        self, now: float, facts: dict[str, Any], socket_bytes: tuple[int, int], health: Mapping[str, Any]
    ) -> Status | None:
        """The status to tell now, or None when nothing changed or too little time has passed.

        Args:
            now: seconds on a steady clock.
            facts: fields of Status that the caller knows.
            socket_bytes: sent and received; they change with the telling, as what was received does, which it comes
                back in: they alone are no reason.
            health: fields that change all the time, so they alone are no reason either.
        """
        self._status = replace(self._status, **facts)
        since_s, last = self._told
        same = replace(self._status, down_bytes=last.down_bytes) == last
        if now - since_s < (self._heartbeat_s if same else self._every_s):
            return None
        self._told = (now, self._status)
        return self._with(socket_bytes, health)

    def again(self) -> None:
        """Tell even without a change: a new connection may be to a broker that has forgotten."""
        self._told = (-math.inf, Status(OFFLINE, self._status.session))

    def goodbye(self, facts: dict[str, Any], socket_bytes: tuple[int, int], health: Mapping[str, Any]) -> Status:
        """The last status of this session."""
        self._status = replace(self._status, **{**facts, "state": OFFLINE, "doing": "stopped"})
        return self._with(socket_bytes, health)

    def _with(self, socket_bytes: tuple[int, int], health: Mapping[str, Any]) -> Status:
        sent, received = socket_bytes
        return replace(self._status, socket_sent=sent, socket_received=received, **health)
