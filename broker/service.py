"""The aggregator, top to bottom.

Message → frame → ledger (ONE transaction) → receipt → acknowledgement → batch → parameters → version → announcement.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from broker.intake.decode import HelloIn, Rejected
from broker.intake.door import Door
from broker.ledger.opening import AggregatorLock, open_ledger, place
from broker.ledger.protocol import LedgerUnavailable
from broker.ledger.rows import receipts_due
from broker.monitor.watch import Watch
from broker.publish.retained import Publisher
from broker.registry.blobs import Blobs, RegistryUnavailable
from broker.settings import Aggregator
from broker.task.journal import Journal
from broker.task.live import LiveTask
from broker.task.roster import Roster
from edgeclient import failpoint
from edgeclient.link.events import Connected, Disconnected, Message, SubscriptionRefused
from edgeclient.link.mqtt import Link, LinkDown

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5
_RETRY_S: Final = 1.0  # after a write for which there was no room
_AT_ONCE: Final = 256  # messages that share a commit; statuses among them make it no smaller
_MAX_WAITING: Final = 1024  # messages that wait for it; the MQTT broker keeps the rest

POINTS: Final = (
    "service.before-receipt", "service.before-ack", "service.after-ack",
    "service.before-publish", "service.after-publish",
)  # fmt: skip


class Service:
    """Aggregates all tasks of one ledger; `run` returns after `stop`.

    Args:
        settings: where ledger and registry are.
        link: to the MQTT broker; started and stopped here.
        spawn: starts the evaluators' child processes.
        watch: is told what happens.
        tend: sees to the MQTT broker, every turn; for one that is ours.
        health: topics on which the MQTT broker tells the watch about itself.

    Raises:
        LedgerError, RegistryError: the store cannot be used; the text says what to do. `run` raises it where others
            serve the tasks.
    """

    def __init__(
        self,
        settings: Aggregator,
        link: Link,
        spawn: Callable[[list[str]], "subprocess.Popen[bytes]"],
        watch: Watch | None = None,
        tend: Callable[[], None] | None = None,
        health: Sequence[str] = (),
    ) -> None:
        self._lock = AggregatorLock(settings.ledger)
        self._ledger = open_ledger(settings.ledger)
        self._ledger.check_pages()
        self._blobs = Blobs(settings.registry)
        self._blobs.remove_strays(self._ledger.digests())
        self._link, self._tend, self._health = link, tend, health
        self._watch = watch or Watch()
        self._journal, self._door, self._publisher = (
            Journal(self._watch),
            Door(self._ledger.identity().ledger),
            Publisher(link),
        )
        self._waiting: list[Message] = []
        self._crowd = 0  # messages of any kind that were there at once
        self._stop = threading.Event()
        where = place(settings.ledger)
        self._tasks = Roster(self._ledger, self._blobs, self._publisher, link, self._journal, spawn, where)

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stop.set()
        self._link.wake()

    def run(self) -> None:
        """Count, aggregate and publish until stopped; while there is no room on the disk, wait and answer nothing."""
        self._link.start()
        try:
            while not self._stop.is_set():
                if self._tend is not None:
                    self._tend()
                try:
                    self._turn()
                    self._watch.turned(writable=True, uncounted=self._link.backlog)
                except (LedgerUnavailable, RegistryUnavailable) as error:
                    self._watch.turned(writable=False, uncounted=len(self._waiting) + self._link.backlog)
                    told = f"{error}: nothing is counted or answered until that works again"
                    self._journal.complain("storage", "room", told)
                    self._stop.wait(_RETRY_S)
        finally:
            self._link.stop()
            self._ledger.close()
            self._lock.close()

    def _turn(self) -> None:
        self._tasks.look()
        if len(self._waiting) < _MAX_WAITING:
            self._listen()
        if self._waiting:
            self._count()
            self._waiting = []
        for task in self._tasks:
            if (was := task.catch_up(self._ledger)) is not None:
                self._journal.caught_up(task, was)
                self._tasks.publish(task)
            self._close(task)

    # Message → frame

    def _listen(self) -> None:
        waits = [wait for task in self._tasks if (wait := task.wait_s(self._ledger, self._watch)) is not None]
        wait_s = 0.0 if self._waiting else max(0.0, min([_TURN_S, *waits]))
        events = self._link.poll(wait_s, limit=_AT_ONCE)
        self._crowd = len(events)
        for event in events:
            match event:
                case Message() if self._watch.heard(event.topic, event.payload) or self._tasks.hear(event):
                    continue
                case Message():
                    self._watch.uploaded(len(event.payload))
                    self._waiting.append(event)
                case Connected():
                    self._welcome()
                case Disconnected(why):
                    self._publisher.listens = False
                    self._watch.connected(up=False)
                    self._journal.disconnected(why)
                case SubscriptionRefused(refused):
                    self._journal.unheard(refused)

    def _welcome(self) -> None:
        """A new connection: listen, then publish everything, since a killed broker may have forgotten it."""
        try:
            self._watch.connected(up=True)  # before the statuses that follow the subscription
            self._link.subscribe(*self._health, qos=0)
        except LinkDown:
            return  # it broke again, and the next Connected follows
        self._publisher.listens = True
        self._tasks.welcome()

    # Frame → ledger → receipt → acknowledgement

    def _count(self) -> None:
        """Receipts are published only after the transaction, and MQTT is acknowledged after the receipts."""
        read = self._door.read(self._waiting, self._tasks.layouts, self._crowd)
        hellos = [(said.task, said.device, said.hello) for said in read if isinstance(said, HelloIn)]
        asked = [each for said in read if not isinstance(said, Rejected) for each in self._tasks[said.task].asked(said)]
        for (name, device, _), lost in zip(hellos, self._ledger.greet(hellos), strict=True):
            if lost:
                self._journal.lost(device, lost)
                self._tasks[name].note_lost(self._ledger, lost)
        began_s = time.monotonic()
        admissions = self._ledger.admit(asked, time.time())
        self._journal.counted(read, asked, admissions, time.monotonic() - began_s)
        for task in self._tasks:
            task.follow(self._ledger, read)
            task.note_ahead(asked, admissions)
        failpoint.hit("service.before-receipt")
        try:
            for (name, device, epoch), conflict in receipts_due(hellos, asked, admissions).items():
                self._publisher.receipt(name, device, self._ledger.receipt(name, device, epoch, conflict=conflict))
        except LinkDown:
            return
        failpoint.hit("service.before-ack")
        for message in self._waiting:
            self._link.acknowledge(message)
        failpoint.hit("service.after-ack")

    # Batch → parameters → version → announcement

    def _close(self, task: LiveTask) -> None:
        """A version is announced once it is judged, by its evaluation if there is one; else the last good one again."""
        wait_s = task.wait_s(self._ledger, self._watch)
        if wait_s is not None and wait_s <= 0:
            task.close_batch(self._ledger, self._blobs)
        for found in task.evaluated(self._ledger):
            self._journal.evaluated(task, found, self._ledger.points(task.name))
        if (judged := task.judge(self._ledger, self._blobs)) is None:
            return
        self._journal.judged(task, judged)
        failpoint.hit("service.before-publish")
        self._tasks.publish(task)
        failpoint.hit("service.after-publish")
        task.tidy(self._ledger, self._blobs)
