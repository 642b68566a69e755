"""The fleet as the page lists it: the devices that were asked for, in pages of a bounded size, as JSON values."""

from collections.abc import Mapping
from typing import Any, Final

from broker.monitor.fleet import Sighting

PAGE: Final = 100


def page(devices: Mapping[str, Sighting], *, state: str = "", search: str = "", number: int = 0) -> dict[str, Any]:
    """Devices in a state, or in any, whose name contains `search`; PAGE of them by name, from page `number` on.

    Example:
        >>> from edgeclient.wire.status import Status
        >>> devices = {"pi-7": Sighting(Status("online", "a", note="training"), None, 0.0)}
        >>> page(devices, state="training", search="PI")["total"], page(devices, state="offline")["rows"]
        (1, [])
    """
    search = search.lower()
    found = sorted(name for name, device in devices.items() if search in name.lower() and state in {"", device.state})
    rows = [row(name, devices[name]) for name in found[number * PAGE : (number + 1) * PAGE]]
    return {"rows": rows, "total": len(found), "page": number, "per_page": PAGE}


def row(name: str, device: Sighting) -> dict[str, Any]:
    """A device in few words."""
    said = device.said
    return {
        "name": name,
        "state": device.state,
        "note": said.note,
        "since_s": device.since_s,
        "version": said.version,
        "outbox": said.queued + said.sent + said.returned,
        "applied": said.applied,
        "refused": said.refused,
        "up_bytes": said.up_bytes,
    }
