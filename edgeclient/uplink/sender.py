"""The device's side of the link: outbox → window → MQTT, HELLO and WITHDRAW; the agent decides when."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from edgeclient import failpoint
from edgeclient.link.events import Connected, Disconnected, Message, Reach, SubscriptionRefused
from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.logs.complaints import Complaints
from edgeclient.logs.fields import identity
from edgeclient.settings import Device
from edgeclient.uplink.outbox import Bounds, Frames, LinkQuality, overflow, superseded
from edgeclient.uplink.window import Window
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.errors import WireError
from edgeclient.wire.life import Outbox, Row, State
from edgeclient.wire.limits import MAX_WITHDRAW_LIST

_LOG = logging.getLogger(__name__)
_WITHDRAW_S: Final = 8.0  # before an unanswered WITHDRAW is said again; twice as long each time
_MAX_WITHDRAW_S: Final = 600.0
_TOLD_S: Final = 60.0  # at least, between two log lines about the same trouble of the connection
_UNANSWERED: Final = 4  # resends before somebody hears of it; a power of two, as the later ones
_LEAST_FRAME_BYTES: Final = 256
_NAMED_BYTES: Final = 12  # of a frame in WITHDRAW
_AT_ONCE: Final = 64  # events in a turn
# What was not sent although it was due may wait for hours, for conditions: nobody spins until then.
_LATE_S: Final = 0.25
_TIDY_S: Final = 5.0  # between two looks at what waits


class Sender:
    """Publishes what is held.

    Args:
        settings: the device's configuration.
        link: the connection.
        uploaded: hears of the bytes of each message, and of the time (Unix seconds).

    Attributes:
        window: which frames are under way.
        identity: fields for log lines, of an epoch and a sequence.
    """

    def __init__(self, settings: Device, link: Link, uploaded: Callable[[int, float], None]) -> None:
        self._upload = settings.upload
        self._up = topics.up(settings.task, settings.device)
        self._down = topics.down(settings.task, settings.device)
        self.identity = partial(identity, settings.task, settings.device)
        self._device = settings.device
        self._name = settings.mqtt.username or "this device"
        self._place = partial(topics.placed, prefix=settings.mqtt.prefix)
        self._complain = Complaints(_TOLD_S).tell
        self._link = link
        self._uploaded = uploaded
        self.window = Window(most=settings.upload.window, retry_after_s=settings.upload.retry_after_s)
        self._quality = LinkQuality()
        self._connection_bytes = 0
        self._despaired = 0  # unanswered resends when that was last looked at
        self._tidied_s = -math.inf
        self._withdraw_after = 0.0
        self._withdraw_s = _WITHDRAW_S

    @property
    def frame_bytes(self) -> int:
        """How large frames should be on this link: each is a packet with its topic and header."""
        packet_bytes = self._quality.frame_bytes(self._upload.max_frame_bytes)
        return max(_LEAST_FRAME_BYTES, self._link.room(self._up, packet_bytes))

    @property
    def room(self) -> int:
        """How large a frame may be, for the MQTT broker."""
        return self._link.room(self._up)

    @property
    def reach(self) -> Reach:
        """How far messages get."""
        # No frame is smaller than the least: one that is over the room would be cut anew for ever.
        return Reach(self._link.connected, max(_LEAST_FRAME_BYTES, self.room), self._unanswered)

    @property
    def _unanswered(self) -> str:
        if self.window.unanswered < _UNANSWERED:
            return ""
        return (
            f"sent {self.window.unanswered + 1} times without a receipt: does edgebroker serve run, and do the broker's"
            f" access rules let {self._name} write {self._place(self._up)}?"
        )

    def events(self, wait_s: float) -> Iterator[Connected | Message]:
        """What happens on the link; waits for it at most so long, and not beyond what may be due again.

        One at a time: when the disk is full, those behind the one that did not fit stay where they are.
        """
        resend_s = self.window.next_s() if self._link.connected else None
        wait_s = wait_s if resend_s is None else min(wait_s, max(_LATE_S, resend_s - time.monotonic()))
        for _ in range(_AT_ONCE):
            if not (events := self._link.poll(wait_s, limit=1)):
                return
            wait_s = 0.0
            match events[0]:
                case Disconnected(why):
                    self._complain("no connection", why, why)
                    if self._connection_bytes:
                        self._quality = self._quality.broken(self._connection_bytes)
                        self._connection_bytes = 0
                case SubscriptionRefused(refused):
                    if not (what := ", ".join(set(refused) - {self._place(topics.heads())})):
                        continue
                    told = f"the broker refuses a subscription to {what}: check its access rules"
                    self._complain(self._device, what, told)
                case event:
                    yield event

    def connected(self) -> None:
        """Ask a new connection for what is said to this device alone."""
        with suppress(LinkDown):
            self._link.subscribe(self._down)

    @contextmanager
    def taking(self, message: Message) -> Iterator[None]:
        """Around what is made of a message: acknowledged whatever comes of it, in the log if it is none of ours."""
        try:
            yield
        except WireError as error:
            _LOG.warning("refused what came on %s: %s", message.topic, error)
        finally:  # what was not kept is asked for again; brokers stop at 20 without an acknowledgement
            self._link.acknowledge(message)

    def greet(self, outbox: Outbox) -> None:
        """Say HELLO."""
        account = outbox.account
        hello = messages.Hello(account.epoch, account.next_sequence, outbox.confirmed, account.ledger)
        self.window.restart(now=time.monotonic())
        self._ask_again()
        with suppress(LinkDown):
            self._publish(messages.encode_hello(hello))

    def due(self, frames: Frames, announced: Announcement) -> list[Row]:
        """What may go out now, in order, after what is superseded was taken back; see `send`."""
        self._tidy(frames, announced)
        if not self._link.connected:
            return []
        self.withdraw(frames)
        self._despair()
        outbox, room = frames.outbox(), self.room
        sent = {sequence: row for sequence, row in outbox.numbered.items() if row.state is State.SENT}
        again = self.window.due(now=time.monotonic(), waiting=[key for key, row in sent.items() if row.size <= room])
        if self.window.held(now=time.monotonic()):
            return []
        fresh = [row for row in outbox.of(State.QUEUED) if row.size <= room]
        return [sent[sequence] for sequence in again] + fresh[: max(0, self.window.size - len(sent))]

    def send(self, frames: Frames, rows: Sequence[Row]) -> None:
        """Publish these frames, which are due; those without a sequence get theirs first."""
        ids = {row.id for row in rows}
        fresh = [row.id for row in rows if row.state is State.QUEUED]
        if fresh:
            frames.mark_sent(fresh)
            if failpoint.sabotaged("drop"):
                given = [sequence for sequence, row in frames.outbox().numbered.items() if row.id in fresh]
                frames.settle(applied=[sequence for sequence in given if sequence % 4 == 3])
        outbox, now = frames.outbox(), time.monotonic()
        epoch = outbox.account.epoch
        with suppress(LinkDown):
            for sequence, row in outbox.numbered.items():
                if row.id in ids:
                    for _ in range(2 if failpoint.sabotaged("double") else 1):
                        self._publish(frame.stamp(frames.body(row.id), epoch=epoch, sequence=sequence))
                    self.window.sent(sequence, now=now)
                    _LOG.debug("frame %d sent", sequence, extra=self.identity(epoch, sequence))

    def withdraw(self, frames: Frames) -> None:
        """Ask for what is being withdrawn, unless that was asked a moment ago."""
        now = time.monotonic()
        if now < self._withdraw_after:
            return
        outbox = frames.outbox()
        epoch = outbox.account.epoch
        asked = sorted(
            (sequence, row.id) for sequence, row in outbox.numbered.items() if row.state is State.WITHDRAWING
        )
        self._withdraw_after = now + self._withdraw_s
        self._withdraw_s = min(2 * self._withdraw_s, _MAX_WITHDRAW_S) if asked else _WITHDRAW_S
        with suppress(LinkDown):
            at_once = max(1, min(MAX_WITHDRAW_LIST, self.room // _NAMED_BYTES - 2))
            for at in range(0, len(asked), at_once):
                named = tuple(
                    (sequence, frame.digest(frame.stamp(frames.body(id_), epoch=epoch, sequence=sequence)))
                    for sequence, id_ in asked[at : at + at_once]
                )
                self._publish(messages.encode_withdraw(messages.Withdraw(epoch, named, outbox.account.ledger)))

    def _tidy(self, frames: Frames, announced: Announcement) -> None:
        """Now and then, take back what is superseded, too old or too much."""
        if time.monotonic() - self._tidied_s < _TIDY_S:
            return
        self._tidied_s = time.monotonic()
        kept = frames.outbox().of(State.QUEUED, State.SENT)
        bounds = Bounds(self._upload.max_outbox_bytes, self._upload.max_outbox_age_s)
        gone = overflow(kept, bounds, now_s=time.time())
        idle = [row for row in kept if row.state is State.SENT and not self.window.carries(row.sequence)]
        gone += [row.id for row in kept if row.size > self.room and row.id not in gone]
        gone += superseded(idle, version=announced.version, max_staleness=announced.policy.max_staleness)
        if gone:
            _LOG.info("taking back %d frames of %d that wait: their entries join the next round", len(gone), len(kept))
            frames.withdraw(gone)
            self._ask_again()

    def _despair(self) -> None:
        """Nothing is answered: say so, and try a new connection, after ever more resends."""
        times = self.window.unanswered
        if times >= _UNANSWERED and times & (times - 1) == 0 and times != self._despaired:
            self._complain(self._device, "unanswered", self._unanswered)
            self._link.reconnect("no receipt comes through it: a new connection is tried")
        self._despaired = times

    def _ask_again(self) -> None:
        self._withdraw_after, self._withdraw_s = 0.0, _WITHDRAW_S

    def _publish(self, payload: bytes) -> None:
        self._link.publish(self._up, payload)
        self._uploaded(len(payload), time.time())
        self._connection_bytes += len(payload)
        failpoint.hit("agent.after-publish")
