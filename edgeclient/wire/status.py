"""What a device tells the fleet about itself: retained JSON, also its last will (FORMAT.md, section 8)."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, get_args

from edgeclient.wire.announcement import json_object
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_STATUS_BYTES

ONLINE: Final = "online"
OFFLINE: Final = "offline"
# What a device does or waits for: training, sending, receipts of what it sent, the next version, its model, the
# connection, or better conditions. Bounded, so that it may be a label; a word of a later release counts as "other".
DOINGS: Final = (
    "starting", "training", "sending", "receipts", "next-version", "model", "link", "paused", "quiet-hours", "battery",
    "charger", "heat", "throttled", "load", "metered", "budget", "disk", "wear", "failed", "stopped",
)  # fmt: skip
_MAX_NOTE: Final = 200
# What cannot be is refused, so that a liar spoils no sum and no table. Counters begin at 0.
COUNTS: Final = (0, 2**53)
RANGES: Final = {
    "version": (-1, 2**53),
    "queued": (0, 10**6),
    "sent": (0, 10**6),
    "returned": (0, 10**6),
    "battery_percent": (0, 100),
    "temperature_c": (-100, 300),
    "residual_norm": (0, 1e30),
}
_MAX_NUMBER: Final = 1e300
_FIRST: Final = 15  # keys that are always there


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
        doing: the note in one word of DOINGS.
        time_s: when it said this, Unix seconds by its own clock; 0 for unknown.
        uploaded_s: when it last published a frame, likewise; 0 for not in this session.
        oldest_s: age of the oldest frame without a receipt (s).
        software: its release.
        battery_percent: charge; None without a battery, or where the board does not tell.
        temperature_c: of the hottest part that tells.
        residual_norm: Euclidean norm of what is not sent yet, after the last round of this session.
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
    doing: str = ""
    time_s: int = 0
    uploaded_s: int = 0
    oldest_s: int = 0
    software: str = ""
    battery_percent: int | None = None
    temperature_c: float | None = None
    residual_norm: float | None = None


def encode(status: Status) -> bytes:
    """Canonical JSON; what came after the first releases is left out where it says nothing.

    Example:
        >>> encode(Status("online", "s", battery_percent=80)).count(b"temperature_c")
        0
    """
    later = {field.name: field.default for field in fields(Status)[_FIRST:]}
    told = {key: value for key, value in asdict(status).items() if key not in later or value != later[key]}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> Status:
    """The status in `data`; fields that this version does not know are left alone.

    Raises:
        WireError: not such a JSON object.
    """
    if len(data) > MAX_STATUS_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_STATUS_BYTES} are allowed")
    values = json_object(data)
    known: dict[str, Any] = {}
    for name, value in values.items():
        kinds = _KINDS.get(name)
        if kinds is None:
            continue
        if not _fits(value, kinds):
            raise WireError("json", f"status.{name} is {str(value)[:40]!r}")
        low, high = RANGES.get(name, COUNTS)
        if type(value) is not str and value is not None and not low <= value <= high:
            raise WireError("range", f"status.{name} is {str(value)[:40]}")
        known[name] = value[:_MAX_NOTE] if type(value) is str else value
    if missing := {"state", "session"} - known.keys():
        raise WireError("json", f"status.{min(missing)} is missing")
    if known["state"] not in {ONLINE, OFFLINE}:
        raise WireError("json", f"status.state is {str(known['state'])[:40]!r}")
    return Status(**known)


# What may stand in which key; worked out once, since an aggregator reads thousands of these a second.
_KINDS: Final = {field.name: get_args(field.type) or (field.type,) for field in fields(Status)}


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    if float in kinds:
        return type(value) in (int, float) and abs(value) <= _MAX_NUMBER  # neither NaN nor infinity
    if int in kinds:
        return type(value) is int
    return type(value) is str
