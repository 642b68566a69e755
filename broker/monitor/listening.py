"""What the MQTT broker keeps: retained messages, asked for once, and what devices say from then on."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from broker.monitor.presence import MAX_DEVICES
from broker.settings import Aggregator
from edgeclient.link.mqtt import Connected, Endpoint, Link, LinkDown, Message
from edgeclient.wire import status, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.status import Status

_CONNECT_S: Final = 10.0
# Retained messages follow the subscription at once.
_HEAR_S: Final = 1.0


def endpoint_of(settings: Aggregator) -> Endpoint:
    """The broker of the aggregator, as a command beside it reaches it.

    Example:
        >>> from pathlib import Path
        >>> from broker.settings import Embedded
        >>> endpoint_of(Aggregator(Path("data"), embedded=Embedded("0.0.0.0", 1999))).url
        'mqtt://127.0.0.1:1999'
    """
    if settings.embedded is not None:
        return Endpoint(settings.embedded.reached_at, settings.embedded.port)
    assert settings.mqtt is not None
    return Endpoint.of(settings.mqtt)


def retained(endpoint: Endpoint, wanted: Sequence[str], *, connect_s: float = _CONNECT_S) -> list[Message] | None:
    """The retained messages on topics without wildcards; None when the broker cannot be reached in `connect_s`."""
    found: dict[str, Message] = {}
    subscribed = False
    link = Link(endpoint, client_id_prefix="asks")
    link.start()
    until_s = time.monotonic() + connect_s
    try:
        while len(found) < len(wanted) and (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(min(left_s, 0.1)):
                if isinstance(event, Connected):
                    link.subscribe(*wanted)
                    subscribed, until_s = True, time.monotonic() + _HEAR_S
                elif isinstance(event, Message):
                    link.acknowledge(event)
                    found[event.topic] = event
    finally:
        link.stop()
    return list(found.values()) if subscribed else None


class Listening:
    """Hears the statuses of all devices, from the retained ones on, as long as it is open.

    Args:
        endpoint: the MQTT broker.
        tasks: whose devices.

    Attributes:
        said: the last status of each device, by task; of MAX_DEVICES at most.
        reached: whether the broker has ever let us in.

    Example: `with Listening(endpoint, ["har"]) as heard: heard.wait(1.0)`
    """

    def __init__(self, endpoint: Endpoint, tasks: Sequence[str]) -> None:
        self.said: dict[str, dict[str, Status]] = {name: {} for name in tasks}
        self.reached = False
        self._link = Link(endpoint, client_id_prefix="listens")

    def __enter__(self) -> Self:
        self._link.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.stop()

    def wait(self, seconds: float) -> None:
        """Take in what comes, for so long."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            for event in self._link.poll(min(left_s, 0.1)):
                if isinstance(event, Connected):
                    self.reached = True
                    with contextlib.suppress(LinkDown):  # gone again: the next Connected asks again
                        self._link.subscribe(*(topics.everyone(name, "status") for name in self.said))
                elif isinstance(event, Message):
                    self._link.acknowledge(event)
                    self._hear(event)

    def first(self, connect_s: float = _CONNECT_S) -> None:
        """Wait for the retained statuses: they follow the subscription at once."""
        until_s = time.monotonic() + connect_s
        while not self.reached and time.monotonic() < until_s:
            self.wait(0.1)
        if self.reached:
            self.wait(_HEAR_S)

    def _hear(self, message: Message) -> None:
        try:
            topic = topics.parse(message.topic)
            told = status.decode(message.payload) if message.payload else None
        except WireError:
            return  # who may write there may write anything
        known = self.said.get(topic.task)
        if topic.kind == "status" and known is not None:
            (device,) = topic.rest
            if told is None:
                known.pop(device, None)  # it has left
            elif device in known:
                known[device] = merged(known[device], told)
            elif len(known) < MAX_DEVICES:
                known[device] = told


def merged(known: Status, told: Status) -> Status:
    """A last will carries no counters: then all but the state is what the same session said; a late one says nothing.

    Example:
        >>> merged(Status("online", "a", battery_percent=9, socket_sent=7), Status("offline", "a")).battery_percent
        9
        >>> merged(Status("online", "b"), Status("offline", "a")).state
        'online'
    """
    if told.state == status.OFFLINE and told.session != known.session:
        return known
    if told.session == known.session and told.socket_sent < known.socket_sent:
        return replace(known, state=told.state, note=told.note)
    return told
