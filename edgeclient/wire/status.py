"""What a device tells the fleet about itself: retained JSON, also its last will (FORMAT.md, section 7)."""

from dataclasses import dataclass
from typing import Annotated, Final

from edgeclient.wire import fields
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import MAX_EXACT, choice, integer, number, text
from edgeclient.wire.limits import MAX_STATUS_BYTES

ONLINE: Final = "online"
OFFLINE: Final = "offline"
# What a device does or waits for: training, sending, receipts of what it sent, the next version, its model, the
# connection, or better conditions. Bounded, so that it may be a label; a word of a later release counts as "other".
DOINGS: Final = (
    "starting", "training", "sending", "receipts", "next-version", "model", "link", "paused", "quiet-hours", "battery",
    "charger", "heat", "throttled", "load", "metered", "budget", "disk", "wear", "failed", "stopped",
)  # fmt: skip
_TEXT: Final = text(200, cut=True)
# What cannot be is refused, so that a liar spoils no sum and no table.
_COUNT: Final = integer(0, MAX_EXACT)
_FRAMES: Final = integer(0, 10**6)


@dataclass(frozen=True, slots=True)
class Status:
    """Health of a device; None is what it does not know."""

    state: Annotated[str, choice(ONLINE, OFFLINE), "`online` or `offline`"]
    session: Annotated[str, _TEXT, "random per start: a late will cannot mark a new session offline"]
    note: Annotated[str, _TEXT, "what it does or waits for, in plain words"] = ""
    version: Annotated[int, integer(-1, MAX_EXACT), "model version it has, −1 for none"] = -1
    rounds: Annotated[int, _COUNT, "local rounds committed in this epoch"] = 0
    queued: Annotated[int, _FRAMES, "frames that have not left yet"] = 0
    sent: Annotated[int, _FRAMES, "frames that await a receipt"] = 0
    returned: Annotated[int, _FRAMES, "refused frames whose entries join the next round"] = 0
    applied: Annotated[int, _COUNT, "frames that the aggregator has applied, ever"] = 0
    refused: Annotated[int, _COUNT, "frames that it has refused, ever"] = 0
    renewals: Annotated[int, _COUNT, "residuals dropped, each with a new epoch"] = 0
    up_bytes: Annotated[int, _COUNT, "payload bytes published on `up`, resends included"] = 0
    down_bytes: Annotated[int, _COUNT, "payload bytes received"] = 0
    socket_sent: Annotated[int, _COUNT, "bytes that TCP has delivered, all of MQTT included"] = 0
    socket_received: Annotated[int, _COUNT, "bytes that TCP has received"] = 0
    doing: Annotated[str, _TEXT, "the note in one word; see below"] = ""
    time_s: Annotated[int, _COUNT, "when it said this, Unix seconds by its own clock; 0 for unknown"] = 0
    uploaded_s: Annotated[int, _COUNT, "when it last published a frame, likewise; 0 for not in this session"] = 0
    oldest_s: Annotated[int, _COUNT, "age of the oldest frame without a receipt (s)"] = 0
    software: Annotated[str, _TEXT, "release of the client"] = ""
    battery_percent: Annotated[int | None, integer(0, 100), "charge"] = None
    temperature_c: Annotated[float | None, number(-100, 300), "of the hottest part that tells"] = None
    heartbeat_s: Annotated[int, integer(1, MAX_EXACT), "at most so long between two statuses"] = 900
    fruitless: Annotated[int, _COUNT, "starts in a row, before this one, that got nothing done"] = 0
    cut: Annotated[int, _COUNT, "starts in a row, before this one, that ended within a round"] = 0
    spell_s: Annotated[int, _COUNT, "after how long the last of those ended; 0 for never"] = 0
    ledger: Annotated[str, _TEXT, "that it follows"] = ""
    stranger: Annotated[str, _TEXT, "another ledger that has announced the task, and that it does not follow"] = ""
    residual_norm: Annotated[
        float | None, number(0, 1e30), "Euclidean norm of what is not sent yet, after the last round of this session"
    ] = None
    holdout_change: Annotated[
        float | None,
        number(-1, 1e6),
        "by which fraction the last round changed the loss on held-out examples: above 0 it made the model worse there",
    ] = None


def encode(status: Status) -> bytes:
    """Canonical JSON; what has its default is left out.

    Example:
        >>> encode(Status("online", "s", battery_percent=80))
        b'{"battery_percent":80,"session":"s","state":"online"}'
    """
    return fields.json_bytes(fields.encode(status))


def decode(data: bytes) -> Status:
    """The status in `data`; fields that this version does not know are left alone.

    Raises:
        WireError: not such a JSON object.
    """
    if len(data) > MAX_STATUS_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_STATUS_BYTES} are allowed")
    return fields.decode(Status, fields.json_object(data), "status")
