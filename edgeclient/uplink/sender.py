"""The device's sending side: outbox → window → MQTT, HELLO and WITHDRAW; the agent decides when."""

import logging
import time
from functools import partial
from typing import Final

from edgeclient import failpoint, logs
from edgeclient.durable.rows import Row, State
from edgeclient.durable.store import Store
from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.presence.session import Presence
from edgeclient.settings import Device
from edgeclient.uplink.outbox import Bounds, LinkQuality, overflow, superseded
from edgeclient.uplink.window import Window
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.limits import MAX_WITHDRAW_LIST

_LOG = logging.getLogger(__name__)
_WITHDRAW_S: Final = 8.0  # before an unanswered WITHDRAW is said again; twice as long each time
_MAX_WITHDRAW_S: Final = 600.0


class Sender:
    """Publishes what a store holds.

    Args:
        settings: the device's configuration.
        link: the connection.
        presence: counts what is uploaded.

    Attributes:
        window: which frames are under way.
        identity: fields for log lines, of an epoch and a sequence.
    """

    def __init__(self, settings: Device, link: Link, presence: Presence) -> None:
        self._upload = settings.upload
        self._topic = topics.up(settings.task, settings.device)
        self.identity = partial(logs.identity, settings.task, settings.device)
        self._link = link
        self._presence = presence
        self.window = Window(most=settings.upload.window, retry_after_s=settings.upload.retry_after_s)
        self._quality = LinkQuality()
        self._connection_bytes = 0
        self._withdraw_after = 0.0
        self._withdraw_s = _WITHDRAW_S

    @property
    def frame_bytes(self) -> int:
        """How large frames should be on this link."""
        return self._quality.frame_bytes(self._upload.max_frame_bytes)

    def connected(self) -> None:
        """A new connection begins."""
        self._connection_bytes = 0

    def disconnected(self) -> None:
        """It broke."""
        if self._connection_bytes:
            self._quality = self._quality.broken(self._connection_bytes)
            self._connection_bytes = 0

    def greet(self, store: Store) -> None:
        """HELLO: the receipt that answers it settles whatever was missed."""
        account = store.account()
        hello = messages.Hello(account.epoch, account.next_sequence, store.confirmed())
        self.window.restart(now=time.monotonic())
        self._withdraw_after, self._withdraw_s = 0.0, _WITHDRAW_S
        try:
            self._publish(messages.encode_hello(hello))
        except LinkDown:
            return

    def due(self, store: Store) -> list[Row]:
        """Frames that the window would let out now, in order; those without a sequence get theirs when they go."""
        rows = store.outbox()
        sent = {row.sequence: row for row in rows if row.state is State.SENT and row.sequence is not None}
        again = self.window.due(now=time.monotonic(), waiting=list(sent))
        if self.window.held(now=time.monotonic()):
            return []
        queued = [row for row in rows if row.state is State.QUEUED]
        return [sent[sequence] for sequence in again] + queued[: max(0, self.window.size - len(sent))]

    def send(self, store: Store, rows: list[Row]) -> None:
        """Publish these frames, which are due."""
        fresh = [row.id for row in rows if row.state is State.QUEUED]
        if fresh:
            store.mark_sent(fresh)
            if failpoint.sabotaged("drop"):
                given = [row.sequence for row in store.outbox() if row.id in fresh and row.sequence is not None]
                store.settle(applied=[sequence for sequence in given if sequence % 4 == 3])
        ids = {row.id for row in rows}
        now, epoch = time.monotonic(), store.account().epoch
        try:
            for row in store.outbox():
                if row.id in ids and row.sequence is not None:
                    for _ in range(2 if failpoint.sabotaged("double") else 1):
                        self._publish(frame.stamp(store.body(row.id), epoch=epoch, sequence=row.sequence))
                    self.window.sent(row.sequence, now=now)
                    _LOG.debug("frame %d sent", row.sequence, extra=self.identity(epoch, row.sequence))
        except LinkDown:
            return

    def withdraw(self, store: Store) -> None:
        """Ask for what is being withdrawn, unless that was asked a moment ago."""
        now = time.monotonic()
        if now < self._withdraw_after:
            return
        rows = [row for row in store.outbox() if row.state is State.WITHDRAWING]
        self._withdraw_after = now + self._withdraw_s
        self._withdraw_s = min(2 * self._withdraw_s, _MAX_WITHDRAW_S) if rows else _WITHDRAW_S
        epoch = store.account().epoch
        asked = sorted((row.sequence, row.id) for row in rows if row.sequence is not None)
        try:
            for at in range(0, len(asked), MAX_WITHDRAW_LIST):
                frames = tuple(
                    (sequence, frame.digest(frame.stamp(store.body(id_), epoch=epoch, sequence=sequence)))
                    for sequence, id_ in asked[at : at + MAX_WITHDRAW_LIST]
                )
                self._publish(messages.encode_withdraw(messages.Withdraw(epoch, frames)))
        except LinkDown:
            return

    def tidy(self, store: Store, announced: Announcement) -> None:
        """Take back what is superseded, too old or too much."""
        kept = [row for row in store.outbox() if row.state in {State.QUEUED, State.SENT}]
        bounds = Bounds(self._upload.max_outbox_bytes, self._upload.max_outbox_age_s)
        gone = overflow(kept, bounds, now_s=time.time())
        idle = [row for row in kept if row.state is State.SENT and not self.window.carries(row.sequence)]
        gone += superseded(idle, version=announced.version, max_staleness=announced.policy.max_staleness)
        if gone:
            _LOG.info("taking back %d frames of %d that wait: their entries join the next round", len(gone), len(kept))
            store.withdraw(gone)
            self._withdraw_after, self._withdraw_s = 0.0, _WITHDRAW_S

    def _publish(self, payload: bytes) -> None:
        self._link.publish(self._topic, payload)
        self._presence.uploaded(len(payload), time.time())
        self._connection_bytes += len(payload)
        failpoint.hit("agent.after-publish")
