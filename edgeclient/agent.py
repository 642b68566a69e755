"""The device as a map: announcement → model → a round of learning, ONE commit → frames → MQTT → receipt → gone."""

import secrets
from typing import Any

from edgeclient import audit
from edgeclient.compress.feedback import compress
from edgeclient.compress.pace import Pace
from edgeclient.conditions.board import LOCK
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.pauses import Pauses
from edgeclient.conditions.reasons import Send, Train
from edgeclient.durable.lock import DiskFull, Lock, StoreError
from edgeclient.durable.store import Store
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Model, Models
from edgeclient.presence.session import Session
from edgeclient.presence.teller import Standing, Teller
from edgeclient.settings import Device
from edgeclient.train.learner import Learner, Untrained
from edgeclient.uplink.outbox import merged
from edgeclient.uplink.receipts import Receipts
from edgeclient.uplink.sender import Sender
from edgeclient.uplink.terms import Terms
from edgeclient.wire import frame, topics
from edgeclient.wire.frame.pack import pack
from edgeclient.wire.topics import Topic


class Agent:
    """One device in one task; `commands.run` lets several live in one process.

    Args:
        settings: the device's configuration; what else is not given follows from it.
        link, learner, guard: the connection, what trains, what the owner grants to all tasks of the device.

    Attributes:
        stopping: whether `stop` was called.
        outcome: how things stood at the end: done, because, and fields of Status.
    """

    def __init__(
        self, settings: Device, link: Link | None = None, learner: Learner | None = None, guard: Guard | None = None
    ) -> None:
        self._settings = settings
        self._lock = Lock(settings.directory / LOCK)
        self.guard = guard or Guard(settings.conditions, settings.directory)
        self._pauses = Pauses(self.guard, settings.directory, settings.data.source)
        self._follower = Follower(settings.task, Models(settings.models))
        self._session = session = Session.of(settings.upload)
        will = session.will(settings.task, settings.device, self._pauses.lives.facts, self._follower.progress)
        self._link = link or Link(Endpoint.of(settings.mqtt), client_id_prefix=settings.device, will=will, exact=True)
        self._learner = learner or Learner(settings)
        self._sender = Sender(settings, self._link, session.uploaded)
        self._receipts = Receipts(self._sender)
        self._teller = Teller(settings, self._link, session, lambda: self.standing)
        self._store: Store | None = None
        self._auditor: audit.Auditor | audit.Unaudited = audit.Unaudited()
        self._model: Model | None = None  # that trainer, data and store are open for
        self._pace = Pace()  # what rounds teach the next
        self.stopping = False
        self.outcome: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self._settings.device} in {self._settings.task}"

    def start(self, *, once: bool = False) -> None:
        """Begin to connect; `once` trains one round at most, though the fleet makes new versions meanwhile."""
        self._pauses.once = once
        self._link.start()

    def stop(self) -> None:
        """Ask for the end; may be called from a signal handler."""
        self.stopping = True
        self._link.wake()

    def turn(self, wait_s: float = 0.5) -> None:
        """Wait for what happens, at most so long, and do what follows from it."""
        try:
            self._listen(wait_s)
            self.guard.look()
            self._adopt()
            self._act()
        except (DiskFull, OSError) as error:
            self._pauses.full(error)
        except StoreError:  # a damaged page, or a frame in it
            self._leave_store()
            raise
        self._teller.report()

    def close(self, why: str = "stopped") -> None:
        """Say goodbye and let go of everything, once; `outcome` stays."""
        if not self.outcome:
            self.outcome = self._teller.goodbye(why)
            self._link.stop()
            self._leave_store()
            self._lock.close()

    def _listen(self, wait_s: float) -> None:
        """Broker → device: announcement, model, receipts."""
        for event in self._sender.events(wait_s):
            match event:
                case Connected():
                    self._follower.connected(self._link)
                    self._receipts.connected(self._store)
                    self._teller.introduce()
                case Message() as message:
                    self._session.received(len(message.payload))
                    with self._sender.taking(message):
                        self._take(message)
        self._follower.ask(self._link, self._pauses.may_fetch)

    def _take(self, message: Message) -> None:
        match topics.parse(message.topic):
            case Topic(kind="head"):
                if self._follower.hear(message.payload):  # by another life of the aggregator
                    self._receipts.greet(self._store)
            case Topic(kind="blob", rest=(digest, chunk)):
                self._follower.receive(digest, int(chunk), message.payload)
            case Topic(kind="status"):
                self._teller.heard(message)
            case Topic(kind="down") if self._store is not None and self._receipts.take(self._store, message.payload):
                self._auditor = audit.of(self._settings, self._store.account())  # a new epoch has begun

    def _adopt(self) -> None:
        """Model → trainer, data, store: open for the active one, as far as they are not."""
        model = self._follower.active
        if model is None or model is self._model or self._pauses.disk:
            return
        asked, owner = model.announcement, model.owner(self._settings.device)
        self.guard.accept(asked.task, asked.size, begun=self._settings.store.exists())
        self._learner.open(model.bundle_directory)
        if self._store is None or (self._store.account().layout, self._store.account().owner) != (asked.layout, owner):
            self._leave_store()
            self._store = Store(self._settings.store, layout=asked.layout, size=asked.size, owner=owner)
            self._auditor = audit.of(self._settings, self._store.account())
            self._receipts.greet(self._store)
        self._model = model

    def _leave_store(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    def _act(self) -> None:
        """Decide, then do one thing."""
        self.guard.passed(self._settings.directory, sum(self._link.socket_bytes()))
        store, model = self._store, self._model
        if store is None or model is None:
            self._pauses.without_model()
            return
        due = [] if self._pauses.disk else self._sender.due(store, model.announcement)
        version = model.announcement.version
        match self._pauses.decide(store.outbox(), version, due, self._sender.reach):
            case Send(frames):
                self._sender.send(store, due[:frames])
            case Train():
                with self._pauses.training(version):
                    self._round(store, model)

    def _round(self, store: Store, model: Model) -> None:
        """Train → compress → wire → durable: ONE commit."""
        asked, layout, outbox = model.announcement, model.manifest.layout, store.outbox()
        free_bytes, lives = self.guard.observed.free_bytes, self._pauses.lives
        proceed = self._pauses.proceed(lambda: self.stopping, self._teller.report)
        self._teller.report(now=True)  # a round may take minutes
        trained = self._learner.train(asked, model.parameters, free_bytes, proceed, lives.limit_s)
        if isinstance(trained, Untrained):
            self._pauses.untrained(asked.version, *trained)
            return
        terms, joined = Terms(asked, self._settings, layout, self._sender.frame_bytes), merged(outbox, asked)
        held = [row for row in outbox.rows if row.id not in joined]
        aim = terms.aim(self._pace, share=trained.share, free_bytes=free_bytes, held=held)
        returned = store.read(joined, lambda body: frame.decode(body, layout.tensors).update)
        residual, idle = store.slots()
        compressed = compress(
            trained.delta, residual, aim, returned=returned, quantiser=terms.quantiser, accel=terms.coding.accel,
            last_threshold=self._pace.selected, out=idle,
        )  # fmt: skip
        origin = terms.origin(outbox.account, trained.num_examples)
        packed = pack(compressed, origin, terms.coding, terms.quantiser, terms.budget_bytes, trained.absolute)
        token = secrets.token_hex(8)
        self._auditor.begin(token, trained.delta, packed.compressed.update)
        store.commit_round(packed.layers, packed.residual, token=token, base_version=asked.version, merged=joined)
        self._auditor.confirm()
        self._pauses.trained(asked.size, packed.frame_bytes)
        self._pace = packed.pace(self._pace, aim)
        self._learner.keep(asked.version, model.parameters, trained, proceed)

    @property
    def standing(self) -> Standing:
        """Device → people: how it stands."""
        decision, facts = self._pauses.decision, self._pauses.lives.facts | self._follower.allegiance.facts
        version = self._model.announcement.version if self._model else None
        outbox = self._store.outbox() if self._store else None
        return Standing(
            decision.doing, decision.because, decision.forbidden, self._pauses.done(outbox, version), version, outbox,
            self._pace.residual_norm, self._learner.told, self.guard.health, facts, self._follower.progress,
        )  # fmt: skip
