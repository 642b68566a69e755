"""The device's composition root: the map of README.md, top to bottom, in one loop.

Announcement → model → a round of learning, one commit → outbox → MQTT → receipt → settled. `learner` holds the round,
`sender` the way out; what happens when is `uplink.policy`'s.
"""

import errno
import logging
import math
import random
import secrets
import time
from typing import Any, Final

from edgeclient.compress.feedback import NotFinite
from edgeclient.conditions import policy
from edgeclient.conditions.board import Board
from edgeclient.conditions.budgets import lacking, round_bytes
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.policy import Hindrance, Queue, Send, Train, Wait
from edgeclient.durable.lock import DiskFull, StoreError
from edgeclient.durable.store import Store
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused, Will
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Model, Models
from edgeclient.presence.session import Presence
from edgeclient.presence.teller import Teller
from edgeclient.settings import ConfigError, Device
from edgeclient.train.batches import NoExamplesError
from edgeclient.train.learner import Learner
from edgeclient.train.trainer import Interrupted, TrainingError
from edgeclient.uplink.receipts import Receipts
from edgeclient.uplink.sender import Sender
from edgeclient.wire import announcement, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.life import Row, State

_LOG = logging.getLogger(__name__)
TURN_S: Final = 0.5
_FETCH_PAUSE_S: Final = 2.0  # after a blob that was not what it should be
_DISK_PAUSE_S: Final = 30.0  # before a full disk is tried again
_AT_ONCE: Final = 64  # events in a turn
_UNREACHED_S: Final = 5.0  # before its owner hears of it
_TIDY_S: Final = 5.0  # between two looks at what waits and at what was spent
_STARVED_S: Final = 30.0  # before a source without examples is asked again
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Agent:
    """One device in one task; `commands.run` lets several live in one process.

    Args:
        settings: the device's configuration.
        link: the connection; None for one of the configuration.
        learner: what trains; None for one of the configuration.
        guard: what the owner grants, shared by the tasks of a device; None for one of the configuration.

    Attributes:
        guard: what the owner grants.
        once: train one round at most, though the fleet makes new versions meanwhile.
        stopping: whether `stop` was called.
        outcome: how things stood at the end: done, because, and fields of Status.
        forbidden: why conditions or the owner forbid what there is to do, "" if they do not.
    """

    def __init__(
        self,
        settings: Device,
        link: Link | None = None,
        learner: Learner | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._settings = settings
        upload = settings.upload
        self._presence = Presence(secrets.token_hex(8), every_s=upload.status_every_s, heartbeat_s=upload.heartbeat_s)
        self._link = link or Link(
            Endpoint.of(settings.mqtt),
            client_id_prefix=settings.device,
            will=Will(self._topic(topics.status), self._presence.will),
        )
        self._learner = learner or Learner(settings)
        self._sender = Sender(settings, self._link, self._presence.uploaded)
        self._receipts = Receipts(self._sender)
        self._teller = Teller(settings, self._link)
        self._follower = Follower(Models(settings.directory / "models"))
        self.guard = guard or Guard(settings.conditions, settings.directory, Board(settings.directory))
        self.guard.also(settings.directory)
        self._counted_bytes = 0
        self._tidied_s = -math.inf
        self._store: Store | None = None
        self._adopted: Model | None = None
        self._service = ""
        self._chunks: set[tuple[str, int]] = set()
        self._fetch_after = 0.0
        self._unfetched: Hindrance | None = None  # why the model that is announced may not be fetched now
        self._full: tuple[float, str] = (-math.inf, "")
        self._failed: tuple[int, str] = (-1, "")  # the version that could not be trained on, and why
        self._starved_until = -math.inf
        self._doing = "starting"
        self._up_s = time.monotonic()
        self._said = ""
        self._oldest_s = 0.0
        self._rounds = 0
        self.once = False
        self.stopping = False
        self.forbidden = ""
        self.outcome: dict[str, Any] = {}

    def __str__(self) -> str:
        return f"{self._settings.device} in {self._settings.task}"

    def stop(self) -> None:
        """Make whoever takes turns end soon; may be called from a signal handler."""
        self.stopping = True
        self._link.wake()

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def turn(self, wait_s: float = TURN_S) -> None:
        """Wait for what happens, at most so long, and do what follows from it."""
        try:
            self._listen(wait_s)
            self.guard.look()
            self._adopt()
            note = self._act()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            note = self._wait_for_room(f"disk full: {error.filename or self._settings.directory}: make room there")
        except DiskFull as error:
            note = self._wait_for_room(str(error))
        except (StoreError, WireError) as error:  # a page, or a frame in it
            if self._store is not None:
                self._store.close()
            self._store = None
            if isinstance(error, StoreError):
                raise
            where = self._settings.directory / "store"
            raise StoreError(f"{where}/store.db cannot be used ({error}): edgeclient store check says more") from None
        self._log_wait()
        self._report(note)

    def close(self, why: str = "stopped") -> None:
        """Say goodbye and let go of everything, once; `outcome` stays."""
        if self.outcome:
            return
        self.outcome = {"done": self.done, "because": self.forbidden, **self.facts()}
        facts = {**self.facts(), "note": why}
        said = self._presence.goodbye(facts, self._link.socket_bytes(), self._health())
        self._teller.tell(said, self._learner.gain)
        self._link.stop()
        if self._store is not None:
            self._store.close()

    def _log_wait(self) -> None:
        """One line when what it waits for changes: who looks on would take it for hung."""
        now, up = time.monotonic(), self._link.connected
        self._up_s = now if up else self._up_s
        mqtt = self._settings.mqtt
        down = f"{mqtt.host} port {mqtt.port} does not answer" if now - self._up_s > _UNREACHED_S else ""
        why = self.forbidden if up else down
        kind = (self._doing if up else "link") if why else ""
        if why and kind != self._said:
            _LOG.info("waiting: %s", why)
        self._said = kind

    def _wait_for_room(self, why: str) -> str:
        """The store cannot be written: nothing is lost and nothing half done; what could not be kept comes again."""
        note = f"training and sending pause: {why}"
        _LOG.warning("%s", note)
        self._full = (time.monotonic() + _DISK_PAUSE_S, note)
        self._doing = "disk"
        self._fetch_after = self._full[0]  # chunks that could not be kept are asked for again
        return note

    @property
    def done(self) -> bool:
        """Whether the version that the broker announces was trained on, and every frame is settled."""
        if not self._service or self._store is None or self._adopted is None or self._follower.wanted():
            return False
        queue = self._queue(self._store, [])
        return not (queue.new_version or queue.waiting or self._why_failed)

    # Broker → device: announcement, model, receipts

    def _listen(self, wait_s: float) -> None:
        wait_s = self._sender.patience_s(wait_s)
        # One at a time: when the disk is full, those behind the one that did not fit stay where they are.
        for _ in range(_AT_ONCE):
            events = self._link.poll(wait_s, limit=1)
            if not events:
                break
            wait_s = 0.0
            match events[0]:
                case Connected():
                    self._chunks.clear()
                    self._presence.again()
                    try:
                        self._link.subscribe(topics.head(self._settings.task), self._topic(topics.down))
                    except LinkDown:
                        continue  # gone again already: the next Connected does all of this
                    self._greet()
                    self._teller.introduce()
                case Message() as message:
                    self._presence.received(len(message.payload))
                    try:
                        self._take(message)
                    finally:  # what was not kept is asked for again; brokers stop at 20 without an acknowledgement
                        self._link.acknowledge(message)
                case Disconnected(why):
                    _LOG.info("disconnected: %s", why)
                    self._sender.disconnected()
                case SubscriptionRefused(refused):
                    _LOG.error("the broker refuses a subscription to %s: check its access rules", ", ".join(refused))
        self._subscribe_chunks()

    def _take(self, message: Message) -> None:
        try:
            topic = topics.parse(message.topic)
            if topic.kind == "head":
                self._on_announcement(message.payload)
            elif topic.kind == "blob":
                self._follower.receive(topic.rest[0], int(topic.rest[1]), message.payload)
            elif topic.kind == "down":
                self._on_receipt(message.payload)
        except WireError as error:
            _LOG.warning("refused what came on %s: %s", message.topic, error)
            if "/blob/" in message.topic:
                self._fetch_after = time.monotonic() + _FETCH_PAUSE_S

    def _on_announcement(self, payload: bytes) -> None:
        announced = announcement.decode(payload)
        if announced.task != self._settings.task:
            raise WireError("topic", f"an announcement of task {announced.task}")
        self._follower.announce(announced)
        if announced.service != self._service:
            self._service = announced.service
            self._greet()

    def _adopt(self) -> None:
        """Open trainer, data and store for the active model, as far as they are not open yet."""
        model = self._follower.active
        if model is None or model is self._adopted or time.monotonic() < self._full[0]:
            return
        announced = model.announcement
        lacks = lacking(
            announced.size,
            self.guard.observed,
            self._settings.conditions.max_written_bytes_per_day,
            begun=(self._settings.directory / "store").exists(),
        )
        if lacks:
            raise ConfigError(f"task {announced.task} cannot be taken: {lacks}")
        self._learner.open(model)
        if self._store is not None and self._store.account().layout != announced.layout:
            self._store.close()
            self._store = None
        if self._store is None:
            self._store = Store(self._settings.directory / "store", layout=announced.layout, size=announced.size)
            if self._store.notice:
                _LOG.warning("%s", self._store.notice)
            self._learner.begin(self._store)
            self._greet()
        self._adopted = model

    def _on_receipt(self, payload: bytes) -> None:
        if self._store is None:
            return
        answered = self._receipts.take(self._store, payload)
        if answered.renewed:
            self._learner.begin(self._store)
        if answered.greet:
            self._greet()

    def _subscribe_chunks(self) -> None:
        wanted = set(self._follower.wanted())
        self._unfetched = self.guard.no_fetch(self._follower.missing_bytes) if wanted else None
        if self._unfetched or time.monotonic() < self._fetch_after:
            wanted = set()
        try:
            self._link.unsubscribe(*(self._chunk_topic(chunk) for chunk in sorted(self._chunks - wanted)))
            self._link.subscribe(*(self._chunk_topic(chunk) for chunk in sorted(wanted - self._chunks)), qos=0)
        except LinkDown:
            return
        self._chunks = wanted

    # Decision and action

    def _act(self) -> str:
        """Train, send or wait; the reason."""
        store = self._store
        # On a clock of its own: of several tasks nearly always the same one finds that `look` has looked.
        tidies = time.monotonic() - self._tidied_s >= _TIDY_S
        if tidies:
            self._tidied_s = time.monotonic()
            total = sum(self._link.socket_bytes())
            self.guard.passed(max(0, total - self._counted_bytes))
            self._counted_bytes = total
        if store is None or self._adopted is None:
            self.forbidden = self._unfetched.because if self._unfetched else ""
            return ""
        full = self._full[1] if time.monotonic() < self._full[0] else ""
        if tidies and not full:
            self._sender.tidy(store, self._adopted.announcement)
        due: list[Row] = []
        if self._link.connected and not full:
            self._sender.withdraw(store)
            due = self._sender.due(store.outbox())
        history = self.guard.history(full, link_up=self._link.connected)
        queue = self._queue(store, due)
        decision = policy.decide(
            self.guard.moment(),
            self.guard.observed,
            self.guard.rules,
            queue,
            history,
            random.random(),  # noqa: S311 (jitter)
        )
        if isinstance(decision, Send):
            self._sender.send(store, due[: decision.frames])
        elif isinstance(decision, Train):
            self._train(store, self._adopted)
        self.forbidden = decision.because if isinstance(decision, Wait) and decision.forbidden else ""
        self._doing, self._oldest_s = "disk" if full else decision.doing, queue.oldest_s
        if not (queue.waiting or queue.new_version) and (idle := self._why_failed or self._unfetched):
            self._doing, self.forbidden = idle.doing, self.forbidden or idle.because
            return idle.because
        return decision.because

    @property
    def _why_failed(self) -> Hindrance | None:
        """Why the active version cannot be trained on, None if it can."""
        version, why = self._failed
        failed = self._adopted is not None and self._adopted.announcement.version == version
        return Hindrance("failed", why) if failed else None

    def _queue(self, store: Store, due: list[Row]) -> Queue:
        waiting = [row for row in store.outbox().rows if row.state is not State.RETURNED]
        new_version = False
        starved = time.monotonic() < self._starved_until
        if self._adopted is not None and not self._why_failed and not starved:
            trained = store.account().trained_version
            newer = trained is None or trained < self._adopted.announcement.version
            new_version = newer and not (self.once and self._rounds)
        oldest_s = max((time.time() - row.created_s for row in waiting), default=0.0)
        return Queue(new_version, [row.size for row in due], len(waiting), max(0.0, oldest_s))

    def _train(self, store: Store, model: Model) -> None:
        version = model.announcement.version
        self._doing = "training"
        self._presence.again()  # a round may take minutes
        self._report(f"training on version {version}")
        try:
            made_bytes = self._learner.round(
                model,
                store,
                frame_bytes=self._sender.frame_bytes,
                free_bytes=self.guard.observed.free_bytes,
                proceed=self.guard.training(lambda: self.stopping),
            )
        except Interrupted:
            _LOG.info("version %d is not trained on yet: %s", version, self.guard.hindrance)
            return
        except (NotFinite, TrainingError) as error:
            _LOG.error("version %d was not trained: %s", version, error)
            self._failed = version, f"cannot train on version {version}: {error}"
            return
        except NoExamplesError as error:
            _LOG.info("nothing to train on: %s", error)
            self._starved_until = time.monotonic() + _STARVED_S
            return
        if self.guard.hindrance:
            _LOG.info("training stopped early, %s: what was learnt is kept", self.guard.hindrance)
        self._rounds += 1
        self.guard.wrote(round_bytes(model.announcement.size, made_bytes))

    def _greet(self) -> None:
        if self._store is not None:
            self._receipts.greeted()
            self._sender.greet(self._store.outbox())

    # Device → people

    def _report(self, note: str) -> None:
        said = self._presence.due(time.monotonic(), self.facts(note), self._link.socket_bytes(), self._health())
        if said is not None:
            self._teller.tell(said, self._learner.gain)

    def _health(self) -> dict[str, Any]:
        """Fields of Status that change all the time."""
        observed = self.guard.observed
        return {
            "time_s": int(time.time()),
            "oldest_s": int(self._oldest_s),
            "battery_percent": observed.battery_percent,
            "temperature_c": observed.temperature_c,
        }

    def facts(self, note: str = "") -> dict[str, Any]:
        """What the device tells about itself: fields of Status."""
        model, store = self._follower.active, self._store
        up, doing = self._link.connected, self._doing
        if not up:
            note, doing = f"waiting for the broker; {note}", "training" if doing == "training" else "link"
        if model is None or store is None:
            note, doing = ("waiting for the model", "model") if up else ("waiting for the broker", "link")
            if up and self._unfetched:
                note, doing = f"{note}: {self._unfetched.because}", self._unfetched.doing
            return {"note": note, "doing": doing}
        outbox = store.outbox()
        account, counts = outbox.account, outbox.counts()
        return {
            "note": note,
            "doing": doing,
            "residual_norm": self._learner.residual_norm,
            "version": model.announcement.version,
            "rounds": account.rounds,
            "queued": counts[State.QUEUED],
            "sent": counts[State.SENT] + counts[State.WITHDRAWING],
            "returned": counts[State.RETURNED],
            "applied": account.applied,
            "refused": account.refused,
            "renewals": account.renewals,
        }

    def _topic(self, build: topics.DeviceTopic) -> str:
        return build(self._settings.task, self._settings.device)

    def _chunk_topic(self, chunk: tuple[str, int]) -> str:
        return topics.blob(self._settings.task, *chunk)
