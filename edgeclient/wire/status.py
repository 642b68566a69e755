"""What a device tells the fleet about itself: retained JSON, also its last will (FORMAT.md, section 8)."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Final

from edgeclient.wire.announcement import json_object
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_STATUS_BYTES

ONLINE: Final = "online"
OFFLINE: Final = "offline"
_MAX_NOTE: Final = 200


@dataclass(frozen=True, slots=True)
class Status:
    """Health of a device.

    Attributes:
        state: "online" or "offline".
        session: random per start, so that a late will cannot mark a new session offline.
        note: what it is doing or waiting for, in plain words.
        version: model version it has, -1 for none.
        rounds: local rounds committed in this epoch.
        queued: frames that have not left yet.
        sent: frames that await a receipt.
        returned: refused frames whose entries join the next round.
        applied: frames that the aggregator has applied, ever.
        refused: frames that it has refused, ever.
        renewals: residuals dropped, each with a new epoch.
        up_bytes: payload bytes published on `up`, resends included.
        down_bytes: payload bytes received.
        socket_sent: bytes that TCP has delivered, all of MQTT included.
        socket_received: bytes that TCP has received.
    """

    state: str
    session: str
    note: str = ""
    version: int = -1
    rounds: int = 0
    queued: int = 0
    sent: int = 0
    returned: int = 0
    applied: int = 0
    refused: int = 0
    renewals: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    socket_sent: int = 0
    socket_received: int = 0


def encode(status: Status) -> bytes:
    """Canonical JSON."""
    return json.dumps(asdict(status), sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> Status:
    """The status in `data`; fields that this version does not know are left alone.

    Raises:
        WireError: not such a JSON object.
    """
    if len(data) > MAX_STATUS_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_STATUS_BYTES} are allowed")
    values = json_object(data)
    known: dict[str, str | int] = {}
    for field in fields(Status):
        value = values.get(field.name, field.default)
        if type(value) is not field.type or (isinstance(value, int) and not -1 <= value < 2**63):
            raise WireError("json", f"status.{field.name} is {str(value)[:40]!r}")
        known[field.name] = value[:_MAX_NOTE] if isinstance(value, str) else value
    if known["state"] not in {ONLINE, OFFLINE}:
        raise WireError("json", f"status.state is {str(known['state'])[:40]!r}")
    return Status(**known)  # type: ignore[arg-type]  # each type was checked against the field's
