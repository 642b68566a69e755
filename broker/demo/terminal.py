"""A live table of a running fleet; rich is imported here and in screen.py alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from broker.monitor.text import size
from edgeclient.wire.status import ONLINE, Status


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one moment.

    Attributes:
        seconds: since the start.
        version: current model version.
        updates: that versions were made of.
        accuracies: by version, as far as evaluated.
        uplink_bytes: published on `up`.
        dense_bytes: what the same updates cost as dense float32.
        devices: last status of every device.
        uplink_by_device: bytes on `up`.
        events: what happened, newest last.
    """

    seconds: float
    version: int
    updates: int
    accuracies: Sequence[float]
    uplink_bytes: int
    dense_bytes: int
    devices: dict[str, Status]
    uplink_by_device: dict[str, int]
    events: Sequence[str]


def headline(view: View) -> str:
    """One line, for logs and for terminals that cannot redraw."""
    accuracy = f"{view.accuracies[-1]:.3f}" if view.accuracies else "…"
    saved = f"{view.dense_bytes / view.uplink_bytes:.0f}×" if view.uplink_bytes and view.dense_bytes else "…"
    online = sum(status.state == ONLINE for status in view.devices.values())
    return (
        f"{view.seconds:5.0f} s  version {view.version}  accuracy {accuracy}  {online} devices online  "
        f"{view.updates} updates  {size(view.uplink_bytes)} up, dense {size(view.dense_bytes)} ({saved} less)"
    )


def table(view: View) -> Group:
    """The headline, a row per device, and the last events."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "state", "version", "rounds", "outbox", "applied", "uploaded"):
        rows.add_column(column, justify="left" if column in {"device", "state"} else "right")
    for device, status in sorted(view.devices.items()):
        online = status.state == ONLINE
        outbox = status.queued + status.sent + status.returned
        rows.add_row(
            device,
            Text(status.note[:44] if online else f"offline: {status.note[:35]}", style="" if online else "red"),
            *(str(n) for n in (status.version, status.rounds, outbox, status.applied)),
            size(view.uplink_by_device.get(device, 0)),
        )
    return Group(Text(headline(view), style="bold cyan"), rows, *(Text(event, style="yellow") for event in view.events))
