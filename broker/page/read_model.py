"""What the web page shows, as JSON values: the ledger's rows joined with what devices say of themselves.

Reads the ledger beside the service, in whatever one thread calls it.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.monitor import rivals, story
from broker.monitor.events import Bookmark, Notice
from broker.monitor.fleet import Sighting
from broker.monitor.learning import finding, overfitting
from broker.monitor.measures import MANY, late
from broker.monitor.metrics import Metrics
from broker.settings import Task, task_settings
from broker.task.trigger import resting, trigger
from broker.task.worth import best_version
from broker.views import Point
from edgeclient.wire.status import OFFLINE
from edgeclient.wire.topics import checked

ROUNDS: Final = 10
PAGE: Final = 100  # devices
_EVENTS: Final = 100
_PAST: Final = ("version", "applied", "refused", "lost", "refusals", "last_refusal", "last_frame_s")
_SILENT_AFTER_S: Final = 3600.0


class ReadModel:
    """Tasks, rounds and devices, as they are when they are asked for; `metrics` is the watch that the service tells."""

    def __init__(self, ledger: Path, metrics: Metrics) -> None:
        self._path = ledger
        self._metrics = metrics
        self._opened: Ledger | None = None
        self._bookmark = Bookmark(_SILENT_AFTER_S)
        self._events: deque[Notice] = deque(maxlen=_EVENTS)

    def close(self) -> None:
        """Let go of the ledger; by the thread that has read it."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _ledger(self) -> Ledger:
        if self._opened is None:
            self._opened = open_ledger(self._path, read_only=True)
        return self._opened

    def tasks(self) -> list[str]:
        """Their names."""
        return [each.name for each in self._ledger.tasks()]

    def first(self, task: str) -> dict[str, Any]:
        """What the page shows at first beside the live sections: of `task`, or else of the one that is alive."""
        self._metrics.look()
        tasks = self.tasks()
        task = task if task in tasks else max(tasks, key=self._alive, default="")
        return {"tasks": tasks, "task": task, "devices": self.devices(task), "rounds": self.rounds(task)}

    def live(self, task: str) -> dict[str, Any]:
        """What changes by itself, in sections; for a task that is not there, which others are."""
        tasks = self.tasks()
        served = {"served": {"tasks": tasks}}
        if task not in tasks:
            return served
        self._metrics.look()
        curve = self._ledger.points(task)
        settings, summary = self._settings(task), self._metrics.summary(task)
        last = curve[-1]
        return {
            **served,
            "now": {
                "version": last.number,
                "made_s": last.made_s,
                "waiting": self._ledger.pending(task).updates,
                "goal": trigger(self._ledger, task, settings).goal,
                "density": settings.policy.density,
                "updates": last.updates,
                "frame_bytes": last.frame_bytes,
                "dense_bytes": self._metrics.dense_bytes(task) * last.updates,
                "upload_bytes": self._metrics.upload_bytes(),
                "wrong": self._metrics.ready() or self._contested(task) or self._metrics.held_back(task),
            },
            "fleet": {"states": summary.states, "reasons": summary.reasons(), "outbox": sum(summary.outbox.values())},
            "learning": self._learning(task, curve, settings),
            "points": [{**each._asdict(), "metrics": _finite(each.metrics)} for each in curve],
            "verdicts": {
                "answers": [
                    {"verdict": verdict, "reason": reason, "count": count}
                    for (verdict, reason), count in sorted(self._metrics.answers(task).items())
                ],
                "unreadable": dict(sorted(self._metrics.unreadable().items())),
            },
            "events": self._happened(task),
            "statuses": self._metrics.fleet.changes,
        }

    def _contested(self, task: str) -> str:
        """Another aggregator has lately had to do with the task."""
        return rivals.warning(self._ledger.rivals(task), self._ledger.identity().ledger, time.time())

    def devices(self, task: str, *, state: str = "", search: str = "", number: int = 0) -> dict[str, Any]:
        """Devices in a state, or in any, whose name contains `search`; PAGE of them by name, from page `number` on."""
        self._metrics.look()
        devices, search = self._metrics.fleet.devices(task), search[:64].lower()
        found = sorted(name for name, each in devices.items() if search in name.lower() and state in {"", each.state})
        rows = [_row(name, devices[name]) for name in found[number * PAGE : (number + 1) * PAGE]]
        return {"rows": rows, "total": len(found), "page": number, "per_page": PAGE}

    def device(self, task: str, name: str) -> dict[str, Any] | None:
        """Everything about one device; None when nobody knows it."""
        if checked(task) not in self.tasks():
            return None
        self._metrics.look()
        past, device = self._ledger.device(task, checked(name)), self._metrics.fleet.find(task, name)
        if device is None and not past.epochs:
            return None
        said = None if device is None else device.said
        asked = not self._metrics.ready()
        goal = trigger(self._ledger, task, self._settings(task)).goal
        facts = story.Facts(task, past, said, asked, time.time(), goal)
        told = {} if device is None else {**_row(name, device), **asdict(device.said), "state": device.state}
        return {
            "name": name,
            "story": story.told(facts),
            "said": told,
            **{name: getattr(past, name) for name in _PAST},
            "density": self._metrics.density(task, name),
            "task_density": facts.settings.policy.density,
            "recent": [each._asdict() for each in self._ledger.recent(task, name)],
        }

    def rounds(self, task: str, *, before: int = 2**62) -> list[dict[str, Any]]:
        """The newest rounds below a version."""
        return [each._asdict() for each in self._ledger.rounds(task, before, ROUNDS)]

    def contributors(self, task: str, number: int) -> list[str]:
        """All devices of a round."""
        return self._ledger.contributors(task, number)

    def _learning(self, task: str, curve: list[Point], settings: Task) -> dict[str, Any]:
        """Which version is best, what is wrong with how the task learns, and whether it rests."""
        known = [(each.number, each.metrics) for each in curve]
        wrong = finding(task, known, settings.policy.learning_rate)
        devices = self._metrics.fleet.devices(task).values()
        changes = [each.said.holdout_change for each in devices]
        told = overfitting(task, changes, settings.policy.local_epochs) if wrong is None else wrong.text
        champion = best_version(self._ledger.versions(task))
        return {
            "best": champion,
            "late": late([(number, each.get("accuracy")) for number, each in known], known[-1][0], MANY),
            "wrong": told,
            "rests": resting(self._ledger, task, settings),
        }

    def _alive(self, task: str) -> tuple[bool, float]:
        """Whether a device of it is online, and when it last had an update or a version."""
        (last,), waiting = self._ledger.versions(task, last=1), self._ledger.pending(task)
        online = any(each.state != OFFLINE for each in self._metrics.fleet.devices(task).values())
        return online, max(last.created_s, waiting.opened_s or 0.0)

    def _settings(self, task: str) -> Task:
        values = {each.name: each.settings for each in self._ledger.tasks()}.get(task, {})
        return task_settings(task, values)

    def _happened(self, task: str) -> list[dict[str, Any]]:
        news = self._ledger.news(self._bookmark.versions, self._bookmark.marks)
        self._events.extend(
            self._bookmark.notices(
                *news,
                rivals.met(
                    [each for row in self._ledger.tasks() for each in self._ledger.rivals(row.name)],
                    self._ledger.identity().ledger,
                ),
                now_s=time.time(),
            )
        )
        both = sorted([*self._events, *self._metrics.fleet.events.copy()])
        return [each._asdict() for each in both if each.task == task][-_EVENTS:]


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that JSON can say."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _row(name: str, device: Sighting) -> dict[str, Any]:
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
