"""Device → people: its status in a file and retained on the broker, its sensors in Home Assistant, and log lines."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgeclient.link.mqtt import Link, LinkDown, Message
from edgeclient.presence.home_assistant import discovery
from edgeclient.presence.session import Session
from edgeclient.settings import Device
from edgeclient.wire import status, topics
from edgeclient.wire.life import Outbox, State
from edgeclient.wire.status import OFFLINE, Status

_LOG = logging.getLogger(__name__)
STATUS_FILE: Final = "status.json"
# A broker gives a connection up after one and a half keepalives; only until then can an earlier life's will come.
_WILLS: Final = 1.5
_WILLS_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a device stands at one moment, as far as others know it.

    Attributes:
        doing: what it does or waits for, one of wire.status.DOINGS.
        note: the same in plain words.
        forbidden: conditions or the owner forbid what there is to do.
        done: the version that the broker announces was trained on, and every frame is settled.
        version: of the active model; None before the first.
        outbox: what is held; None before there is a model.
        residual_norm: of what is not sent yet, after the last round.
        own: what the owner alone is told, for status.json: what that round gained, what is odd about the data.
        health: fields of Status that change all the time.
        starts: fields of Status about the starts before, and whom it follows.
        progress: how far a model is that is being fetched, in words.
    """

    doing: str
    note: str
    forbidden: bool
    done: bool
    version: int | None = None
    outbox: Outbox | None = None
    residual_norm: float | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    health: Mapping[str, Any] = field(default_factory=dict)
    starts: Mapping[str, Any] = field(default_factory=dict)
    progress: str = ""


class Teller:
    """Tells how the device is.

    Args:
        settings: the device's configuration.
        link: the connection.
        session: what was told before, and when.
        standing: asked how things stand.
    """

    def __init__(self, settings: Device, link: Link, session: Session, standing: Callable[[], Standing]) -> None:
        self._settings = settings
        self._link = link
        self._session = session
        self._standing = standing
        self._waits_for = ""  # as last logged
        self._own = topics.status(settings.task, settings.device)
        self._listens_until_s = math.inf  # to what others say in its name
        self._connection = 0  # that was told
        self._unwritten = False

    def introduce(self) -> None:
        """At every connection, since a broker may have forgotten: the status, and Home Assistant's sensors."""
        self._session.again()
        self._connection = self._link.connection
        self._listens_until_s = time.monotonic() + _WILLS * self._settings.mqtt.keepalive_s + _WILLS_S
        with suppress(LinkDown):
            self._link.subscribe(self._own, qos=0)
        if (wanted := self._settings.home_assistant) is not None:
            with suppress(LinkDown):
                task, device, below = self._settings.task, self._settings.device, self._settings.mqtt.prefix
                for topic, config in discovery(wanted.discovery_prefix, task, device, below):
                    self._link.publish(topic, config, retain=True)

    def heard(self, message: Message) -> None:
        """Its own status, by another's word: the late will of an earlier life is no news, and is contradicted.

        Raises:
            WireError: it is no status.
        """
        if not message.retained and message.payload and status.decode(message.payload).state == OFFLINE:
            self._session.again()

    def report(self, *, now: bool = False) -> None:
        """Tell how things stand, if there is something to tell or it has to be `now`.

        A line in the log says when what it waits for changes.
        """
        if now or self._connection != self._link.connection:  # a round sees no events
            self._session.again()
        self._connection = self._link.connection
        if time.monotonic() > self._listens_until_s:
            self._listens_until_s = math.inf
            with suppress(LinkDown):
                self._link.unsubscribe(self._own)
        standing = self._standing()
        self._log_wait(standing)
        told = self._session.due(
            time.monotonic(), self._facts(standing), self._link.socket_bytes(), self._health(standing)
        )
        if told is not None:
            self._tell(told, standing.own)

    def goodbye(self, why: str) -> dict[str, Any]:
        """The last word of this session; how things stood: done, because, and fields of Status."""
        standing = self._standing()
        facts = self._facts(standing)
        waited = standing.progress if self._link.connected else facts["note"]
        told = self._session.goodbye(
            {**facts, "note": f"{why}{waited and ', '}{waited}"}, self._link.socket_bytes(), self._health(standing)
        )
        self._tell(told, standing.own)
        because = standing.note if standing.forbidden else ""
        return {"done": standing.done, "because": because, "progress": standing.progress, **facts}

    def _facts(self, standing: Standing) -> dict[str, Any]:
        """Fields of Status that change with what the device does."""
        note, doing = standing.note, standing.doing
        if not self._link.connected:
            doing = "training" if doing == "training" else "link"
            note = f"{'training' if doing == 'training' else 'waiting'} without a connection: {self._link.why}"
        if standing.version is None or standing.outbox is None:
            return {"note": note, "doing": doing, **standing.starts}
        account, counts = standing.outbox.account, standing.outbox.counts()
        return {
            "note": note,
            "doing": doing,
            "residual_norm": standing.residual_norm,
            "holdout_change": _change(standing.own.get("gain")),
            "version": standing.version,
            "rounds": account.rounds,
            "queued": counts[State.QUEUED],
            "sent": counts[State.SENT] + counts[State.WITHDRAWING],
            "returned": counts[State.RETURNED],
            "applied": account.applied,
            "refused": account.refused,
            "renewals": account.renewals,
            **standing.starts,
        }

    def _health(self, standing: Standing) -> dict[str, Any]:
        """Fields of Status that change all the time."""
        now_s = time.time()
        return {
            "time_s": int(now_s),
            "oldest_s": int(standing.outbox.age_s(now_s)) if standing.outbox else 0,
            **standing.health,
        }

    def _log_wait(self, standing: Standing) -> None:
        """One line when what it waits for changes: who looks on would take it for hung."""
        if not self._link.connected:
            return  # the link's own lines say so
        waits_for = standing.doing if standing.forbidden else ""
        if waits_for and waits_for != self._waits_for:
            _LOG.info("waiting: %s", standing.note)
        self._waits_for = waits_for

    def _tell(self, told: Status, own: Mapping[str, Any]) -> None:
        """Into status.json for `edgeclient status`, and retained on the broker for everybody."""
        # Not synced: it wears the card, and after a power cut nobody misses the last second.
        path = self._settings.directory / STATUS_FILE
        try:
            text = json.dumps({**asdict(told), **own})
            path.with_suffix(".new").write_text(text, encoding="utf-8")
            path.with_suffix(".new").replace(path)
            self._unwritten = False
        except OSError as error:
            if not self._unwritten:
                _LOG.warning("%s cannot be written: %s", path, error.strerror)
            self._unwritten = True
        with suppress(LinkDown):
            self._link.publish(self._own, status.encode(told), retain=True)


def _change(gain: Mapping[str, float] | None) -> float | None:
    """What others learn of a round's gain: neither a loss nor how many examples there are."""
    if gain is None or not 0 < gain["loss_before"] < math.inf or not math.isfinite(gain["loss_after"]):
        return None
    return min(1e6, round(gain["loss_after"] / gain["loss_before"] - 1, 3))
