"""`edgebroker why` and `events`: the story of a device, and what happens; read beside the aggregator."""

import difflib
import json
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.options import CONFIG_OPTION, JSON
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger, LedgerError
from broker.monitor import rivals, story
from broker.monitor.events import Bookmark, Notice
from broker.monitor.listener import Listener, endpoint_of
from broker.monitor.story import Facts
from broker.settings import Aggregator, task_settings
from broker.task.trigger import trigger
from edgeclient.settings import load
from edgeclient.wire import topics

_POLL_S: Final = 1.0


@click.command()
@click.argument("device")
@CONFIG_OPTION
@JSON
def why(device: str, config: Path, *, as_json: bool) -> None:
    """Tell the story of a DEVICE: last contact, last update, what it waits for, what was refused and why.

    From the ledger and from what the device says of itself; works while `serve` runs or not.

    \b
    Example:
      edgebroker why pi-7 --config broker.toml
    """
    topics.checked(device)
    settings = load(config, Aggregator)
    with open_ledger(settings.ledger, read_only=True) as ledger:
        wanted = {each.name: topics.status(each.name, device) for each in ledger.tasks()}
        with Listener(endpoint_of(settings), [*wanted.values()]) as listener:
            listener.first(enough=len(wanted))
        said = {task: each.said for task in wanted if (each := listener.fleet.find(task, device))}
        past = {task: ledger.device(task, device) for task in wanted}
        goals = {task: trigger(ledger, task, task_settings(task, each.settings)).goal for task, each in past.items()}
        found = [
            Facts(task, past[task], said.get(task), listener.reached, time.time(), goal)
            for task, goal in goals.items()
            if past[task].epochs or task in said
        ]
        others = ledger.devices()
    if not found:
        near = difflib.get_close_matches(device, others, n=1)
        broker = "" if listener.reached else ", and the MQTT broker cannot be reached"
        raise LedgerError(
            f"no device {device} is known{broker}: "
            + (f"did you mean {near[0]}?" if near else "edgebroker devices lists those that are")
        )
    if as_json:
        click.echo(json.dumps({"device": device, "tasks": [_as_json(device, facts) for facts in found]}))
        return
    for facts in found:
        click.echo(f"{facts.task}/{device}")
        for line in story.told(facts):
            click.echo(f"  {line}")


@click.command()
@CONFIG_OPTION
@click.option("--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--last", type=click.IntRange(0), default=20, show_default=True, help="So many past ones at first.")
@click.option(
    "--silent-after",
    type=click.FloatRange(1),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="A device that uploads nothing for so long is silent.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def events(config: Path, *, follow: bool, last: int, silent_after: float, as_json: bool) -> None:
    """List notable events: new versions, refused frames, new and silent devices, other aggregators of a task.

    Reads the ledger beside `serve`; of the past it knows what is not compacted yet.

    \b
    Example:
      edgebroker events --config broker.toml --follow
    """
    settings = load(config, Aggregator)
    bookmark = Bookmark(silent_after)
    with open_ledger(settings.ledger, read_only=True) as ledger:
        past = _news(ledger, bookmark, time.time())
        _show(past[len(past) - min(last, len(past)) :], as_json=as_json)
        while follow:
            time.sleep(_POLL_S)
            _show(_news(ledger, bookmark, time.time()), as_json=as_json)


def _show(happened: list[Notice], *, as_json: bool) -> None:
    for each in happened:
        if as_json:
            click.echo(json.dumps(each._asdict()))
        else:
            when = datetime.fromtimestamp(each.time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"{when} {each.task}{'/' if each.device else ''}{each.device}: {each.text}")


def _as_json(device: str, facts: Facts) -> dict[str, Any]:
    past, said = facts.past, facts.said
    return {
        **{name: value for name, value in past._asdict().items() if name != "settings"},
        "task": facts.task,
        "device": device,
        "now_s": facts.now_s,
        "max_staleness": facts.settings.policy.max_staleness,
        "goal": facts.goal,
        "asked": facts.asked,
        "said": said and asdict(said),
        "update": past.update and past.update._asdict(),
        "story": story.told(facts),
    }


def _news(ledger: Ledger, bookmark: Bookmark, now_s: float) -> list[Notice]:
    news = ledger.news(bookmark.versions, bookmark.marks)
    return bookmark.notices(
        *news,
        rivals.met([each for row in ledger.tasks() for each in ledger.rivals(row.name)], ledger.identity().ledger),
        now_s=now_s,
    )
