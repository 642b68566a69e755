"""The device's composition root: the map of ARCHITECTURE.md, top to bottom, in one loop.

Announcement → model → delta → sparse update → frames → ONE commit → MQTT → receipt.
"""

import functools
import json
import logging
import math
import secrets
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient import failpoint
from edgeclient.audit import Auditor
from edgeclient.compress.density import Limits as DensityLimits
from edgeclient.compress.density import Pace, learnt, target, within_budget
from edgeclient.compress.feedback import NotFinite, compress, fewer
from edgeclient.compress.quantise import Quantiser
from edgeclient.durable.rows import State
from edgeclient.durable.store import Store
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused, Will
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Model, Models
from edgeclient.settings import Device
from edgeclient.train.data import Dataset, open_data
from edgeclient.train.effort import micro_batch, peak_bytes
from edgeclient.train.runtime import check_runtimes
from edgeclient.train.statistics import Statistics
from edgeclient.train.trainer import Plan, Trainer, TrainingError
from edgeclient.train.trainers import open_trainer
from edgeclient.uplink.conditions import Observed, observe
from edgeclient.uplink.policy import Decision, Limits, decide
from edgeclient.uplink.presence import Presence
from edgeclient.uplink.settle import settle
from edgeclient.uplink.window import Window
from edgeclient.wire import announcement, frame, messages, status, topics
from edgeclient.wire.bundle import read_manifest
from edgeclient.wire.errors import WireError
from edgeclient.wire.layout import Layout
from edgeclient.wire.limits import MAX_RECEIPT_LIST
from edgeclient.wire.status import Status

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5
_OBSERVE_S: Final = 5.0
_FETCH_PAUSE_S: Final = 2.0  # after a blob that was not what it should be


class Agent:
    """One device in one task; `run` returns after `stop`.

    Args:
        settings: the device's configuration.
    """

    def __init__(self, settings: Device) -> None:
        self._settings = settings
        self._presence = Presence(secrets.token_hex(8), every_s=settings.upload.status_every_s)
        self._link = Link(
            Endpoint(settings.mqtt.host, settings.mqtt.port, settings.mqtt.keepalive_s),
            client_id_prefix=settings.device,
            will=Will(self._topic(topics.status), self._presence.will),
        )
        self._follower = Follower(Models(settings.directory / "models"))
        self._window = Window(size=settings.upload.window, retry_after_s=settings.upload.retry_after_s)
        self._store: Store | None = None
        self._auditor: Auditor | None = None
        self._trainer: tuple[Path, Trainer, Dataset] | None = None
        self._layout: Layout | None = None
        self._service = ""
        self._chunks: set[tuple[str, int]] = set()
        self._fetch_after = 0.0
        self._observed: tuple[float, Observed] = (-math.inf, Observed(None, None, None))
        self._failed_version: int | None = None
        self._threshold = 0.0  # of the last round; speeds the next one up
        self._pace = Pace()
        self._example_bytes = 0.0  # that training takes, as measured in the first round
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
            if self._follower.active is not None:
                self._adopt(self._follower.active)
            self._link.start()
            while not self._stopping:
                self._listen()
                decision = self._decide()
                if decision.train:
                    self._train()
                if decision.send:
                    self._send()
                self._report(decision.because)
        finally:
            self._say_goodbye()
            self._link.stop()
            if self._store is not None:
                self._store.close()

    # Broker → device: announcement, model, receipts

    def _listen(self) -> None:
        now = time.monotonic()
        resend_s = self._window.next_s(now=now)
        for event in self._link.poll(_TURN_S if resend_s is None else min(_TURN_S, max(0.0, resend_s - now))):
            match event:
                case Connected():
                    self._link.subscribe(topics.head(self._settings.task), self._topic(topics.down))
                    self._chunks.clear()
                    self._presence.again()
                    self._greet()
                case Message():
                    self._presence.received(len(event.payload))
                    self._take(event)
                    self._link.acknowledge(event)
                case Disconnected(why):
                    _LOG.info("disconnected: %s", why)
                case SubscriptionRefused(refused):
                    _LOG.error("the broker refuses a subscription to %s: check its access rules", ", ".join(refused))
        self._subscribe_chunks()

    def _take(self, message: Message) -> None:
        try:
            topic = topics.parse(message.topic)
            if topic.kind == "head":
                self._on_announcement(message.payload)
            elif topic.kind == "blob":
                model = self._follower.receive(topic.rest[0], int(topic.rest[1]), message.payload)
                if model is not None:
                    self._adopt(model)
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

    def _adopt(self, model: Model) -> None:
        """Open trainer, data and store for an active model, as far as they are not open yet."""
        announced = model.announcement
        if self._trainer is None or self._trainer[0] != model.bundle_directory:
            manifest = read_manifest((model.bundle_directory / "manifest.json").read_bytes())
            data = self._settings.data
            self._layout = manifest.layout
            self._trainer = (
                model.bundle_directory,
                open_trainer(model.bundle_directory, self._settings.training.runtime, self._settings.training.threads),
                open_data(data.source, data.options, manifest),
            )
        if self._store is not None and self._store.account().layout != announced.layout:
            self._store.close()
            self._store = None
        if self._store is None:
            self._store = Store(self._settings.directory / "store", layout=announced.layout, size=announced.size)
            if self._store.notice:
                _LOG.warning("%s", self._store.notice)
            self._new_account()
            self._greet()

    def _on_receipt(self, payload: bytes) -> None:
        if self._store is None:
            return
        account = self._store.account()
        awaiting = [sent.sequence for sent in self._store.frames(State.SENT) if sent.sequence is not None]
        receipt = messages.decode_receipt(payload)
        settlement = settle(
            receipt,
            epoch=account.epoch,
            next_sequence=account.next_sequence,
            awaiting=awaiting,
        )
        if settlement.renew:
            _LOG.warning("the aggregator knows more of this store than it does itself: a copy? A new epoch begins")
            self._store.renew()
            self._new_account()
            self._greet()
        elif settlement.applied or settlement.refused:
            for sequence, refusal in settlement.refused:
                _LOG.info("frame %d refused (%s): its entries join the next round", sequence, refusal.reason)
            self._store.settle(applied=settlement.applied, refused=[sequence for sequence, _ in settlement.refused])
            if len(receipt.refused) > MAX_RECEIPT_LIST // 2:
                self._greet()  # confirms them, before the list has no room for the next

    def _new_account(self) -> None:
        if self._store is not None and self._settings.audit:
            account = self._store.account()
            self._auditor = Auditor(
                self._settings.directory / "audit",
                epoch=account.epoch,
                size=account.size,
                committed=account.round_token,
            )

    def _subscribe_chunks(self) -> None:
        wanted = set(self._follower.wanted()) if time.monotonic() >= self._fetch_after else set()
        try:
            self._link.unsubscribe(*(self._chunk_topic(chunk) for chunk in sorted(self._chunks - wanted)))
            self._link.subscribe(*(self._chunk_topic(chunk) for chunk in sorted(wanted - self._chunks)), qos=0)
        except LinkDown:
            return
        self._chunks = wanted

    # Delta → update → frames → one commit

    def _decide(self) -> Decision:
        now = time.monotonic()
        if now - self._observed[0] >= _OBSERVE_S:
            self._observed = (now, observe())
        model, new_version = self._follower.active, False
        if model is not None and self._store is not None and self._failed_version != model.announcement.version:
            trained = self._store.account().trained_version
            new_version = trained is None or trained < model.announcement.version
        limits = Limits(self._settings.conditions.max_load, self._settings.conditions.min_battery_percent)
        return decide(self._observed[1], limits, new_version=new_version)

    def _train(self) -> None:
        model, store = self._follower.active, self._store
        assert model is not None
        assert store is not None
        assert self._trainer is not None
        assert self._layout is not None
        announced, account, own = model.announcement, store.account(), self._settings.training
        _, trainer, data = self._trainer
        policy, free_bytes = announced.policy, self._observed[1].free_bytes
        plan = Plan(
            policy.learning_rate,
            min(policy.local_epochs, own.max_epochs),
            policy.batch_size,
            micro_batch=micro_batch(own.max_batch, self._example_bytes, free_bytes),
            clip_norm=policy.clip_norm or None,
            max_steps=policy.local_steps or None,
            max_seconds=min(own.max_seconds, policy.local_seconds or own.max_seconds),
        )
        statistics = Statistics(model.bundle_directory)
        rng = np.random.default_rng([own.seed, zlib.crc32(self._settings.device.encode()), announced.version])
        counts = store.counts()
        full = counts[State.QUEUED] + counts[State.SENT] >= self._settings.upload.max_outbox_frames
        returned = store.frames(State.RETURNED)
        quantiser = Quantiser(announced.value_limit, self._settings.upload.values, bounds=self._layout.bounds)
        budget_bytes = min(filter(None, (policy.update_bytes, self._settings.upload.max_update_bytes)), default=0)
        held_bytes = peak_bytes()
        try:
            made = trainer.train(model.parameters, data, plan, rng, statistics.load())
            aim = target(
                announced.size,
                policy.density,
                self._pace,
                DensityLimits(own.max_density, budget_bytes, made.share, free_bytes),
                steady=policy.steady,
                warm_up=announced.version < policy.warm_up,
            )
            residual, idle = store.slots()
            compressed = compress(
                made.delta,
                residual,
                0 if full else aim,
                returned=[frame.decode(each.body, self._layout.tensors).update for each in returned],
                quantiser=quantiser,
                accel=own.accel,
                last_threshold=self._threshold,
                out=idle,
            )
        except (NotFinite, TrainingError) as error:
            _LOG.error("version %d was not trained: %s", announced.version, error)
            self._failed_version = announced.version
            return
        self._example_bytes = self._example_bytes or (peak_bytes() - held_bytes) / min(own.max_batch, policy.batch_size)
        origin = frame.Origin(
            announced.task,
            self._settings.device,
            bytes.fromhex(announced.layout)[:8],
            account.next_update,
            announced.version,
            made.num_examples,
        )
        encode = functools.partial(
            frame.encode_update,
            origin=origin,
            max_bytes=self._settings.upload.max_frame_bytes,
            version=frame.newest(announced.wire),
            tensors=self._layout.tensors,
            accel=own.accel,
        )
        frames = encode(compressed.update)
        entries = compressed.update.indices.size
        while (fit := within_budget(entries, sum(map(len, frames)), budget_bytes)) < entries:
            compressed = fewer(compressed, fit, quantiser)
            entries, frames = fit, encode(compressed.update) if fit else []
        token = secrets.token_hex(8)
        if self._auditor is not None:
            self._auditor.begin(token, made.delta)
        store.commit_round(
            frames,
            compressed.residual,
            token=token,
            base_version=announced.version,
            consumed=[each.id for each in returned],
        )
        if self._auditor is not None:
            self._auditor.confirm()
        self._threshold = compressed.threshold
        self._pace = learnt(
            self._pace, aim, compressed.selection.values, entries=entries, frame_bytes=sum(map(len, frames))
        )
        try:
            statistics.save(made.local)
        except OSError as error:  # a full disk: the round is committed, and training moves them again
            _LOG.warning("running statistics were not kept: %s", error)
        _LOG.info("trained version %d: %d steps, loss %.4f", announced.version, made.steps, made.loss)

    # Frames → broker

    def _send(self) -> None:
        store = self._store
        if store is None or not self._link.connected:
            return
        sent = {each.sequence: each.body for each in store.frames(State.SENT) if each.sequence is not None}
        while len(sent) < self._settings.upload.window and (id_ := store.oldest_queued()) is not None:
            stamped = store.mark_sent(id_, lambda body, epoch, seq: frame.stamp(body, epoch=epoch, sequence=seq))
            assert stamped.sequence is not None
            sent[stamped.sequence] = stamped.body
            if failpoint.sabotaged("drop") and stamped.sequence % 4 == 3:
                store.settle(applied=[stamped.sequence], refused=[])
                del sent[stamped.sequence]
        now = time.monotonic()
        try:
            for sequence in self._window.due(now=now, waiting=sent):
                for _ in range(2 if failpoint.sabotaged("double") else 1):
                    self._upload(sent[sequence])
                self._window.sent(sequence, now=now)
        except LinkDown:
            return

    def _upload(self, payload: bytes) -> None:
        self._link.publish(self._topic(topics.up), payload)
        self._presence.uploaded(len(payload))
        failpoint.hit("agent.after-publish")

    def _greet(self) -> None:
        """HELLO: the receipt that answers it settles whatever was missed."""
        if self._store is None:
            return
        account = self._store.account()
        hello = messages.Hello(account.epoch, account.next_sequence, self._store.confirmed())
        self._window.restart()
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
        temporary.write_text(json.dumps(asdict(said)))
        temporary.replace(path)
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
            "sent": counts[State.SENT],
            "returned": counts[State.RETURNED],
            "applied": account.applied,
            "refused": account.refused,
            "renewals": account.renewals,
        }

    def _topic(self, build: topics.DeviceTopic) -> str:
        return build(self._settings.task, self._settings.device)

    def _chunk_topic(self, chunk: tuple[str, int]) -> str:
        return topics.blob(self._settings.task, *chunk)
