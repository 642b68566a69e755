"""Why nothing comes from a device: a guess from what is known of it; no I/O, no clock."""

from typing import Final, NamedTuple

from edgeclient.wire.status import OFFLINE, Status

# By then a device that lives has said something: its heartbeat comes every 15 minutes unless set otherwise.
HANGS_S: Final = 3 * 900.0
SILENT_S: Final = 3600.0
_EMPTY_PERCENT: Final = 10
_HOT_C: Final = 80.0
_CONDITIONS: Final = frozenset(
    {"paused", "quiet-hours", "battery", "charger", "heat", "throttled", "load", "metered", "budget", "disk", "wear"}
)

WORDS: Final = {
    "unknown": "The MQTT broker cannot be asked, so that nobody knows.",
    "never-connected": "It was never connected, or uses another broker: see edgeclient doctor on the device.",
    "left": "It has left the task, or the MQTT broker has forgotten what devices said.",
    "stopped": "Somebody or something on the device has stopped it; edgeclient run or its service starts it again.",
    "battery-empty": "Its battery was nearly empty when its connection broke.",
    "overheated": "It was very hot when its connection broke.",
    "connection-lost": "Its connection broke: no power, no network, or the program has died.",
    "hangs": "It is connected but its heartbeat is missing: the program hangs, or its clock is wrong.",
    "waits": "Its owner's conditions keep it from training or sending.",
    "failed": "It cannot train on the current version: its log says why.",
    "no-model": "It waits for the model: its network is too slow or metered, or the head is not served.",
    "no-receipts": "It has sent frames and no receipt comes: does the aggregator run?",
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
    if contact.age_s is not None and contact.age_s > HANGS_S:
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


def _gone(said: Status) -> str:
    if "stopped" in (said.doing, said.note):
        return "stopped"
    if said.battery_percent is not None and said.battery_percent <= _EMPTY_PERCENT:
        return "battery-empty"
    if said.temperature_c is not None and said.temperature_c >= _HOT_C:
        return "overheated"
    return "connection-lost"
