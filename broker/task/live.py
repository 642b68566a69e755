"""A task at work: its current version, the batch that waits, when that is due, and what is served."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from subprocess import Popen
from typing import Final

from broker.aggregate.version import Sgd, Strategy
from broker.intake.decode import FrameIn, Incoming
from broker.ledger.protocol import Ledger
from broker.ledger.rows import PENDING, Admission, Entry, Start, TaskRow, Version, Withdrawal
from broker.monitor.watch import Watch
from broker.publish import retained
from broker.publish.retained import CLEARED, Publisher
from broker.registry.blobs import Blobs, RegistryError
from broker.registry.evaluator import MOST, Evaluated, Evaluator
from broker.registry.retention import outdated
from broker.rounds.trigger import Ages, Buffer
from broker.settings import task_settings
from broker.task.asked import asked
from broker.task.gate import Gate, Judged
from broker.task.open_batch import OpenBatch, state_of
from broker.task.trigger import resting, trigger
from broker.task.worth import best_version
from edgeclient.bundle import archive
from edgeclient.wire.announcement import MAX_SUCCEEDED, Announcement
from edgeclient.wire.messages import Refusal

# An update may be completed by late parts; its first one is remembered for so many versions at most.
_REMEMBERED: Final = 4096


class LiveTask:
    """A task as ledger and registry have it.

    Attributes:
        name: task id.
        settings: what it was added with.
        bundle: how its bundle is served.
        layout: of its parameters.
        version: the current one, which the fleet sees.
        news_from: evaluations of versions before this one measure again what was known, or was missed.

    Raises:
        ConfigError, RegistryError: the settings or the contents cannot be used.
    """

    def __init__(self, ledger: Ledger, blobs: Blobs, row: TaskRow) -> None:
        self.name = row.name
        self.settings = task_settings(row.name, row.settings)
        bundle = blobs.get(row.bundle)
        self.bundle = retained.blob_of(row.bundle, len(bundle))
        self.layout = archive.decode(bundle).manifest.layout
        self._gate = Gate(row.name, self.layout)
        self.version = self._gate.opened(ledger, blobs)
        self._parameters, self._state = blobs.parameters(self.version.digest), state_of(self.version, blobs)
        self._open = OpenBatch(row.name, self.layout)
        self._ages = Ages()
        self._trigger: Buffer | None = None  # of the open batch, once it was asked for
        self._rest: str | None = None  # why it rests; None: not asked since something changed
        self._grown_at = 0  # frames that wait of which none is of new data
        self._evaluator: Evaluator | None = None
        self.news_from = 0
        self._unwritten: list[Evaluated] = []
        self._behind: bool | None = False  # None: that was dealt with, once a start

    # What devices say → what the ledger is asked

    def asked(self, said: Incoming) -> list[Entry | Withdrawal]:
        """What a message asks of the ledger, judged by the terms of this moment."""
        return asked(said, self.layout, self.version.number, self.settings.policy.max_staleness)

    # Contributions → batch → parameters → version

    @property
    def strategy(self) -> Strategy:
        """How a batch becomes a version."""
        return Strategy(Sgd(self.settings.learning_rate))

    def follow(self, ledger: Ledger, read: Sequence[Incoming]) -> None:
        """Add to the next version what the ledger has admitted of what was read."""
        decoded = {said.body: said.frame for said in read if isinstance(said, FrameIn) and said.task == self.name}
        if decoded:
            self._open.follow(ledger, self.strategy, decoded)

    def wait_s(self, ledger: Ledger, watch: Watch) -> float | None:
        """Seconds until the batch closes; None while nothing waits, or the last version is not judged yet."""
        pending, wall, now = ledger.pending(self.name), time.time(), time.monotonic()

        def steady(name: str, mark: float) -> float:
            return now - self._ages.of(name, mark, wall_s=wall, steady_s=now)

        opened_s = None if pending.opened_s is None else steady("batch", pending.opened_s)
        watch.waits(self.name, pending.updates, 0.0 if opened_s is None else now - opened_s)
        if self._gate.busy or self._rests(ledger, pending.frames):
            return None
        self._trigger = self._trigger or trigger(ledger, self.name, self.settings)
        return self._trigger.wait_s(
            updates=pending.updates,
            opened_s=opened_s,
            last_s=steady("version", self.version.created_s) if self.version.number else -math.inf,
            now=now,
        )

    @property
    def rest(self) -> str:
        """Why no version is made for now; "" when one is."""
        return self._rest or ""

    def _rests(self, ledger: Ledger, frames: int) -> str:
        """The same, asked again where something changed; over when what waits is of new data."""
        if self._rest is None:
            self._rest, self._grown_at = resting(ledger, self.name, self.settings), 0
        if self._rest and frames > self._grown_at:
            self._grown_at = frames  # whether these are of new data is asked once
            if ledger.grown(self.name):
                ledger.go_on(self.name, self.version.number)
                self._rest = ""
        return self._rest

    def close_batch(self, ledger: Ledger, blobs: Blobs) -> None:
        """The batch that waits becomes a version: its parameters in the registry, then ONE transaction; see `judge`."""
        members, made = self._open.finish(ledger, self.strategy, self._parameters, self._state)
        number = self.version.number + 1
        version = Version(
            number,
            blobs.put_parameters(made.parameters),
            batch=number,
            created_s=time.time(),
            updates=sum(each.leads for each in members),
            frames=len(members),
            total_weight=made.total_weight,
            terms=made.terms,
            state=made.state.numbers,
            state_digest=blobs.put(made.state.content) if made.state.content else "",
            held=self.layout.fault(made.parameters) or (PENDING if self._evaluator is not None else ""),
        )
        ledger.close_batch(self.name, members, version)
        self._gate.put(version, made.parameters, made.state)
        self._open, self._trigger, self._rest = OpenBatch(self.name, self.layout), None, None
        if self._evaluator is not None:
            self._evaluator.submit(number, blobs.path(version.digest))

    def judge(self, ledger: Ledger, blobs: Blobs) -> Judged | None:
        """Whether the fleet sees the version that was made; None: there is none, or its evaluation is waited for."""

        def waits(since_s: float) -> bool:
            most_s = self.settings.evaluation_wait_s
            return self._evaluator is not None and self._evaluator.awaits(since_s, most_s)

        judged = self._gate.judge(ledger, blobs, waits)
        if judged is not None:
            self.version, self._parameters, self._state = judged.current, judged.parameters, judged.state
        return judged

    def note_lost(self, ledger: Ledger, frames: int) -> None:
        """A device has settled frames that the ledger has never seen; after a restore that is no news."""
        if not any(each.batch is None and each.number and not each.terms for each in ledger.versions(self.name)):
            self._note_behind(frames)

    def note_ahead(self, asked: Sequence[Entry | Withdrawal], admissions: Sequence[Admission]) -> None:
        """Devices may have trained from a version that the ledger does not know."""
        for each, admission in zip(asked, admissions, strict=True):
            if admission.refusal is Refusal.FUTURE and isinstance(each, Entry) and each.task == self.name:
                self._note_behind(each.base_version - self.version.number)

    def _note_behind(self, more: int) -> None:
        """As many as may have come since the last version (Ledger.jump): an older ledger was put back.

        Whoever claims more is lying.
        """
        if self._behind is False:
            self._behind = 0 < more <= 1000 + max(0.0, time.time() - self.version.created_s)

    def catch_up(self, ledger: Ledger) -> int | None:
        """A ledger that was put back by hand continues like a restored one, once a start (LEDGER.md, 5).

        Otherwise the fleet would wait for ever: devices take no version that is older than what they have.

        Returns:
            The version that it was at; None when nothing has changed.
        """
        if not self._behind or self._gate.busy:  # what waits there would be lost
            return None
        was = self.version.number
        ledger.jump(time.time(), self.name)
        self._gate.clear()
        (self.version,) = ledger.versions(self.name, last=1)
        self._behind = self._trigger = self._rest = None
        return was

    def change(self, row: TaskRow) -> None:
        """Go on with other settings; what has been admitted is weighed already, and closes by the new ones."""
        self.settings, self._trigger, self._rest = task_settings(row.name, row.settings), None, None

    def close(self) -> None:
        """Let go of the evaluator."""
        if self._evaluator is not None:
            self._evaluator.close()
        self._evaluator, self._unwritten = None, []

    # Version → evaluation, retention, fleet

    def evaluate(
        self, ledger: Ledger, blobs: Blobs, spawn: Callable[[list[str]], "Popen[bytes]"], wake: Callable[[], None]
    ) -> None:
        """Have all versions evaluated from now on that are not yet, if the task asks for it; by a new evaluator."""
        again = self._evaluator is not None  # a result of the other data may have come into the ledger since
        self.close()
        if self.settings.evaluation:
            path = blobs.path(self.bundle.digest)
            self._evaluator = Evaluator(path, self.settings.evaluation, self.settings.evaluation_options, spawn, wake)
            for version in ledger.versions(self.name, MOST):
                if again or (not version.metrics and version.held in {"", PENDING}):
                    self._evaluator.submit(version.number, blobs.path(version.digest))
                    self.news_from = version.number

    def evaluated(self, ledger: Ledger) -> Iterator[Evaluated]:
        """What the evaluator has found; each is in the ledger when it comes."""
        if self._evaluator is not None:
            self._unwritten += self._evaluator.results()
        while self._unwritten:
            found = self._unwritten[0]
            if found.metrics:
                ledger.add_metrics(self.name, found.version, found.metrics)
            del self._unwritten[0]
            self._rest = None
            self._gate.take(found)
            if found.version == self.version.number and not self._gate.busy and self._gate.fell(ledger, found):
                self._gate.put(self.version, self._parameters, self._state, found.metrics)  # too late, and yet
            yield found

    def tidy(self, ledger: Ledger, blobs: Blobs) -> None:
        """A bounded step towards a ledger and a registry that do not grow."""
        settings, number, before_batch = self.settings, self.version.number, 0
        if settings.keep_frames_of_versions >= 0:
            before_batch = number - settings.keep_frames_of_versions
            ledger.forget_bodies(self.name, before_batch)
            stay, _ = self.served(ledger)
            versions = ledger.versions(self.name)
            there = {each.number: each.digest for each in versions}
            if (champion := best_version(versions)) is not None:
                stay.append(there[champion])
            for digest in ledger.forget_versions(self.name, outdated(there.items(), settings.keep_versions, stay)):
                blobs.remove(digest)
        before_base = number - min(settings.policy.max_staleness, _REMEMBERED)
        ledger.compact(self.name, before_batch=before_batch, before_base=before_base)

    def publish(self, ledger: Ledger, blobs: Blobs, publisher: Publisher, me: Start) -> None:
        """The current version, by this start, and away with those that are served no longer."""
        _, go = self.served(ledger, CLEARED + retained.KEEP_VERSIONS)
        publisher.version(self.announcement(ledger, me), blobs.get(self.version.digest), go)

    def publish_all(self, ledger: Ledger, blobs: Blobs, publisher: Publisher, me: Start) -> Iterator[RegistryError]:
        """Everything that is served; contents that cannot be are told, and who needs one of them waits."""
        stay, go = self.served(ledger)
        publisher.begin(self.name, go)
        for digest in (self.bundle.digest, *stay):
            try:
                publisher.blob(self.name, digest, blobs.get(digest))
            except RegistryError as error:
                yield error
        try:
            self.publish(ledger, blobs, publisher, me)
        except RegistryError as error:
            yield error

    def announcement(self, ledger: Ledger, me: Start) -> Announcement:
        """Of the current version, by this start of the aggregator."""
        return Announcement(
            task=self.name,
            version=self.version.number,
            service=me.service,
            ledger=me.ledger,
            term=me.term,
            succeeds=tuple(each for each in ledger.lineage(self.name) if each != me.ledger)[-MAX_SUCCEEDED:],
            parameters=retained.blob_of(self.version.digest, 4 * self.layout.size),
            bundle=self.bundle,
            layout=self.layout.digest,
            size=self.layout.size,
            policy=self.settings.policy,
        )

    def served(self, ledger: Ledger, last: int | None = None) -> tuple[list[str], list[str]]:
        """Digests that stay on the broker, and older ones that may go, of all versions or the last few.

        A version whose time lies ahead, since the clock was set back, is taken for an old one.
        """
        now = time.time()
        versions = [each for each in ledger.versions(self.name, last) if not each.held]
        return retained.served([(v.digest, v.created_s if v.created_s <= now else 0.0) for v in versions], now)
