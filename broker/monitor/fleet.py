"""What devices say about themselves, summed over restarts."""

from dataclasses import dataclass, field

from edgeclient.wire import status, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.status import Status


@dataclass(slots=True)
class Fleet:
    """The last status of every device, and the counters of all its sessions.

    Counters start at zero with every session, and a killed session's last second is never told: sums over
    sessions are what was reported, a little less than what was.
    """

    last: dict[str, Status] = field(default_factory=dict)
    _sessions: dict[tuple[str, str], Status] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take in a status message; anything else is left alone."""
        try:
            parsed = topics.parse(topic)
            if parsed.kind != "status":
                return
            said = status.decode(payload)
        except WireError:
            return
        (device,) = parsed.rest
        known = self._sessions.get((device, said.session))
        if known is None or said.socket_sent >= known.socket_sent:  # a last will carries no counters
            self._sessions[device, said.session] = said
        current = self.last.get(device)
        late_will = current is not None and said.state == status.OFFLINE and said.session != current.session
        if not late_will:
            self.last[device] = said

    @property
    def downlink_bytes(self) -> int:
        """MQTT payload bytes that devices have received."""
        return sum(said.down_bytes for said in self._sessions.values())

    @property
    def socket_bytes(self) -> int:
        """TCP payload bytes in both directions: all of MQTT, its headers and pings included."""
        return sum(said.socket_sent + said.socket_received for said in self._sessions.values())
