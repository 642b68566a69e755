"""The device, top to bottom: announcement → model → a round of learning, ONE commit → frames → MQTT → receipt → gone.

Each name is a folder, and this file alone knows them all.
"""

import logging
import secrets
import time
from contextlib import suppress
from typing import Any, Final

from edgeclient import audit
from edgeclient.compress.feedback import compress
from edgeclient.compress.pace import Pace
from edgeclient.conditions.board import Board
from edgeclient.conditions.budgets import round_bytes
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.pauses import Pauses
from edgeclient.conditions.policy import STARTING, Decision, Send, Train
from edgeclient.durable.lock import DiskFull, StoreError
from edgeclient.durable.store import Store
from edgeclient.link.mqtt import Connected, Endpoint, Link, LinkDown, Message, Will
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
from edgeclient.wire import announcement, frame, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame.pack import pack
from edgeclient.wire.topics import Topic

_LOG = logging.getLogger(__name__)
TURN_S: Final = 0.5


class Agent:
    """One device in one task; `commands.run` lets several live in one process.

    Args:
        settings: the device's configuration; what else is not given follows from it.
        link: the connection.
        learner: what trains.
        guard: what the owner grants, shared by the tasks of a device.

    Attributes:
        stopping: whether `stop` was called.
        outcome: how things stood at the end: done, because, and fields of Status.
    """

    def __init__(
        self, settings: Device, link: Link | None = None, learner: Learner | None = None, guard: Guard | None = None
    ) -> None:
        self._settings = settings
        every_s, heartbeat_s = settings.upload.status_every_s, settings.upload.heartbeat_s
        self._session = session = Session(secrets.token_hex(8), every_s=every_s, heartbeat_s=heartbeat_s)
        will = Will(topics.status(settings.task, settings.device), session.will)
        self._link = link or Link(Endpoint.of(settings.mqtt), client_id_prefix=settings.device, will=will)
        self._follower = Follower(settings.task, Models(settings.directory / "models"))
        self._learner = learner or Learner(settings)
        self._sender = Sender(settings, self._link, session.uploaded)
        self._receipts = Receipts(self._sender)
        self._teller = Teller(settings, self._link, session)
        self.guard = guard or Guard(settings.conditions, settings.directory, Board(settings.directory))
        self.guard.also(settings.directory)
        self._pauses = Pauses(self.guard)
        self._store: Store | None = None
        self._auditor: audit.Auditor | audit.Unaudited = audit.Unaudited()
        self._model: Model | None = None  # that trainer, data and store are open for
        self._pace, self._threshold = Pace(), 0.0  # what rounds teach the next
        self._residual_norm: float | None = None
        self._decision: Decision = STARTING
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

    def turn(self, wait_s: float = TURN_S) -> None:
        """Wait for what happens, at most so long, and do what follows from it."""
        try:
            self._listen(wait_s)
            self.guard.look()
            self._adopt()
            self._act()
        except (DiskFull, OSError) as error:
            self._decision = self._pauses.full(error, self._settings.directory)
        except StoreError:  # a damaged page, or a frame in it
            self._leave_store()
            raise
        self._teller.report(self._standing)

    def close(self, why: str = "stopped") -> None:
        """Say goodbye and let go of everything, once; `outcome` stays."""
        if not self.outcome:
            self.outcome = {"done": self.done, "because": self.forbidden, **self._teller.facts(self._standing)}
            self._teller.goodbye(self._standing, why)
            self._link.stop()
            self._leave_store()

    # Broker → device: announcement, model, receipts

    def _listen(self, wait_s: float) -> None:
        for event in self._sender.events(wait_s):
            match event:
                case Connected():
                    self._follower.reconnected()
                    with suppress(LinkDown):  # gone again already: the next Connected does all of this
                        self._link.subscribe(*topics.of_device(self._settings.task, self._settings.device))
                        self._greet()
                        self._teller.introduce()
                case Message() as message:
                    self._session.received(len(message.payload))
                    try:
                        self._take(message)
                    except WireError as error:
                        _LOG.warning("refused what came on %s: %s", message.topic, error)
                    finally:  # what was not kept is asked for again; brokers stop at 20 without an acknowledgement
                        self._link.acknowledge(message)
        self._follower.ask(self._link, allowed=self._pauses.may_fetch(self._follower.missing_bytes))

    def _take(self, message: Message) -> None:
        match topics.parse(message.topic):
            case Topic(kind="head"):
                if self._follower.announce(announcement.decode(message.payload)):  # by another life of the aggregator
                    self._greet()
            case Topic(kind="blob", rest=(digest, chunk)):
                self._follower.receive(digest, int(chunk), message.payload)
            case Topic(kind="down") if self._store is not None:
                if self._receipts.take(self._store, message.payload):  # a new epoch has begun
                    self._auditor = audit.of(self._settings, self._store.account())

    def _greet(self) -> None:
        if self._store is not None:
            self._receipts.greet(self._store.outbox())

    # Model → trainer, data, store

    def _adopt(self) -> None:
        model, directory = self._follower.active, self._settings.directory / "store"
        if model is None or model is self._model or self._pauses.disk:
            return
        asked = model.announcement
        self.guard.accept(asked.task, asked.size, begun=directory.exists())
        self._learner.open(model.bundle_directory)
        if self._store is None or self._store.account().layout != asked.layout:
            self._leave_store()
            self._store = Store(directory, layout=asked.layout, size=asked.size)
            self._auditor = audit.of(self._settings, self._store.account())
            self._greet()
        self._model = model

    def _leave_store(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    # Decide, then do one thing

    def _act(self) -> None:
        self.guard.passed(self._settings.directory, sum(self._link.socket_bytes()))
        store, model = self._store, self._model
        if store is None or model is None:
            self._decision = self._pauses.without_model()
            return
        due = [] if self._pauses.disk else self._sender.due(store, model.announcement)
        version, link_up = model.announcement.version, self._link.connected
        self._decision = self._pauses.decide(store.outbox(), version, due, link_up=link_up)
        match self._decision:
            case Send(frames):
                self._sender.send(store, due[:frames])
            case Train():
                with self._pauses.training(version):
                    self._round(store, model)

    # train → compress → wire → durable: ONE commit

    def _round(self, store: Store, model: Model) -> None:
        asked, layout, outbox = model.announcement, model.manifest.layout, store.outbox()
        free_bytes, proceed = self.guard.observed.free_bytes, self.guard.training(lambda: self.stopping)
        self._decision = Train(f"training on version {asked.version}")
        self._teller.report(self._standing, now=True)  # a round may take minutes

        trained = self._learner.train(asked, model.parameters, free_bytes=free_bytes, proceed=proceed)
        if isinstance(trained, Untrained):
            self._pauses.untrained(asked.version, *trained)
            return

        terms, joining = Terms(asked, self._settings, layout, self._sender.frame_bytes), merged(outbox, asked)
        held_bytes = sum(row.size for row in outbox.rows if row.id not in joining)
        aim = terms.aim(self._pace, share=trained.share, free_bytes=free_bytes, held_bytes=held_bytes)
        returned = store.read(joining, lambda body: frame.decode(body, layout.tensors).update)
        residual, idle = store.slots()
        compressed = compress(
            trained.delta, residual, aim, returned=returned, quantiser=terms.quantiser, accel=terms.coding.accel,
            last_threshold=self._threshold, out=idle,
        )  # fmt: skip

        origin = terms.origin(outbox.account.next_update, trained.num_examples)
        packed = pack(compressed, origin, terms.coding, terms.quantiser, terms.budget_bytes)

        token, left = secrets.token_hex(8), packed.compressed.residual
        self._auditor.begin(token, trained.delta)
        store.commit_round(
            packed.layers, left, token=token, base_version=asked.version, merged=joining, now_s=time.time()
        )
        self._auditor.confirm()

        self._pauses.trained()
        self.guard.wrote(round_bytes(asked.size, packed.frame_bytes))
        self._pace, self._threshold = packed.pace(self._pace, aim), compressed.threshold
        self._residual_norm = packed.compressed.norm
        self._learner.keep(asked.version, model.parameters, trained, proceed)

    # Device → people

    @property
    def done(self) -> bool:
        """Whether the version that the broker announces was trained on, and every frame is settled."""
        if not self._follower.service or self._store is None or self._model is None or self._follower.missing_bytes:
            return False
        return self._pauses.idle(self._store.outbox(), self._model.announcement.version)

    @property
    def forbidden(self) -> str:
        """Why conditions or the owner forbid what there is to do, "" if they do not."""
        return self._decision.because if self._decision.forbidden else ""

    @property
    def _standing(self) -> Standing:
        model, decision, observed = self._follower.active, self._decision, self.guard.observed
        return Standing(
            decision.doing, decision.because, self.forbidden, model.announcement.version if model else None,
            self._store.outbox() if self._store else None, self._residual_norm, self._learner.gain,
            battery_percent=observed.battery_percent, temperature_c=observed.temperature_c,
        )  # fmt: skip
