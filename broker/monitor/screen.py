"""The screen of `edgebroker top`: a headline per task and a row per device, as far as the terminal is high."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker.monitor.text import age, printable, size
from edgeclient.wire.status import ONLINE

_COLUMNS: Final = (
    "device", "does, or waits for", "behind", "rounds", "outbox", "oldest", "applied", "refused", "up", "battery",
    "heat", "said",
)  # fmt: skip
_LEFT: Final = _COLUMNS[:2]
_WIDE: Final = 110  # columns of a terminal; a narrower one shows less
_WIDE_ONLY: Final = frozenset({"rounds", "refused", "up", "heat", "said"})
_PIPED: Final = 200
_TROUBLE: Final = frozenset({"hangs", "failed", "ended", "overheated", "battery-empty", "short-spells", "no-receipts"})


def show(seen: Mapping[str, Any]) -> None:
    """Print one screen with every device."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED)
    console.print(drawn(seen, len(seen["devices"]), console.width))


@contextmanager
def live() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that redraws the terminal."""
    with Live(screen=True, auto_refresh=False) as board:
        yield lambda seen: board.update(drawn(seen, _room(seen), board.console.width), refresh=True)


def drawn(seen: Mapping[str, Any], most: int, width: int) -> Group:
    """Headlines and a table of so many devices at most, for so many columns."""
    devices = seen["devices"]
    rows = Table(box=None, pad_edge=False, header_style="bold")
    longest = max((len(f"{each['task']}/{each['device']}") for each in devices[:most]), default=0)
    columns = [column for column in _COLUMNS if width >= _WIDE or column not in _WIDE_ONLY]
    for column in columns:
        # Names are whole; what a device does may be cut.
        least = min(longest, width // 2) if column == "device" else 0 if column in _LEFT else len(column)
        rows.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True, min_width=least)
    for each in devices[:most]:
        cells = dict(zip(_COLUMNS, _cells(each), strict=True))
        rows.add_row(*(cells[column] for column in columns))
    lines = [Text(_headline(task, devices), style="bold cyan") for task in seen["tasks"]]
    if not seen["reached"]:
        lines.append(Text("the MQTT broker cannot be reached: what devices say is not known", style="red"))
    more = [Text(f"... and {len(devices) - most} more")] if len(devices) > most else []
    return Group(*lines, rows, *more)


def _headline(task: Mapping[str, Any], devices: list[dict[str, Any]]) -> str:
    own = [each for each in devices if each["task"] == task["task"]]
    online = sum(each["state"] == ONLINE for each in own)
    worth = "".join(f"  {printable(name)} {value:.4g}" for name, value in task["metrics"].items())
    return (
        f"{task['task']}  version {task['version']}, {age(task['version_age_s'])} old  "
        f"{task['updates_waiting']} of {task['goal']} updates  {online} of {len(own)} devices connected{worth}"
    )


def _cells(each: Mapping[str, Any]) -> list[str | Text]:
    online = each["state"] == ONLINE
    trouble = each["guess"] in _TROUBLE
    does = printable(each["note"])[:44] if online and each["guess"] != "hangs" else each["guess"]
    told = each.get("said_age_s")
    return [
        f"{each['task']}/{each['device']}",
        Text(does, style="red" if trouble else "" if online else "dim"),
        "" if each["behind"] is None else str(each["behind"]),
        str(each.get("rounds", "")),
        str(each["queued"] + each["sent"] + each["returned"]) if "queued" in each else "",
        age(each["oldest_s"]) if each.get("oldest_s") else "",
        str(each["applied"]),
        str(each["refused"]),
        size(each["up_bytes"]) if "up_bytes" in each else "",
        "" if each.get("battery_percent") is None else f"{each['battery_percent']} %",
        "" if each.get("temperature_c") is None else f"{each['temperature_c']:.0f} °C",
        "" if told is None else age(told),
    ]


def _room(seen: Mapping[str, Any]) -> int:
    return max(1, shutil.get_terminal_size().lines - len(seen["tasks"]) - 3)
