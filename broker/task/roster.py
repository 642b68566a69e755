"""The tasks that are served: those that the ledger names, which people add, change and remove while it runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from subprocess import Popen
from typing import Final

from broker.ledger.protocol import Ledger, LedgerError, LedgerUnavailable
from broker.ledger.rows import TaskRow
from broker.publish.clearing import Clearing
from broker.publish.retained import CLEARED, KEEP_VERSIONS, Publisher
from broker.registry.blobs import Blobs, RegistryError
from broker.settings import measures, task_settings
from broker.task.incumbency import Incumbency
from broker.task.journal import Journal
from broker.task.live import LiveTask
from edgeclient.bundle.layout import Layout
from edgeclient.link.mqtt import Link, LinkDown, Message
from edgeclient.settings import ConfigError
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError

_LOOK_S: Final = 1.0
# The MQTT broker acknowledges at once; where much is under way all the time, some of it always waits.
_ACKNOWLEDGED_S: Final = 10.0


class Roster:
    """Every task that is served, by name.

    Args:
        ledger, blobs: where tasks are.
        publisher, link: the MQTT broker.
        journal: is told what is taken up.
        spawn: starts the evaluators' child processes.
        place: of the ledger.

    Raises:
        ConfigError, RegistryError: a task cannot be served; one that is added later and cannot is told instead.
    """

    def __init__(
        self, ledger: Ledger, blobs: Blobs, publisher: Publisher, link: Link, journal: Journal,
        spawn: Callable[[list[str]], "Popen[bytes]"], place: str,
    ) -> None:  # fmt: skip
        self._ledger, self._blobs, self._publisher, self._link = ledger, blobs, publisher, link
        self._journal, self._spawn = journal, spawn
        self._rows: dict[str, TaskRow] = {}
        self._tasks: dict[str, LiveTask] = {}
        self._candidates: dict[str, LiveTask] = {}  # until it is known that nobody else serves them
        self._incumbency = Incumbency(ledger, link, journal, place)
        self._looked_s, self._clearing = 0.0, Clearing()
        self._elected: list[str] = []  # that have not begun
        self._unserved: set[str] = set()  # to be subscribed to and published, again until the ledger lets it
        self._connected = False  # a connection of which others are not told yet
        self._leaving: dict[str, float] = {}  # removed tasks, and when they were taken off the MQTT broker
        for row in ledger.tasks():
            self._stand(row)

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
        self._leaving.clear()
        self._connected, self._unserved = True, set(self._tasks)
        with suppress(LedgerUnavailable):  # the next look tries again
            self._renew()

    def hear(self, message: Message) -> bool:
        """Whether a message was an announcement or of other aggregators, and needs nothing more."""
        if cleared := self._incumbency.cleared(message):
            self._clearing.note(cleared)
        return self._incumbency.hear(message)

    def publish(self, task: LiveTask) -> None:
        """Its current version."""
        self._unserved.add(task.name)
        try:
            task.publish(self._ledger, self._blobs, self._publisher, self._incumbency.me)
        except RegistryError as error:
            self._journal.complain(task.name, "registry", f"{error}: until then it is not served")
        self._unserved.discard(task.name)

    def look(self) -> None:
        """Begin with tasks that nobody else serves; take up what the ledger names newly, or otherwise than before.

        Raises:
            LedgerError: others serve all of them.
        """
        self._renew()
        for name in self._incumbency.elected():
            self._elected.append(name)
        while self._elected:
            self._begin(self._elected[0])
        for name in self._incumbency.contested():
            self._publisher.head(self._tasks[name].announcement(self._ledger, self._incumbency.me))
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        rows = {row.name: row for row in self._ledger.tasks()}
        for name in self._rows.keys() - rows.keys():
            self._end(name)
        for name, row in rows.items():
            try:
                if name not in self._rows:
                    self._stand(row)
                elif row != self._rows[name]:
                    self._change(row)
            except (ConfigError, RegistryError, WireError) as error:
                self._journal.complain(name, "task", f"it is not served: {error}")
        self._part()
        for task in self:
            self._journal.rests(task)
        self._restore()
        self._looked_s = time.monotonic()

    def _restore(self) -> None:
        """What somebody has cleared is published again."""
        for name in self._clearing.due(now=time.monotonic()):
            if name in self._tasks:
                self._journal.cleared(name)
                self._unserved.add(name)
        self._renew()

    def _renew(self) -> None:
        """What a new connection asks for, and what has failed when it was asked for."""
        if self._connected:
            self._incumbency.connected()
            self._connected = False
        for task in [each for each in self if each.name in self._unserved]:
            self._serve(task)

    def _stand(self, row: TaskRow) -> None:
        self._candidates[row.name] = LiveTask(self._ledger, self._blobs, row)
        self._rows[row.name] = row
        self._incumbency.stand(row.name)

    def _begin(self, name: str) -> None:
        task = self._candidates[name]
        task.evaluate(self._ledger, self._blobs, self._spawn, self._link.wake)
        self._tasks[name] = self._candidates.pop(name)
        self._elected.remove(name)
        self._journal.begins(task)
        self._serve(task)

    def _change(self, row: TaskRow) -> None:
        """What waits stays; the next version is made by the new settings, and devices hear of those that are theirs."""
        task = self._tasks.get(row.name) or self._candidates[row.name]
        before = task_settings(row.name, self._rows[row.name].settings)
        task.change(row)
        if row.name in self._tasks:
            if measures(task.settings) != measures(before):
                task.evaluate(self._ledger, self._blobs, self._spawn, self._link.wake)
            self._journal.changed(task, before)
            self.publish(task)
        self._rows[row.name] = row

    def _end(self, name: str) -> None:
        del self._rows[name]
        self._incumbency.retire(name)
        self._candidates.pop(name, None)
        if (task := self._tasks.pop(name, None)) is None:
            return
        task.close()
        self._journal.ends(task)
        try:
            self._link.unsubscribe(*(topics.everyone(name, kind) for kind in ("up", "status")))
        except LinkDown:
            return  # the next connection has none of them

    def _part(self) -> None:
        """Removed tasks leave; then it may be over."""
        removed = self._ledger.removed()
        for row in removed:
            self._clear(row)
        if self._incumbency.idle and not removed:
            raise LedgerError(self._incumbency.idle)

    def _clear(self, row: TaskRow) -> None:
        """A removed task leaves the broker, then the ledger, then the registry; again after a connection that broke."""
        mine = self._incumbency.me.ledger in self._ledger.lineage(row.name)  # or the broker has another one's
        if mine and row.name not in self._leaving:
            versions = self._ledger.versions(row.name, CLEARED + KEEP_VERSIONS)
            digests = [row.bundle, *(each.digest for each in versions)]
            if self._publisher.withdraw(row.name, digests, self._blobs.path):
                self._leaving[row.name] = time.monotonic()
            return
        if self._link.pending and time.monotonic() - self._leaving.get(row.name, 0.0) < _ACKNOWLEDGED_S:
            return
        self._leaving.pop(row.name, None)
        for digest in self._ledger.forget_task(row.name):
            self._blobs.remove(digest)

    def _serve(self, task: LiveTask) -> None:
        """Listen to its devices, then publish everything, since they answer at once."""
        self._unserved.discard(task.name)
        if not self._publisher.listens:
            return
        try:
            self._link.subscribe(topics.everyone(task.name, "up"))
            if self._journal.watch.listens:
                # QoS 0, so that statuses take no place in the broker's window of unacknowledged uploads.
                self._link.subscribe(topics.everyone(task.name, "status"), qos=0)
        except LinkDown:
            return  # it broke again, and the next Connected follows
        self._unserved.add(task.name)
        for error in task.publish_all(self._ledger, self._blobs, self._publisher, self._incumbency.me):
            self._journal.complain(task.name, "registry", f"{error}: until then it is not served")
        self._unserved.discard(task.name)
