"""`edgebroker why` and `events`: the story of a device, and what happens; read beside the aggregator."""

import difflib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from broker.ledger import record
from broker.ledger.database import Database, LedgerError
from broker.ledger.past import Chunk
from broker.monitor import hearing, story
from broker.monitor.events import Event, Key, Known, Made, Mark, Moved, notice
from broker.monitor.story import Facts, Update
from broker.settings import Aggregator, Task
from edgeclient.settings import load, structure
from edgeclient.wire import status, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import Status

_POLL_S: Final = 1.0
# An update older than this many versions is found in no record; reading one takes 0.1 ms.
_RECORDS: Final = 200
_CONFIG: Final = click.option(
    "--config",
    default="broker.toml",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The aggregator's file.",
)


@click.command()
@click.argument("device")
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def why(device: str, config: Path, *, as_json: bool) -> None:
    """Tell the story of a DEVICE: last contact, last update, what it waits for, what was refused and why.

    From the ledger and from what the device says of itself; works while `serve` runs or not.

    \b
    Example:
      edgebroker why pi-7 --config broker.toml
    """
    topics.checked(device)
    settings = load(config, Aggregator)
    with _reading(settings) as db:
        tasks = [name for (name,) in db.execute("SELECT name FROM task ORDER BY name")]
        said = _statuses(settings, tasks, device)
        found = [
            facts
            for name in tasks
            if (facts := _facts(db, name, device, said)).epochs or facts.said is not None
        ]  # fmt: skip
        others = [name for (name,) in db.execute("SELECT DISTINCT device FROM epoch")]
    if not found:
        near = difflib.get_close_matches(device, others, n=1)
        broker = "" if said is not None else ", and the MQTT broker cannot be reached"
        raise LedgerError(
            f"no device {device} is known{broker}: "
            + (f"did you mean {near[0]}?" if near else "edgebroker devices lists those that are")
        )
    if as_json:
        click.echo(json.dumps({"device": device, "tasks": [_as_json(facts) for facts in found]}))
        return
    for facts in found:
        click.echo(f"{facts.task}/{facts.device}")
        for line in story.told(facts):
            click.echo(f"  {line}")


@click.command()
@_CONFIG
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
    """List notable events: new versions, refused frames, new devices, silent ones, and those that come back.

    Reads the ledger beside `serve`; of the past it knows what is not compacted yet.

    \b
    Example:
      edgebroker events --config broker.toml --follow
    """
    settings = load(config, Aggregator)
    known = Known(silent_after)
    with _reading(settings) as db:
        past = notice(known, *_news(db, known.versions, known.marks), now_s=time.time())
        _show(past[len(past) - min(last, len(past)) :], as_json=as_json)
        while follow:
            time.sleep(_POLL_S)
            _show(notice(known, *_news(db, known.versions, known.marks), now_s=time.time()), as_json=as_json)


def _show(happened: list[Event], *, as_json: bool) -> None:
    for each in happened:
        if as_json:
            click.echo(json.dumps(each._asdict()))
        else:
            when = datetime.fromtimestamp(each.time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"{when} {each.task}{'/' if each.device else ''}{each.device}: {each.text}")


def _as_json(facts: Facts) -> dict[str, Any]:
    return {**asdict(facts), "story": story.told(facts)}


@contextmanager
def _reading(settings: Aggregator) -> Iterator[sqlite3.Connection]:
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: nothing was counted here yet")
    with closing(Database(settings.ledger, read_only=True)) as database:
        yield database.db


@contextmanager
def _moment(db: sqlite3.Connection) -> Iterator[None]:
    """One consistent state, however the aggregator writes meanwhile."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def _statuses(settings: Aggregator, tasks: list[str], device: str) -> dict[str, Status] | None:
    """What the device says of itself, by task; None when the MQTT broker cannot be reached."""
    heard = hearing.retained(hearing.endpoint_of(settings), [topics.status(task, device) for task in tasks])
    if heard is None:
        return None
    said: dict[str, Status] = {}
    for message in heard:
        try:
            said[topics.parse(message.topic).task] = status.decode(message.payload)
        except WireError:
            continue  # who may write there may write anything
    return said


def _facts(db: sqlite3.Connection, task: str, device: str, said: dict[str, Status] | None) -> Facts:
    who = (task, device)
    with _moment(db):
        (values,) = db.execute("SELECT settings FROM task WHERE name = ?", (task,)).fetchone()
        settings = structure(json.loads(values), Task, where=f"settings of task {task}")
        (version,) = db.execute("SELECT max(number) FROM version WHERE task = ?", (task,)).fetchone()
        (waiting,) = db.execute(
            "SELECT coalesce(sum(leads), 0) FROM contribution WHERE task = ? AND batch IS NULL", (task,)
        ).fetchone()
        epochs, folded_applied, folded_refused, lost = db.execute(
            "SELECT count(*), coalesce(sum(applied), 0), coalesce(sum(refused), 0), coalesce(sum(lost_to_restore), 0)"
            " FROM epoch WHERE task = ? AND device = ?",
            who,
        ).fetchone()
        frames, frames_refused, last_frame_s = db.execute(
            "SELECT count(*), count(refusal), max(received) FROM frame WHERE task = ? AND device = ?", who
        ).fetchone()
        newest = db.execute(
            "SELECT sequence, refusal, received FROM frame WHERE task = ? AND device = ? AND refusal IS NOT NULL"
            " ORDER BY received DESC LIMIT 1",
            who,
        ).fetchone()
        update = _update(db, task, device)
        if update is not None and update.received_s is not None:
            last_frame_s = max(last_frame_s or 0.0, update.received_s)
        return Facts(
            task=task,
            device=device,
            now_s=time.time(),
            version=version,
            max_staleness=settings.policy.max_staleness,
            waiting=waiting,
            goal=settings.goal,
            asked=said is not None,
            said=None if said is None else said.get(task),
            epochs=epochs,
            applied=folded_applied + frames - frames_refused,
            refused=folded_refused + frames_refused,
            lost=lost,
            last_frame_s=last_frame_s,
            update=update,
            refusals=_refusals(db, task, device),
            last_refusal=newest and (newest[0], Refusal(newest[1]).reason, newest[2]),
        )


def _refusals(db: sqlite3.Connection, task: str, device: str) -> dict[str, int]:
    """By reason: of frames that are kept, and of those that have folded."""
    counts = Counter[str]()
    for code, count in db.execute(
        "SELECT refusal, count(*) FROM frame WHERE task = ? AND device = ? AND refusal IS NOT NULL GROUP BY refusal",
        (task, device),
    ):
        counts[Refusal(code).reason] += count
    for columns in db.execute("SELECT digests, refusals FROM past WHERE task = ? AND device = ?", (task, device)):
        counts.update(refusal.reason for _, refusal in Chunk(*columns).frames(0) if refusal is not None)
    return dict(counts)


def _update(db: sqlite3.Connection, task: str, device: str) -> Update | None:
    """The newest counted one: its contribution, or what the records of versions say once that is compacted."""
    row = db.execute(
        "SELECT base_version, received, batch FROM contribution WHERE task = ? AND device = ? ORDER BY id DESC LIMIT 1",
        (task, device),
    ).fetchone()
    if row is not None:
        made = db.execute("SELECT created FROM version WHERE task = ? AND batch = ?", (task, row[2])).fetchone()
        return Update(row[0], row[1], row[2], made and made[0])
    for number, created, written in db.execute(
        "SELECT number, created, record FROM version WHERE task = ? AND record IS NOT NULL"
        " ORDER BY number DESC LIMIT ?",
        (task, _RECORDS),
    ):
        bases = [member.base_version for member in record.decode(written)[0] if member.device == device]
        if bases:
            return Update(bases[-1], None, number, created)
    return None


def _news(db: sqlite3.Connection, versions: dict[str, int], marks: dict[Key, Mark]) -> tuple[list[Made], list[Moved]]:
    """What the ledger has beyond what is known; 13 ms for 10,000 devices when nothing is new, measured."""
    made: list[Made] = []
    moved: list[Moved] = []
    with _moment(db):
        for (task,) in db.execute("SELECT name FROM task").fetchall():
            rows = db.execute(
                "SELECT number, created, batch, updates FROM version WHERE task = ? AND number > ? ORDER BY number",
                (task, versions.get(task, -1)),
            )
            made += [Made(task, number, s, None if batch is None else updates) for number, s, batch, updates in rows]
        for *key, watermark, seen, confirmed, lost in db.execute(
            "SELECT task, device, epoch, watermark, seen, confirmed, lost_to_restore FROM epoch"
        ).fetchall():
            epoch, mark = (key[0], key[1], key[2]), (watermark, seen, confirmed, lost)
            known = marks.get(epoch)
            if known != mark:
                moved.append(_moved(db, epoch, mark, since=known[0] if known else 0))
    return made, moved


def _moved(db: sqlite3.Connection, key: Key, mark: Mark, since: int) -> Moved:
    frames = "FROM frame WHERE task = ? AND device = ? AND epoch = ?"
    (first_s,) = db.execute(f"SELECT max(received) {frames} AND sequence = 0", key).fetchone()
    (last_s,) = db.execute(f"SELECT max(received) {frames} AND sequence >= ?", (*key, since)).fetchone()
    refused = db.execute(
        f"SELECT sequence, refusal, received {frames} AND sequence >= ? AND refusal IS NOT NULL",
        (*key, since),
    )
    return Moved(key, mark, first_s, last_s, tuple((s, Refusal(code).reason, when_s) for s, code, when_s in refused))
