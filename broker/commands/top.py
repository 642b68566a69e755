"""`edgebroker top`: the fleet on one screen, redrawn as things happen."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.fleet import listed, listener_of
from broker.commands.options import FILE
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.monitor.listener import Listener
from broker.settings import Aggregator, task_settings
from broker.task.trigger import trigger
from edgeclient.settings import ConfigError, load
from edgeclient.wire.status import OFFLINE

# In this order: what somebody should look at comes first.
_TROUBLE: Final = (
    "hangs",
    "failed",
    "ended",
    "overheated",
    "battery-empty",
    "short-spells",
    "connection-lost",
    "no-receipts",
    "no-model",
)


@click.command("top")
@click.argument("config", type=FILE, default="broker.toml")
@click.option("--once", is_flag=True, help="Print one screen and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a screen, on a line.")
@click.option("--every", "every_s", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, metavar="SECONDS")
def top(config: Path, *, once: bool, as_json: bool, every_s: float) -> None:
    """Show tasks and devices, live: versions, what each device does or waits for, outboxes, health.

    Devices that somebody should look at come first. Reads the ledger and listens to the MQTT broker; works beside
    `serve`. Ctrl-C ends it.

    \b
    Example:
      edgebroker top broker.toml
      edgebroker top broker.toml --once --json
    """
    settings = load(config, Aggregator)
    with open_ledger(settings.ledger, read_only=True) as ledger, listener_of(settings, ledger) as listener:
        listener.first()
        with nullcontext(_dump) if as_json else nullcontext(_rich().show) if once else _rich().live() as tell:
            tell(_screen(ledger, listener))
            while not once:
                listener.wait(every_s)
                tell(_screen(ledger, listener))


def _dump(seen: dict[str, Any]) -> None:
    click.echo(json.dumps(seen))


def _rich() -> Any:
    try:
        from broker.monitor import screen  # noqa: PLC0415 (rich takes 0.1 s to load, and is an extra)
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        raise ConfigError("top needs rich, or --json: pip install '.[broker]' in the clone") from None
    return screen


def _screen(ledger: Ledger, listener: Listener) -> dict[str, Any]:
    tasks = []
    for name, _, values in ledger.tasks():
        (last,), pending = ledger.versions(name, last=1), ledger.pending(name)
        settings = task_settings(name, values)
        tasks.append(
            {
                "task": name,
                "version": last.number,
                "version_age_s": max(0.0, time.time() - last.created_s),
                "metrics": last.metrics,
                "updates_waiting": pending.updates,
                "goal": trigger(ledger, name, settings).goal,
            }
        )
    return {
        "time_s": time.time(),
        "reached": listener.reached,
        "tasks": tasks,
        "devices": by_trouble(listed(ledger, listener)),
    }


def by_trouble(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those first that somebody should look at, then those that work, then those that are off."""

    def rank(each: dict[str, Any]) -> tuple[int, str, str]:
        trouble = _TROUBLE.index(each["guess"]) if each["guess"] in _TROUBLE else len(_TROUBLE)
        off = each["state"] in {"", OFFLINE} and each["guess"] != "hangs"
        return trouble + off, each["task"], each["device"]

    return sorted(rows, key=rank)
