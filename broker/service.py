"""The aggregator's composition root: the map of README.md, top to bottom, in one loop.

MQTT message → frame → ledger (ONE transaction) → receipt → acknowledgement → batch → new parameters →
registry → announcement.
"""

import logging
import math
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from broker.aggregate.fixed import MAX_FRAMES, weighted_sum
from broker.aggregate.optimisers import Sgd
from broker.intake.complaints import Complaints
from broker.intake.decode import FrameIn, HelloIn, Rejected, WithdrawIn, decode
from broker.intake.shares import Shares
from broker.ledger.lock import Lock
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import LedgerUnavailable
from broker.ledger.rows import Admission, Entry, Verdict, Version, Withdrawal
from broker.monitor.mqtt_health import TOPICS
from broker.monitor.watch import Watch
from broker.processes.embedded import monitoring_url
from broker.publish import retained
from broker.registry.blobs import Blobs, RegistryError, RegistryUnavailable
from broker.registry.evaluator import Evaluator
from broker.rounds.ages import Ages
from broker.rounds.buffer import Buffer
from broker.settings import Aggregator, Task, as_json
from broker.task import Running
from edgeclient import failpoint, files
from edgeclient.bundle import archive
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused
from edgeclient.logs.fields import identity
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.announcement import SCALE_BITS, VALUE_LIMIT
from edgeclient.wire.messages import Refusal

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5
_RETRY_S: Final = 1.0  # after a write for which there was no room
_CROWD: Final = 64  # messages that are there at once: then nobody gets more than a share of the time
_RECORD_S: Final = 50e-6  # that the ledger takes for an identity, measured
_AT_ONCE: Final = 256  # messages that share a commit; statuses among them make it no smaller
_MAX_WAITING: Final = 1024  # messages that wait for it; the MQTT broker keeps the rest
# An update may be completed by late parts; its first one is remembered for so many versions at most.
_REMEMBERED: Final = 4096
_CLEAR_AT_CONNECT: Final = 64  # retired versions whose chunks may still lie on the broker

POINTS: Final = (
    "service.before-receipt",
    "service.before-ack",
    "service.after-ack",
    "service.before-publish",
    "service.after-publish",
)

Spawn: TypeAlias = Callable[[list[str]], subprocess.Popen[bytes]]
Greeting: TypeAlias = tuple[str, str, messages.Hello]  # task, device


class Service:
    """Aggregates all tasks of one ledger; `run` returns after `stop`.

    Args:
        settings: where ledger and registry are.
        endpoint: the MQTT broker.
        spawn: starts the evaluator's child process.
        watch: is told what happens.
        tend: sees to the MQTT broker, every turn; for one that is ours.

    Raises:
        LedgerError, RegistryError: the store cannot be used; the text says what to do.
    """

    def __init__(
        self,
        settings: Aggregator,
        endpoint: Endpoint,
        spawn: Spawn,
        watch: Watch | None = None,
        tend: Callable[[], None] | None = None,
    ) -> None:
        self._lock = Lock(settings.ledger)
        self._ledger = open_ledger(settings.ledger)
        self._ledger.check_pages()
        self._blobs = Blobs(settings.registry)
        for stray in self._blobs.strays(self._ledger.digests()):
            stray.unlink(missing_ok=True)
        self._link = Link(endpoint, client_id_prefix="aggregator")
        self._watch = watch or Watch()
        self._tend = tend or (lambda: None)
        self._health_topics = self._health_from(settings)
        self._service = secrets.token_hex(8)
        self._complaints = Complaints()
        self._shares = Shares()
        self._ages = Ages()
        self._waiting: list[Message] = []
        self._listens = False
        self._crowded = False
        self._stop = threading.Event()
        self._tasks = {row[0]: Running.load(self._ledger, self._blobs, *row) for row in self._ledger.tasks()}
        for task in self._tasks.values():
            self._watch.task(task.name, 4 * task.layout.size)
            self._watch.version(task.name, task.version.number, task.version.created_s)
            self._watch.evaluated(task.name, task.version.number, task.version.metrics)
            if task.settings.evaluation:
                bundle_path = self._blobs.path(task.bundle.digest)
                task.evaluator = Evaluator(bundle_path, task.settings.evaluation, spawn, self._link.wake)
                for version in self._ledger.versions(task.name):
                    if not version.metrics:
                        task.evaluator.submit(version.number, self._blobs.path(version.digest))

    def _health_from(self, settings: Aggregator) -> tuple[str, ...]:
        """Let the watch hear of the MQTT broker: over HTTP from NATS, else from the topics that are given back."""
        url = settings.monitor.nats_url if settings.monitor is not None else ""
        if url:
            self._watch.asks(lambda: url)
        elif settings.embedded is not None:
            self._watch.asks(lambda: monitoring_url(settings.directory / "mqtt"))
        elif self._watch.listens:
            return tuple(TOPICS)
        return ()

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stop.set()
        self._link.wake()

    def run(self) -> None:
        """Count, aggregate and publish until stopped; while there is no room on the disk, wait and answer nothing."""
        self._link.start()
        try:
            while not self._stop.is_set():
                self._tend()
                try:
                    self._turn()
                    self._watch.turned(writable=True, uncounted=self._link.backlog)
                except (LedgerUnavailable, RegistryUnavailable) as error:
                    self._watch.turned(writable=False, uncounted=len(self._waiting) + self._link.backlog)
                    self._complain("storage", "room", f"{error}: nothing is counted or answered until that works again")
                    self._stop.wait(_RETRY_S)
        finally:
            self._link.stop()
            self._ledger.close()
            self._lock.close()

    def _turn(self) -> None:
        if len(self._waiting) < _MAX_WAITING:
            self._listen()
        if self._waiting:
            self._intake(self._waiting)
            self._waiting = []
        for task in self._tasks.values():
            self._catch_up(task)
            self._close_round(task)
            self._note_metrics(task)

    def _complain(self, device: str, reason: str, detail: str) -> None:
        line = self._complaints.note(device, reason, detail, now=time.monotonic())
        if line is not None:
            _LOG.warning("%s", line, extra={"device": device, "reason": reason})

    # Intake → ledger → receipt → acknowledgement

    def _listen(self) -> None:
        waits = [wait for task in self._tasks.values() if (wait := self._round_wait_s(task)) is not None]
        wait_s = 0.0 if self._waiting else max(0.0, min([_TURN_S, *waits]))
        events = self._link.poll(wait_s, limit=_AT_ONCE)
        self._crowded = len(events) >= _CROWD  # statuses among them
        for event in events:
            match event:
                case Message() if self._watch.heard(event.topic, event.payload):
                    continue
                case Message():
                    self._waiting.append(event)
                case Connected():
                    self._welcome()
                case Disconnected(why):
                    self._listens = False
                    self._watch.connected(up=False)
                    _LOG.info("disconnected: %s", why)
                case SubscriptionRefused(refused):
                    _LOG.error("the broker refuses a subscription to %s: check its access rules", ", ".join(refused))

    def _welcome(self) -> None:
        """A new connection: listen, then publish everything, since a killed broker may have forgotten it."""
        try:
            self._watch.connected(up=True)  # before the statuses that follow the subscription
            self._link.subscribe(*(topics.everyone(task, "up") for task in self._tasks))
            # QoS 0, so that statuses take no place in the broker's window of unacknowledged uploads.
            self._link.subscribe(
                *(topics.everyone(task, "status") for task in self._tasks if self._watch.listens),
                *self._health_topics,
                qos=0,
            )
        except LinkDown:
            return  # it broke again, and the next Connected follows
        self._listens = True
        for task in self._tasks.values():
            self._publish_all(task)

    def _intake(self, arrived: Sequence[Message]) -> None:
        """Receipts are published only after the transaction, and MQTT is acknowledged after the receipts."""
        hellos, asked = self._read(arrived)
        for (name, device, _), lost in zip(hellos, self._ledger.greet(hellos), strict=True):
            if lost:
                self._watch.lost(lost)
                if not any(each.batch is None and each.number for each in self._ledger.versions(name)):
                    self._note_behind(self._tasks[name], lost)
                told = "are unknown to this ledger: the backup that was restored is older; what they carried is lost"
                self._complain(device, "lost-to-restore", f"{lost} frames that it has settled {told}")
        answers: dict[tuple[str, str, int], tuple[int, bytes] | None] = {
            (task, device, hello.epoch): None for task, device, hello in hellos
        }
        began_s = time.monotonic()
        admissions = self._ledger.admit(asked, time.time())
        if asked:
            self._watch.committed(time.monotonic() - began_s)
        for each, admission in zip(asked, admissions, strict=True):
            key = (each.task, each.device, each.epoch)
            answers[key] = (each.sequence, each.digest) if admission.conflict else answers.get(key)
            self._note(each, admission)
        failpoint.hit("service.before-receipt")
        try:
            for (task, device, epoch), conflict in answers.items():
                receipt = self._ledger.receipt(task, device, epoch, conflict=conflict)
                self._link.publish(topics.down(task, device), messages.encode_receipt(receipt))
        except LinkDown:
            return
        failpoint.hit("service.before-ack")
        for message in arrived:
            self._link.acknowledge(message)
        failpoint.hit("service.after-ack")

    def _note(self, each: Entry | Withdrawal, admission: Admission) -> None:
        """For people: what the ledger has answered."""
        reason = "" if admission.refusal is None else admission.refusal.reason
        self._watch.answered(each.task, admission.verdict, reason)
        if isinstance(each, Entry) and admission.verdict is Verdict.APPLIED:
            self._watch.applied(each.task, len(each.body), each.parts, each.base_version)
        if _LOG.isEnabledFor(logging.DEBUG):
            fields = identity(
                each.task, each.device, each.epoch, each.sequence, verdict=admission.verdict.value, reason=reason
            )
            _LOG.debug("frame %d %s", each.sequence, admission.verdict, extra=fields)
        if admission.refusal is Refusal.FUTURE and isinstance(each, Entry):
            self._note_behind(self._tasks[each.task], each.base_version - self._tasks[each.task].version.number)
        if reason:
            self._complain(each.device, reason, f"frame {each.sequence} is not counted: {reason}")

    def _read(self, arrived: Sequence[Message]) -> tuple[list[Greeting], list[Entry | Withdrawal]]:
        """What devices say and ask, in order of arrival; what cannot be read is counted and dropped."""
        hellos: list[Greeting] = []
        asked: list[Entry | Withdrawal] = []
        layouts = {name: task.layout for name, task in self._tasks.items()}
        crowded = self._crowded or len(arrived) >= _CROWD
        for message in arrived:
            self._watch.uploaded(len(message.payload))
            device, now, began_s = message.topic.rpartition("/")[2], time.monotonic(), time.thread_time()
            if crowded and not self._shares.may(device, now=now):
                self._complain(device[:64], "share", "takes more than its share of the time: dropped, may come again")
                continue
            said = decode(message.topic, message.payload, layouts)
            recorded = len(said.withdraw.frames) if isinstance(said, WithdrawIn) else 1
            self._shares.took(device, time.thread_time() - began_s + recorded * _RECORD_S, now=now)
            match said:
                case Rejected(device, reason, detail):
                    self._watch.rejected(reason)
                    self._complain(device, reason, f"dropped bytes: {detail}")
                case said if said.task not in self._tasks:
                    continue
                case HelloIn(task, device, hello):
                    hellos.append((task, device, hello))
                case WithdrawIn(task, device, wish):
                    asked += [Withdrawal(task, device, wish.epoch, *each) for each in wish.frames]
                case FrameIn() as said:
                    self._watch.kept(said.task, said.device, said.frame.update.indices.size * said.frame.parts)
                    asked.append(self._tasks[said.task].entry(said))
        return hellos, asked

    def _note_behind(self, task: Running, more: int) -> None:
        if task.behind is not None and task.shows_behind(more):
            task.behind = True

    def _catch_up(self, task: Running) -> None:
        """A ledger that was put back by hand continues like a restored one, at most once a start (LEDGER.md, restore).

        Otherwise the fleet would wait for ever: devices take no version that is older than what they have.
        """
        if not task.behind:
            return
        was = task.version.number
        self._ledger.jump(time.time(), task.name)
        (task.version,) = self._ledger.versions(task.name, last=1)
        task.behind = None
        told = f"the fleet knows newer versions than {was}: an older ledger was put back; what came after it is lost"
        self._complain(task.name, "older-ledger", f"{told}, and the task continues as version {task.version.number}")
        self._publish_version(task)

    # Contributions → batch → parameters → version

    def _round_wait_s(self, task: Running) -> float | None:
        pending, settings = self._ledger.pending(task.name), task.settings
        wall, now = time.time(), time.monotonic()

        def steady(name: str, mark: float) -> float:
            return now - self._ages.of(f"{task.name} {name}", mark, wall_s=wall, steady_s=now)

        opened_s = None if pending.opened_s is None else steady("batch", pending.opened_s)
        self._watch.waits(task.name, pending.updates, 0.0 if opened_s is None else now - opened_s)
        return Buffer(settings.goal, settings.deadline_s, settings.min_interval_s).wait_s(
            updates=pending.updates,
            opened_s=opened_s,
            last_s=steady("version", task.version.created_s) if task.version.number else -math.inf,
            now=now,
        )

    def _close_round(self, task: Running) -> None:
        wait_s = self._round_wait_s(task)
        if wait_s is None or wait_s > 0:
            return
        members = self._ledger.open_contributions(task.name, MAX_FRAMES)
        decoded = ((frame.decode(member.body, task.layout.tensors).update, member.weight) for member in members)
        total = weighted_sum(decoded, task.layout.size, SCALE_BITS)
        leads = sum(member.leads for member in members)
        # Every update once, also one whose late parts alone are here: else they would be multiplied, not averaged.
        weights = {(member.device, member.epoch, member.number): member.weight for member in members}
        total_weight = sum(weights.values())
        learning_rate = task.settings.learning_rate
        parameters = Sgd(learning_rate).step(task.parameters, total, total_weight, SCALE_BITS)
        digest = self._blobs.put(parameters.astype("<f4").tobytes())
        number = task.version.number + 1
        version = Version(number, digest, number, time.time(), leads, len(members), total_weight, {})
        terms = {"scale_bits": SCALE_BITS, "value_limit": VALUE_LIMIT, "learning_rate": learning_rate}
        self._ledger.close_batch(task.name, members, version, terms)
        task.version, task.parameters = version, parameters
        self._watch.closed(task.name)
        self._watch.version(task.name, number, version.created_s)
        fields = {"task": task.name, "version": number}
        _LOG.info("task %s: version %d from %d updates", task.name, number, leads, extra=fields)
        if task.evaluator is not None:
            task.evaluator.submit(number, self._blobs.path(digest))
        failpoint.hit("service.before-publish")
        self._publish_version(task)
        failpoint.hit("service.after-publish")
        self._tidy(task)

    def _tidy(self, task: Running) -> None:
        """A bounded step towards a ledger and a registry that do not grow."""
        settings, number = task.settings, task.version.number
        before_batch = 0
        if settings.keep_frames_of_versions >= 0:
            before_batch = number - settings.keep_frames_of_versions
            self._ledger.forget_bodies(task.name, before_batch)
            stay, _ = task.served(self._ledger)
            for digest in self._ledger.forget_versions(task.name, settings.keep_versions, stay):
                self._blobs.remove(digest)
        before_base = number - min(settings.policy.max_staleness, _REMEMBERED)
        self._ledger.compact(task.name, before_batch=before_batch, before_base=before_base)

    def _note_metrics(self, task: Running) -> None:
        if task.evaluator is not None:
            task.unwritten += task.evaluator.results()
        while task.unwritten:
            found = task.unwritten[0]
            self._ledger.add_metrics(task.name, found.version, found.metrics)
            self._watch.evaluated(task.name, found.version, found.metrics)
            del task.unwritten[0]

    # Version → fleet

    def _publish_all(self, task: Running) -> None:
        stay, go = task.served(self._ledger)
        task.cleared = set(go[:-_CLEAR_AT_CONNECT])
        for digest in (task.bundle.digest, *stay):
            try:
                self._publish(self._chunks(task, digest))
            except RegistryError as error:  # who needs it waits; the others, and the other tasks, do not
                self._complain(task.name, "registry", f"{error}: until then it is not served")
        self._publish_version(task)

    def _publish_version(self, task: Running) -> None:
        """The new parameters, then the head that names them, then retired chunks away."""
        task.cleared.discard(task.version.digest)
        self._publish([*self._chunks(task, task.version.digest), retained.head(task.announcement(self._service))])
        _, go = task.served(self._ledger, _CLEAR_AT_CONNECT + retained.KEEP_VERSIONS)
        size = 4 * task.layout.size
        for digest in go:
            if digest not in task.cleared:
                self._publish(list(retained.cleared(task.name, retained.blob_of(digest, size))))
                task.cleared.add(digest)

    def _publish(self, messages_: Sequence[retained.Retained]) -> None:
        """Only while subscribed: a device answers a new service at once, and nobody would hear it."""
        if not self._listens:
            return
        try:
            for topic, payload in messages_:
                self._link.publish(topic, payload, retain=True)
        except LinkDown:
            return  # everything is published again after the reconnect

    def _chunks(self, task: Running, digest: str) -> list[retained.Retained]:
        content = self._blobs.get(digest)
        return list(retained.chunks(task.name, retained.blob_of(digest, len(content)), content))


def add_task(settings: Aggregator, name: str, content: bytes, task_settings: Task) -> None:
    """Make a bundle's parameters version 0 of a new task.

    Raises:
        WireError: the name or the bundle is not valid.
        LedgerError: the name is taken.
    """
    topics.checked(name)
    parameters = archive.decode(content).parameters
    files.make_directory(settings.directory)
    blobs = Blobs(settings.registry)
    initial = blobs.put(parameters.astype("<f4").tobytes())
    with open_ledger(settings.ledger) as ledger:
        version = Version(0, initial, None, time.time(), 0, 0, 0, {})
        ledger.add_task(name, blobs.put(content), as_json(task_settings), version)
