"""The tasks that are served: those that the ledger names, which people add, change and remove while it runs."""

import time
from collections.abc import Callable, Iterator
from subprocess import Popen
from typing import Final

from broker.ledger.protocol import Ledger
from broker.ledger.rows import TaskRow
from broker.publish.retained import Publisher
from broker.registry.blobs import Blobs, RegistryError
from broker.task.journal import Journal
from broker.task.live import LiveTask
from edgeclient.bundle.layout import Layout
from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.settings import ConfigError
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError

_LOOK_S: Final = 1.0


class Roster:
    """Every task that is served, by name.

    Args:
        ledger, blobs: where tasks are.
        publisher, link: the MQTT broker.
        journal: is told what is taken up.
        spawn: starts the evaluators' child processes.

    Raises:
        ConfigError, RegistryError: a task cannot be served; one that is added later and cannot is told instead.
    """

    def __init__(
        self, ledger: Ledger, blobs: Blobs, publisher: Publisher, link: Link, journal: Journal,
        spawn: Callable[[list[str]], "Popen[bytes]"],
    ) -> None:  # fmt: skip
        self._ledger, self._blobs, self._publisher, self._link = ledger, blobs, publisher, link
        self._journal, self._spawn = journal, spawn
        self._rows: dict[str, TaskRow] = {}
        self._tasks: dict[str, LiveTask] = {}
        self._looked_s = 0.0
        for row in ledger.tasks():
            self._begin(row)

    def __iter__(self) -> Iterator[LiveTask]:
        return iter(self._tasks.values())

    def __getitem__(self, name: str) -> LiveTask:
        return self._tasks[name]

    @property
    def layouts(self) -> dict[str, Layout]:
        """Of the parameters of each."""
        return {name: task.layout for name, task in self._tasks.items()}

    def welcome(self) -> None:
        """A new connection has no subscriptions, and a killed broker may have forgotten everything."""
        for task in self:
            self._serve(task)

    def look(self) -> None:
        """Take up what the ledger names newly, or otherwise than before; once a second."""
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        rows = {row.name: row for row in self._ledger.tasks()}
        for name in self._tasks.keys() - rows.keys():
            self._end(name)
        for name, row in rows.items():
            try:
                if name not in self._tasks:
                    self._serve(self._begin(row))
                elif row != self._rows[name]:
                    self._change(row)
            except (ConfigError, RegistryError, WireError) as error:
                self._journal.complain(name, "task", f"it is not served: {error}")
        for row in self._ledger.removed():
            self._clear(row)
        for task in self:
            self._journal.rests(task)
        self._looked_s = time.monotonic()

    def _begin(self, row: TaskRow) -> LiveTask:
        task = self._tasks[row.name] = LiveTask(self._ledger, self._blobs, row)
        self._rows[row.name] = row
        self._journal.begins(task)
        task.evaluate(self._ledger, self._blobs, self._spawn, self._link.wake)
        return task

    def _change(self, row: TaskRow) -> None:
        """What waits stays; the next version is made by the new settings, and devices hear of those that are theirs."""
        task, before = self._tasks[row.name], self._tasks[row.name].settings
        task.change(row)
        self._rows[row.name] = row
        self._journal.changed(task, before)
        if task.settings.evaluation != before.evaluation:
            task.evaluate(self._ledger, self._blobs, self._spawn, self._link.wake)
        task.publish(self._ledger, self._blobs, self._publisher)

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.close()
        self._journal.ends(task)
        try:
            self._link.unsubscribe(*(topics.everyone(name, kind) for kind in ("up", "status")))
        except LinkDown:
            return  # the next connection has none of them

    def _clear(self, row: TaskRow) -> None:
        """A removed task leaves the broker, then the ledger, then the registry."""
        versions = self._ledger.versions(row.name)
        if not self._publisher.withdraw(row.name, [row.bundle, *(each.digest for each in versions)], self._blobs.path):
            return  # not connected: at a later look
        for digest in self._ledger.forget_task(row.name):
            self._blobs.remove(digest)

    def _serve(self, task: LiveTask) -> None:
        """Listen to its devices, then publish everything, since they answer at once."""
        if not self._publisher.listens:
            return
        try:
            self._link.subscribe(topics.everyone(task.name, "up"))
            if self._journal.watch.listens:
                # QoS 0, so that statuses take no place in the broker's window of unacknowledged uploads.
                self._link.subscribe(topics.everyone(task.name, "status"), qos=0)
        except LinkDown:
            return  # it broke again, and the next Connected follows
        for error in task.publish_all(self._ledger, self._blobs, self._publisher):
            self._journal.complain(task.name, "registry", f"{error}: until then it is not served")
