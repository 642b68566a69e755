"""Why nothing comes from a device: a guess from what is known of it; no I/O, no clock."""

from typing import Final, NamedTuple

from edgeclient.wire.status import OFFLINE, Status

# What a heartbeat may be late by: a round's longest step, a reconnect.
_LATE: Final = 1.25
_LATE_S: Final = 60.0
SILENT_S: Final = 3600.0
_EMPTY_PERCENT: Final = 10
_HOT_C: Final = 80.0
_CONDITIONS: Final = frozenset(
    {"paused", "quiet-hours", "battery", "charger", "heat", "throttled", "load", "metered", "budget", "disk", "wear"}
)

ENDED: Final = "ended: "  # how a device begins that says which error it was
WORDS: Final = {
    "unknown": "The MQTT broker cannot be asked, so that nobody knows.",
    "never-connected": "It was never connected, or uses another broker: see edgeclient doctor on the device.",
    "left": "It has left the task, or the MQTT broker has forgotten what devices said.",
    "stopped": "Somebody or something on the device has stopped it, or its edgeclient once has ended; edgeclient run or"
    " its service starts it again.",
    "ended": "An error has ended it, which must be mended on the device first: edgeclient doctor looks at configuration"
    " and data there.",
    "short-spells": "It goes off within its rounds, or before it gets anything done: power or network for too short a"
    " time. What has come of a model stays, and its rounds are made shorter.",
    "battery-empty": "Its battery was nearly empty when its connection broke.",
    "overheated": "It was very hot when its connection broke.",
    "connection-lost": "Its connection broke: no power, no network, or the program has died.",
    "hangs": "Its heartbeat is missing: it went off together with the MQTT broker, hangs, or its clock is wrong.",
    "waits": "Its owner's conditions keep it from training or sending.",
    "failed": "It cannot train on the current version: its log says why.",
    "no-model": "It waits for the model: its network is too slow or metered, or nobody announces the task.",
    "no-receipts": "It has sent frames and no receipt comes: does the aggregator run, and do access rules drop them?",
    "training": "It trains.",
    "slow-link": "It has frames to send and is behind: its link is slow or keeps breaking.",
    "up-to-date": "It has nothing to do before the next version.",
}


class Contact(NamedTuple):
    """What is known of a device in one task.

    Attributes:
        said: its last status; None for none.
        asked: whether the MQTT broker could be asked for it.
        counted: whether a frame of it has ever come.
        age_s: how long ago it said that; None where unknown.
        version: the task's current one.
    """

    said: Status | None
    asked: bool = True
    counted: bool = False
    age_s: float | None = None
    version: int = 0


def guess(contact: Contact) -> str:  # noqa: PLR0911 (one return a reason)
    """The likeliest reason, as a key of WORDS.

    Example:
        >>> from edgeclient.wire.status import Status
        >>> guess(Contact(Status("offline", "s", note="connection lost", battery_percent=4)))
        'battery-empty'
        >>> guess(Contact(Status("online", "s", doing="metered", version=3), version=3))
        'waits'
    """
    said = contact.said
    if said is None:
        if not contact.asked:
            return "unknown"
        return "left" if contact.counted else "never-connected"
    if said.state == OFFLINE:
        return _gone(said)
    if contact.age_s is not None and contact.age_s > silent_s(said):
        return "hangs"
    if said.doing in _CONDITIONS:
        return "waits"
    if said.doing in {"failed", "training"}:
        return said.doing
    if said.doing in {"model", "starting", "link"} or said.version < 0:
        return "no-model"
    if said.sent and said.doing == "receipts":
        return "no-receipts"
    if said.queued or said.sent:
        return "slow-link"
    return "up-to-date"


def silent_s(said: Status) -> float:
    """After so long without a word a device is not there, whatever the MQTT broker has kept of it.

    Example:
        >>> from edgeclient.wire.status import Status
        >>> silent_s(Status("online", "s", heartbeat_s=60))
        135.0
    """
    return _LATE * said.heartbeat_s + _LATE_S


def age_s(said: Status | None, last_frame_s: float | None, now_s: float) -> float | None:
    """How long ago a device said this; None where it does not tell.

    Its clock may be wrong. Where it has uploaded in this session, the time since then tells as well.

    Args:
        said: its last status.
        last_frame_s: when its newest frame came (Unix seconds), by the aggregator's clock, as `now_s`.
        now_s: now.

    Example:
        >>> from edgeclient.wire.status import Status
        >>> wrong = Status("online", "s", time_s=1000, uploaded_s=990)
        >>> age_s(wrong, None, 1e9), age_s(wrong, 1e9 - 30, 1e9)
        (999999000.0, 20.0)
    """
    if said is None or said.time_s <= 0:
        return None
    by_clock = max(0.0, now_s - said.time_s)
    if last_frame_s is None or not said.uploaded_s:
        return by_clock
    return min(by_clock, max(0.0, now_s - last_frame_s - (said.time_s - said.uploaded_s)))


def _gone(said: Status) -> str:
    if said.note.startswith(ENDED):
        return "ended"
    if "stopped" in (said.doing, said.note):
        return "stopped"
    if said.battery_percent is not None and said.battery_percent <= _EMPTY_PERCENT:
        return "battery-empty"
    if said.temperature_c is not None and said.temperature_c >= _HOT_C:
        return "overheated"
    if said.cut or said.fruitless > 1:
        return "short-spells"
    return "connection-lost"
