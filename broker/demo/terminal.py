"""A live table of a running fleet; rich is imported here and in screen.py alone."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.demo.observer import Moment
from broker.ledger.rows import Version
from broker.monitor.fleet import Sighting
from broker.monitor.text import size
from edgeclient.wire.status import ONLINE

_EVERY_S = 5.0


class View(NamedTuple):
    """What is known at one moment: versions and events are in order of time, uploads are bytes by device."""

    now: Moment
    versions: Sequence[Version]
    devices: Mapping[str, Sighting]
    uploaded_bytes: Mapping[str, int]
    events: Sequence[str]


@contextmanager
def display() -> Iterator[Callable[[View], None]]:
    """A live table on a terminal, a line every five seconds elsewhere."""
    if sys.stdout.isatty():
        with Live(refresh_per_second=4) as live:
            yield lambda view: live.update(table(view))
        return
    due_s = 0.0

    def tell(view: View) -> None:
        nonlocal due_s
        if view.now.seconds >= due_s:
            due_s = view.now.seconds + _EVERY_S
            print(headline(view), flush=True)

    yield tell


def headline(view: View) -> str:
    """One line, for logs and for terminals that cannot redraw."""
    accuracies = [version.metrics["accuracy"] for version in view.versions if "accuracy" in version.metrics]
    accuracy = f"{accuracies[-1]:.3f}" if accuracies else "…"
    online = sum(device.said.state == ONLINE for device in view.devices.values())
    return (
        f"{view.now.seconds:5.0f} s  version {view.versions[-1].number}  accuracy {accuracy}  {online} devices online"
        f"  {sum(version.updates for version in view.versions)} updates"
        f"  {size(view.now.uplink_bytes)} up, {size(view.now.downlink_bytes)} down"
    )


def table(view: View) -> Group:
    """The headline, a row per device, and the last events."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("device", "state", "version", "rounds", "outbox", "applied", "uploaded", "received"):
        rows.add_column(column, justify="left" if column in {"device", "state"} else "right")
    for name, device in sorted(view.devices.items()):
        status = device.said
        online = status.state == ONLINE
        outbox = status.queued + status.sent + status.returned
        rows.add_row(
            name,
            Text(status.note[:44] if online else f"offline: {status.note[:35]}", style="" if online else "red"),
            *(str(n) for n in (status.version, status.rounds, outbox, status.applied)),
            size(view.uploaded_bytes.get(name, 0)),
            size(status.down_bytes),
        )
    return Group(Text(headline(view), style="bold cyan"), rows, *(Text(event, style="yellow") for event in view.events))
