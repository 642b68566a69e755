"""The device's composition root: the map of ARCHITECTURE.md, top to bottom, in one loop.

Announcement → model → a round of learning, one commit → outbox → MQTT → receipt → settled. `learner` holds the round.
"""

import errno
import json
import logging
import math
import secrets
import time
from dataclasses import asdict
from typing import Any, Final

from edgeclient import failpoint
from edgeclient.compress.feedback import NotFinite
from edgeclient.durable.lock import DiskFull
from edgeclient.durable.rows import Row, State
from edgeclient.durable.store import Store
from edgeclient.learner import Learner
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused, Will
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Model, Models
from edgeclient.settings import ConfigError, Device
from edgeclient.train.runtime import check_runtimes
from edgeclient.train.trainer import TrainingError
from edgeclient.uplink.conditions import Observed, observe
from edgeclient.uplink.outbox import Bounds, LinkQuality, overflow, superseded
from edgeclient.uplink.policy import Decision, Limits, decide
from edgeclient.uplink.presence import Presence
from edgeclient.uplink.settle import settle
from edgeclient.uplink.wear import Allowance, round_bytes
from edgeclient.uplink.window import Window
from edgeclient.wire import announcement, frame, messages, status, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_RECEIPT_LIST, MAX_WITHDRAW_LIST
from edgeclient.wire.status import Status

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5
_OBSERVE_S: Final = 5.0
_FETCH_PAUSE_S: Final = 2.0  # after a blob that was not what it should be
_DISK_PAUSE_S: Final = 30.0  # before a full disk is tried again
_REMEMBERED: Final = 1024  # settled sequences
_CONFIRM: Final = 1000  # settled sequences, before HELLO says so
_WITHDRAW_S: Final = 8.0  # before an unanswered WITHDRAW is said again
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Agent:
    """One device in one task; `run` returns after `stop`.

    Args:
        settings: the device's configuration.
        link: the connection; None for one of the configuration.
        learner: what trains; None for one of the configuration.
    """

    def __init__(self, settings: Device, link: Link | None = None, learner: Learner | None = None) -> None:
        self._settings = settings
        self._presence = Presence(secrets.token_hex(8), every_s=settings.upload.status_every_s)
        self._link = link or Link(
            Endpoint(settings.mqtt.host, settings.mqtt.port, settings.mqtt.keepalive_s),
            client_id_prefix=settings.device,
            will=Will(self._topic(topics.status), self._presence.will),
        )
        self._learner = learner or Learner(settings)
        self._follower = Follower(Models(settings.directory / "models"))
        self._window = Window(most=settings.upload.window, retry_after_s=settings.upload.retry_after_s)
        self._quality = LinkQuality()
        self._connection_bytes = 0
        self._wear = Allowance(
            settings.conditions.max_written_bytes_per_day,
            float(settings.conditions.max_written_bytes_per_day),
            time.monotonic(),
        )
        self._store: Store | None = None
        self._adopted: Model | None = None
        self._service = ""
        self._chunks: set[tuple[str, int]] = set()
        self._fetch_after = 0.0
        self._withdraw_after = 0.0
        self._paused: tuple[float, str] = (-math.inf, "")
        self._observed: tuple[float, Observed] = (-math.inf, Observed(None, None, None))
        self._failed_version: int | None = None
        self._unconfirmed = 0
        self._settled: dict[int, bytes | None] = {}  # digests, to know a copy of this store by
        self._stopping = False

    def stop(self) -> None:
        """Make `run` return soon; may be called from a signal handler."""
        self._stopping = True
        self._link.wake()

    def run(self) -> None:
        """Learn and upload until stopped.

        Raises:
            StoreError, DataError, TrainingError: the device cannot take part; the text says what to do.
        """
        check_runtimes()
        try:
            self.start()
            while not self._stopping:
                self.turn()
        finally:
            self.close()

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def turn(self) -> None:
        """Wait for what happens, at most half a second, and do what follows from it."""
        try:
            self._listen()
            self._adopt()
            decision = self._decide()
            if decision.train:
                self._train()
            if decision.send:
                self._send()
            note = decision.because
        except OSError as error:
            if error.errno not in _FULL:
                raise
            note = self._pause(f"{error.filename or self._settings.directory}: {error.strerror}")
        except DiskFull as error:
            note = self._pause(str(error))
        self._report(note)

    def close(self) -> None:
        """Say goodbye and let go of everything."""
        self._say_goodbye()
        self._link.stop()
        if self._store is not None:
            self._store.close()

    def _pause(self, why: str) -> str:
        """A full disk: nothing is lost and nothing half done; what could not be kept comes again."""
        note = f"disk full, training and sending pause: {why}"
        _LOG.warning("%s", note)
        self._paused = (time.monotonic() + _DISK_PAUSE_S, note)
        self._fetch_after = self._paused[0]  # chunks that could not be kept are asked for again
        return note

    # Broker → device: announcement, model, receipts

    def _listen(self) -> None:
        now, resend_s = time.monotonic(), self._window.next_s()
        for event in self._link.poll(_TURN_S if resend_s is None else min(_TURN_S, max(0.0, resend_s - now))):
            match event:
                case Connected():
                    self._chunks.clear()
                    self._connection_bytes = 0
                    self._presence.again()
                    try:
                        self._link.subscribe(topics.head(self._settings.task), self._topic(topics.down))
                    except LinkDown:
                        continue  # gone again already: the next Connected does all of this
                    self._greet()
                case Message():
                    self._presence.received(len(event.payload))
                    self._take(event)
                    self._link.acknowledge(event)
                case Disconnected(why):
                    _LOG.info("disconnected: %s", why)
                    if self._connection_bytes:
                        self._quality = self._quality.broken(self._connection_bytes)
                        self._connection_bytes = 0
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
        if model is None or model is self._adopted or time.monotonic() < self._paused[0]:
            return
        announced = model.announcement
        needed, allowed = round_bytes(announced.size, 0), self._settings.conditions.max_written_bytes_per_day
        if allowed and needed > allowed:
            raise ConfigError(
                f"task {announced.task}: a round writes {needed >> 20} MiB, more than the {allowed >> 20} MiB a day of"
                " conditions.max_written_bytes_per_day: raise it, or leave the task to a device with a larger disk"
            )
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
        store = self._store
        if store is None:
            return
        account = store.account()
        awaiting = {row.sequence: row.id for row in store.outbox() if row.sequence is not None}
        receipt = messages.decode_receipt(payload)

        def digest(sequence: int) -> bytes | None:
            if sequence not in awaiting:
                return self._settled.get(sequence)
            return frame.digest(frame.stamp(store.body(awaiting[sequence]), epoch=account.epoch, sequence=sequence))

        settlement = settle(
            receipt, epoch=account.epoch, next_sequence=account.next_sequence, awaiting=awaiting, digest=digest
        )
        if receipt.epoch == account.epoch:
            self._window.answered()
        if settlement.renew:
            _LOG.warning("another device uses a copy of this store, or it is an old backup. A new epoch begins")
            store.renew()
            self._settled.clear()
            self._learner.begin(store)
            self._greet()
        elif not settlement.empty:
            for sequence, refusal in settlement.refused:
                _LOG.info("frame %d refused (%s): its entries join the next round", sequence, refusal.reason)
            settled = [*settlement.applied, *settlement.withdrawn, *(sequence for sequence, _ in settlement.refused)]
            self._settled |= {sequence: digest(sequence) for sequence in settled}
            self._settled = dict(sorted(self._settled.items())[-_REMEMBERED:])
            store.settle(
                applied=settlement.applied,
                refused=[sequence for sequence, _ in settlement.refused],
                withdrawn=settlement.withdrawn,
            )
            self._unconfirmed += len(settled)
            if self._unconfirmed > _CONFIRM or len(receipt.refused) > MAX_RECEIPT_LIST // 2:
                self._greet()  # the ledger folds what is confirmed, and tells no refusal twice

    def _subscribe_chunks(self) -> None:
        wanted = set(self._follower.wanted()) if time.monotonic() >= self._fetch_after else set()
        try:
            self._link.unsubscribe(*(self._chunk_topic(chunk) for chunk in sorted(self._chunks - wanted)))
            self._link.subscribe(*(self._chunk_topic(chunk) for chunk in sorted(wanted - self._chunks)), qos=0)
        except LinkDown:
            return
        self._chunks = wanted

    # Decision and round

    def _decide(self) -> Decision:
        now = time.monotonic()
        if now < self._paused[0]:
            return Decision(False, False, self._paused[1])
        if now - self._observed[0] >= _OBSERVE_S:
            self._observed = (now, observe())
            self._tidy()
        model, new_version = self._adopted, False
        if model is not None and self._store is not None and self._failed_version != model.announcement.version:
            trained = self._store.account().trained_version
            new_version = trained is None or trained < model.announcement.version
        limits = Limits(self._settings.conditions.max_load, self._settings.conditions.min_battery_percent)
        return decide(self._observed[1], limits, new_version=new_version, wear_wait_s=self._wear.wait_s(now=now))

    def _train(self) -> None:
        model, store = self._adopted, self._store
        assert model is not None
        assert store is not None
        frame_bytes = self._quality.frame_bytes(self._settings.upload.max_frame_bytes)
        try:
            made_bytes = self._learner.round(
                model, store, frame_bytes=frame_bytes, free_bytes=self._observed[1].free_bytes
            )
        except (NotFinite, TrainingError) as error:
            _LOG.error("version %d was not trained: %s", model.announcement.version, error)
            self._failed_version = model.announcement.version
            return
        written = round_bytes(model.announcement.size, made_bytes)
        self._wear = self._wear.spent(written, now=time.monotonic())

    def _tidy(self) -> None:
        """Take back what is superseded, too old or too much."""
        model, store = self._adopted, self._store
        if store is None or model is None:
            return
        kept = [row for row in store.outbox() if row.state in {State.QUEUED, State.SENT}]
        upload, announced = self._settings.upload, model.announcement
        gone = overflow(kept, Bounds(upload.max_outbox_bytes, upload.max_outbox_age_s), now_s=time.time())
        idle = [row for row in kept if row.state is State.SENT and not self._window.carries(row.sequence)]
        gone += superseded(idle, version=announced.version, max_staleness=announced.policy.max_staleness)
        if gone:
            _LOG.info("taking back %d frames of %d that wait: their entries join the next round", len(gone), len(kept))
            store.withdraw(gone)
            self._withdraw_after = 0.0

    # Frames → broker

    def _send(self) -> None:
        store = self._store
        if store is None or not self._link.connected:
            return
        rows = store.outbox()
        sent = sum(row.state is State.SENT for row in rows)
        queued = [row.id for row in rows if row.state is State.QUEUED]
        if fresh := queued[: max(0, self._window.size - sent)]:
            store.mark_sent(fresh)
            rows = store.outbox()
        if failpoint.sabotaged("drop"):
            dropped = [row.sequence for row in rows if row.state is State.SENT and (row.sequence or 0) % 4 == 3]
            store.settle(applied=[sequence for sequence in dropped if sequence is not None])
            rows = store.outbox()
        now, epoch = time.monotonic(), store.account().epoch
        waiting = {row.sequence: row.id for row in rows if row.state is State.SENT and row.sequence is not None}
        try:
            for sequence in self._window.due(now=now, waiting=list(waiting)):
                for _ in range(2 if failpoint.sabotaged("double") else 1):
                    self._upload(frame.stamp(store.body(waiting[sequence]), epoch=epoch, sequence=sequence))
                self._window.sent(sequence, now=now)
            if now >= self._withdraw_after:
                self._withdraw([row for row in rows if row.state is State.WITHDRAWING], store, epoch)
                self._withdraw_after = now + _WITHDRAW_S
        except LinkDown:
            return

    def _withdraw(self, rows: list[Row], store: Store, epoch: int) -> None:
        stamped = sorted((row.sequence, row.id) for row in rows if row.sequence is not None)
        for at in range(0, len(stamped), MAX_WITHDRAW_LIST):
            frames = tuple(
                (sequence, frame.digest(frame.stamp(store.body(id_), epoch=epoch, sequence=sequence)))
                for sequence, id_ in stamped[at : at + MAX_WITHDRAW_LIST]
            )
            self._upload(messages.encode_withdraw(messages.Withdraw(epoch, frames)))

    def _upload(self, payload: bytes) -> None:
        self._link.publish(self._topic(topics.up), payload)
        self._presence.uploaded(len(payload))
        self._connection_bytes += len(payload)
        failpoint.hit("agent.after-publish")

    def _greet(self) -> None:
        """HELLO: the receipt that answers it settles whatever was missed."""
        if self._store is None:
            return
        account = self._store.account()
        self._unconfirmed = 0
        hello = messages.Hello(account.epoch, account.next_sequence, self._store.confirmed())
        self._window.restart(now=time.monotonic())
        self._withdraw_after = 0.0
        try:
            self._upload(messages.encode_hello(hello))
        except LinkDown:
            return

    # Device → people

    def _report(self, note: str) -> None:
        said = self._presence.due(time.monotonic(), self._facts(note), self._link.socket_bytes())
        if said is not None:
            self._tell(said)

    def _say_goodbye(self) -> None:
        self._tell(self._presence.goodbye(self._facts("stopped"), self._link.socket_bytes()))

    def _tell(self, said: Status) -> None:
        """Into status.json for `edgeclient status`, and retained on the broker for everybody."""
        path = self._settings.directory / "status.json"
        # Not synced: it wears the card, and after a power cut nobody misses the last second.
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(asdict(said)))
            temporary.replace(path)
        except OSError as error:
            _LOG.warning("%s cannot be written: %s", path, error)
        try:
            self._link.publish(self._topic(topics.status), status.encode(said), retain=True)
        except LinkDown:
            return

    def _facts(self, note: str) -> dict[str, Any]:
        model, store = self._follower.active, self._store
        if not self._link.connected:
            note = f"waiting for the broker; {note}"
        if model is None or store is None:
            return {"note": "waiting for the model" if self._link.connected else "waiting for the broker"}
        account, counts = store.account(), store.counts()
        return {
            "note": note,
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
