"""The command `edgeclient once`: train on the current version until everything is counted, and end."""

import json
import sys
import threading
from pathlib import Path

import click

from edgeclient.commands.options import CONFIG, JSON
from edgeclient.commands.run import devices, opened, take_part
from edgeclient.logs import output
from edgeclient.settings.signals import Signals


@click.command("once")
@CONFIG
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 1e7),
    default=1800.0,
    show_default=True,
    help="Give up after so many seconds.",
)
@JSON
@output.options
def once_command(config: Path, timeout_s: float, log_format: str, log_level: str, *, as_json: bool) -> None:
    """Train on the current version, wait until what came of it is counted, and end: for timers and job schedulers.

    The exit code is 0 when everything is done, and 3 when conditions forbid it now or the time is over; what was learnt
    is kept, and the next run goes on.

    \b
    Example:
      edgeclient once device.toml --timeout 600
    """
    output.configure(log_format, log_level)
    (agent,) = opened(devices([config]), Signals(reloads=False))
    timer = threading.Timer(timeout_s, agent.stop)
    timer.daemon = True
    timer.start()
    take_part([agent], once=True)
    timer.cancel()
    outcome = agent.outcome
    late = f"stopped, or not done after {timeout_s:.0f} s: {outcome['progress'] or outcome['note']}"
    why = "" if outcome["done"] else outcome["because"] or f"{late}; the next run goes on from there"
    if as_json:
        click.echo(json.dumps(outcome | {"because": why}))
    else:
        click.echo(why or f"version {outcome['version']} is trained on, and every frame is counted")
    if why:
        sys.exit(3)
