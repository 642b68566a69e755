"""The aggregator's composition root: the map of ARCHITECTURE.md, top to bottom, in one loop.

MQTT message → frame → ledger (ONE transaction) → receipt → acknowledgement → batch → new parameters →
registry → announcement.
"""

import logging
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

import numpy as np

from broker.aggregate.fixed import MAX_FRAMES, weighted_sum
from broker.aggregate.step import Sgd
from broker.aggregate.weight import weight
from broker.intake.admissible import Terms, refusal
from broker.intake.decode import FrameIn, HelloIn, Rejected, decode
from broker.ledger.ledger import Ledger
from broker.ledger.rows import Admission, Entry, Version
from broker.monitor.evaluator import Evaluator
from broker.publish import retained
from broker.registry.blobs import Blobs
from broker.rounds.buffer import Buffer
from broker.settings import Aggregator, Task, as_json
from edgeclient import failpoint
from edgeclient.compress.update import F32
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused
from edgeclient.settings import structure
from edgeclient.wire import bundle, frame, messages, topics
from edgeclient.wire.announcement import SCALE_BITS, VALUE_LIMIT, Announcement, Blob

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5
_CLEAR_AT_CONNECT: Final = 64  # retired versions whose chunks may still lie on the broker

Spawn: TypeAlias = Callable[[list[str]], subprocess.Popen[bytes]]


class _Running:
    """One task as the aggregator holds it in memory; everything here can be read again from disk."""

    def __init__(self, name: str, settings: Task, bundle_content: bytes, version: Version, parameters: F32) -> None:
        self.name = name
        self.settings = settings
        self.bundle = retained.blob_of(sha256(bundle_content).hexdigest(), len(bundle_content))
        self.layout = bundle.decode(bundle_content).manifest.layout
        self.version = version
        self.parameters = parameters
        self.evaluator: Evaluator | None = None
        self.cleared: set[str] = set()

    @property
    def terms(self) -> Terms:
        policy = self.settings.policy
        return Terms(self.layout.tag, self.layout.size, self.version.number, policy.max_staleness, VALUE_LIMIT)

    @property
    def snapshot(self) -> Blob:
        return retained.blob_of(self.version.digest, 4 * self.layout.size)


class Service:
    """Aggregates all tasks of one ledger; `run` returns after `stop`.

    Args:
        settings: where ledger and registry are.
        endpoint: the MQTT broker.
        spawn: starts the evaluator's child process.

    Raises:
        LedgerError, RegistryError: the store cannot be used; the text says what to do.
    """

    def __init__(self, settings: Aggregator, endpoint: Endpoint, spawn: Spawn) -> None:
        self._ledger = Ledger(settings.ledger)
        self._blobs = Blobs(settings.registry)
        self._link = Link(endpoint, client_id_prefix="aggregator")
        self._service = secrets.token_hex(8)
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._stopping = False
        self._tasks = {name: self._load(name, digest, values) for name, digest, values in self._ledger.tasks()}
        for task in self._tasks.values():
            if task.settings.evaluation:
                bundle_path = self._blobs.path(task.bundle.digest)
                task.evaluator = Evaluator(bundle_path, task.settings.evaluation, spawn, self._link.wake)
                for version in self._ledger.versions(task.name):
                    if not version.metrics:
                        task.evaluator.submit(version.number, self._blobs.path(version.digest))

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stopping = True
        self._link.wake()

    def run(self) -> None:
        """Count, aggregate and publish until stopped."""
        self._link.start()
        try:
            while not self._stopping:
                self._intake(self._listen())
                for task in self._tasks.values():
                    self._close_round(task)
                    self._note_metrics(task)
        finally:
            self._link.stop()
            self._ledger.close()

    # Intake → ledger → receipt → acknowledgement

    def _listen(self) -> list[Message]:
        waits = [wait for task in self._tasks.values() if (wait := self._round_wait_s(task)) is not None]
        arrived = []
        for event in self._link.poll(max(0.0, min([_TURN_S, *waits]))):
            match event:
                case Message():
                    arrived.append(event)
                case Connected():
                    self._link.subscribe(*(topics.everyone(task, "up") for task in self._tasks))
                    for task in self._tasks.values():
                        self._publish_all(task)
                case Disconnected(why):
                    _LOG.info("disconnected: %s", why)
                case SubscriptionRefused(refused):
                    _LOG.error("the broker refuses a subscription to %s: check its access rules", ", ".join(refused))
        return arrived

    def _intake(self, arrived: Sequence[Message]) -> None:
        """Receipts are published only after the transaction, and MQTT is acknowledged after the receipts."""
        if not arrived:
            return
        entries: list[Entry] = []
        layouts = {name: task.layout for name, task in self._tasks.items()}
        answers: dict[tuple[str, str, int], bool] = {}
        for message in arrived:
            match decode(message.topic, message.payload, layouts):
                case FrameIn() as said if said.task in self._tasks:
                    entries.append(self._entry(said))
                case HelloIn() as said if said.task in self._tasks:
                    self._ledger.hello(said.task, said.device, said.hello)
                    answers.setdefault((said.task, said.device, said.hello.epoch), False)
                case Rejected() as rejected:
                    self._rejected[rejected.device, rejected.reason] += 1
                    _LOG.warning("dropped bytes from %s: %s", rejected.device or "?", rejected.detail)
        for entry, admission in zip(entries, self._ledger.admit(entries, time.time()), strict=True):
            key = (entry.task, entry.device, entry.epoch)
            answers[key] = answers.get(key, False) or admission.conflict
            self._tell_refusal(entry, admission)
        try:
            for (task, device, epoch), conflict in answers.items():
                receipt = self._ledger.receipt(task, device, epoch, conflict=conflict)
                self._link.publish(topics.down(task, device), messages.encode_receipt(receipt))
        except LinkDown:
            return
        failpoint.hit("service.before-ack")
        for message in arrived:
            self._link.acknowledge(message)

    def _entry(self, said: FrameIn) -> Entry:
        task, made = self._tasks[said.task], said.frame
        staleness = max(0, task.version.number - made.base_version)
        return Entry(
            task=said.task,
            device=said.device,
            epoch=made.epoch,
            sequence=made.sequence,
            digest=frame.digest(said.body),
            number=made.number,
            part=made.part,
            parts=made.parts,
            base_version=made.base_version,
            num_examples=made.num_examples,
            weight=weight(made.num_examples, staleness),
            refusal=refusal(made, frame.address(said.task, said.device), task.terms),
            body=said.body,
        )

    def _tell_refusal(self, entry: Entry, admission: Admission) -> None:
        if admission.refusal is not None:
            _LOG.info("refused frame %d of %s: %s", entry.sequence, entry.device, admission.refusal.reason)

    # Contributions → batch → parameters → version

    def _round_wait_s(self, task: _Running) -> float | None:
        pending, settings = self._ledger.pending(task.name), task.settings
        buffer = Buffer(settings.goal, settings.deadline_s, settings.min_interval_s)
        last_s = task.version.created_s if task.version.number else 0.0
        return buffer.wait_s(updates=pending.updates, opened_s=pending.opened_s, last_s=last_s, now=time.time())

    def _close_round(self, task: _Running) -> None:
        wait_s = self._round_wait_s(task)
        if wait_s is None or wait_s > 0:
            return
        members = self._ledger.open_contributions(task.name, MAX_FRAMES)
        scale_bits = SCALE_BITS
        decoded = ((frame.decode(member.body, task.layout.tensors).update, member.weight) for member in members)
        total = weighted_sum(decoded, task.layout.size, scale_bits)
        leads = [member.weight for member in members if member.leads]
        optimiser = Sgd(task.settings.learning_rate)
        parameters = optimiser.step(task.parameters, total, sum(leads), scale_bits)
        digest = self._blobs.put(parameters.astype("<f4").tobytes())
        number = task.version.number + 1
        version = Version(number, digest, number, time.time(), len(leads), len(members), sum(leads), {})
        self._ledger.close_batch(task.name, members, version)
        task.version, task.parameters = version, parameters
        if task.settings.keep_frames_of_versions >= 0:
            self._ledger.forget_bodies(task.name, number - task.settings.keep_frames_of_versions)
        _LOG.info("task %s: version %d from %d updates", task.name, number, len(leads))
        if task.evaluator is not None:
            task.evaluator.submit(number, self._blobs.path(digest))
        self._publish_version(task)

    def _note_metrics(self, task: _Running) -> None:
        for result in task.evaluator.results() if task.evaluator else ():
            self._ledger.add_metrics(task.name, result.version, result.metrics)

    # Version → fleet

    def _publish_all(self, task: _Running) -> None:
        """A killed broker may have forgotten everything: after each connect all of it again."""
        created = [(version.digest, version.created_s) for version in self._ledger.versions(task.name)]
        stay, go = retained.served(created, time.time())
        task.cleared = set(go[:-_CLEAR_AT_CONNECT])
        for digest in (task.bundle.digest, *stay):
            self._publish(self._chunks(task, digest))
        self._publish_version(task)

    def _publish_version(self, task: _Running) -> None:
        """The new parameters, then the head that names them, then retired chunks away."""
        task.cleared.discard(task.version.digest)
        self._publish([*self._chunks(task, task.version.digest), retained.head(self._announcement(task))])
        recent = self._ledger.versions(task.name, last=_CLEAR_AT_CONNECT + retained.KEEP_VERSIONS)
        _, go = retained.served([(version.digest, version.created_s) for version in recent], time.time())
        size = 4 * task.layout.size
        for digest in go:
            if digest not in task.cleared:
                self._publish(list(retained.cleared(task.name, retained.blob_of(digest, size))))
                task.cleared.add(digest)

    def _publish(self, messages_: Sequence[retained.Retained]) -> None:
        try:
            for topic, payload in messages_:
                self._link.publish(topic, payload, retain=True)
        except LinkDown:
            return  # everything is published again after the reconnect

    def _chunks(self, task: _Running, digest: str) -> list[retained.Retained]:
        content = self._blobs.get(digest)
        return list(retained.chunks(task.name, retained.blob_of(digest, len(content)), content))

    def _announcement(self, task: _Running) -> Announcement:
        return Announcement(
            task=task.name,
            version=task.version.number,
            service=self._service,
            parameters=task.snapshot,
            bundle=task.bundle,
            layout=task.layout.digest,
            size=task.layout.size,
            policy=task.settings.policy.announced(),
        )

    # Disk → memory

    def _load(self, name: str, digest: str, values: dict[str, object]) -> _Running:
        settings = structure(values, Task, where=f"settings of task {name}")
        (version,) = self._ledger.versions(name, last=1)
        parameters = np.frombuffer(self._blobs.get(version.digest), "<f4").astype(np.float32)
        return _Running(name, settings, self._blobs.get(digest), version, parameters)


def add_task(settings: Aggregator, name: str, content: bytes, task_settings: Task) -> None:
    """Make a bundle's parameters version 0 of a new task.

    Raises:
        WireError: the name or the bundle is not valid.
        LedgerError: the name is taken.
    """
    topics.checked(name)
    parameters = bundle.decode(content).parameters
    settings.directory.mkdir(parents=True, exist_ok=True)
    blobs = Blobs(settings.registry)
    initial = blobs.put(parameters.astype("<f4").tobytes())
    with Ledger(settings.ledger) as ledger:
        version = Version(0, initial, None, time.time(), 0, 0, 0, {})
        ledger.add_task(name, blobs.put(content), as_json(task_settings), version)
