"""Device → people: its status in a file and retained on the broker, its sensors in Home Assistant, and log lines."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.presence.home_assistant import discovery
from edgeclient.presence.session import Session
from edgeclient.settings import Device
from edgeclient.wire import status, topics
from edgeclient.wire.life import Outbox, State
from edgeclient.wire.status import Status

_LOG = logging.getLogger(__name__)
STATUS_FILE: Final = "status.json"


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
        battery_percent: see Status.
        temperature_c: see Status.
    """

    doing: str
    note: str
    forbidden: bool
    done: bool
    version: int | None = None
    outbox: Outbox | None = None
    residual_norm: float | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    battery_percent: int | None = None
    temperature_c: float | None = None


class Teller:
    """Tells how the device is.

    Args:
        settings: the device's configuration.
        link: the connection.
        session: what was told before, and when.
    """

    def __init__(self, settings: Device, link: Link, session: Session) -> None:
        self._settings = settings
        self._link = link
        self._session = session
        self._waits_for = ""  # as last logged

    def introduce(self) -> None:
        """At every connection, since a broker may have forgotten: the status, and Home Assistant's sensors."""
        self._session.again()
        if (wanted := self._settings.home_assistant) is not None:
            with suppress(LinkDown):
                for topic, config in discovery(wanted.discovery_prefix, self._settings.task, self._settings.device):
                    self._link.publish(topic, config, retain=True)

    def report(self, standing: Standing, *, now: bool = False) -> None:
        """Tell how things stand, if there is something to tell or it has to be `now`.

        A line in the log says when what it waits for changes.
        """
        if now:
            self._session.again()
        self._log_wait(standing)
        told = self._session.due(
            time.monotonic(), self._facts(standing), self._link.socket_bytes(), self._health(standing)
        )
        if told is not None:
            self._tell(told, standing.own)

    def goodbye(self, standing: Standing, why: str) -> dict[str, Any]:
        """The last word of this session; how things stood: done, because, and fields of Status."""
        facts = self._facts(standing)
        told = self._session.goodbye({**facts, "note": why}, self._link.socket_bytes(), self._health(standing))
        self._tell(told, standing.own)
        return {"done": standing.done, "because": standing.note if standing.forbidden else "", **facts}

    def _facts(self, standing: Standing) -> dict[str, Any]:
        """Fields of Status that change with what the device does."""
        note, doing = standing.note, standing.doing
        if not self._link.connected:
            doing = "training" if doing == "training" else "link"
            note = f"{'training' if doing == 'training' else 'waiting'} without a connection: {self._link.why}"
        if standing.version is None or standing.outbox is None:
            return {"note": note, "doing": doing}
        account, counts = standing.outbox.account, standing.outbox.counts()
        return {
            "note": note,
            "doing": doing,
            "residual_norm": standing.residual_norm,
            "version": standing.version,
            "rounds": account.rounds,
            "queued": counts[State.QUEUED],
            "sent": counts[State.SENT] + counts[State.WITHDRAWING],
            "returned": counts[State.RETURNED],
            "applied": account.applied,
            "refused": account.refused,
            "renewals": account.renewals,
        }

    def _health(self, standing: Standing) -> dict[str, Any]:
        """Fields of Status that change all the time."""
        now_s = time.time()
        return {
            "time_s": int(now_s),
            "oldest_s": int(standing.outbox.age_s(now_s)) if standing.outbox else 0,
            "battery_percent": standing.battery_percent,
            "temperature_c": standing.temperature_c,
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
        except OSError as error:
            _LOG.warning("%s cannot be written: %s", path, error)
        with suppress(LinkDown):
            topic = topics.status(self._settings.task, self._settings.device)
            self._link.publish(topic, status.encode(told), retain=True)
