"""A device in a list: what it says, what was counted, and why it may be silent; one row for `devices` and `top`."""

from dataclasses import asdict
from typing import Any, Final

from broker.monitor.silence import Contact, guess
from edgeclient.wire.status import OFFLINE, Status

# In this order: what somebody should look at comes first.
_TROUBLE: Final = ("hangs", "failed", "overheated", "battery-empty", "connection-lost", "no-receipts", "no-model")


def row(
    task: str, device: str, *, said: Status | None, asked: bool, applied: int, refused: int, version: int, now_s: float
) -> dict[str, Any]:
    """What is known of a device, as JSON has it.

    Args:
        task: task id.
        device: device id.
        said: its last status; None for none.
        asked: whether the MQTT broker could be asked for it.
        applied: frames that the ledger has counted.
        refused: frames that it has refused.
        version: the task's current one.
        now_s: Unix seconds.

    Example:
        >>> said = Status("online", "s", note="sending", doing="sending", version=4, queued=2, time_s=990)
        >>> made = row("har", "pi", said=said, asked=True, applied=3, refused=0, version=6, now_s=1000.0)
        >>> made["guess"], made["behind"], made["said_age_s"], made["note"]
        ('slow-link', 2, 10.0, 'sending')
    """
    told = {} if said is None else asdict(said)
    age_s = max(0.0, now_s - said.time_s) if said is not None and said.time_s > 0 else None
    contact = Contact(said, asked=asked, counted=applied + refused > 0, age_s=age_s, version=version)
    return {
        "state": "",
        "note": "",
        **told,
        "task": task,
        "device": device,
        "applied": applied,
        "refused": refused,
        "guess": guess(contact),
        "behind": version - said.version if said is not None and said.version >= 0 else None,
        "said_age_s": age_s,
    }


def by_trouble(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those first that somebody should look at, then those that work, then those that are off."""

    def rank(each: dict[str, Any]) -> tuple[int, str, str]:
        trouble = _TROUBLE.index(each["guess"]) if each["guess"] in _TROUBLE else len(_TROUBLE)
        return trouble + (each["state"] in {"", OFFLINE}), each["task"], each["device"]

    return sorted(rows, key=rank)
