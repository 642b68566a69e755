"""The book of devices for commands beside the aggregator: filled over MQTT, from the retained statuses on."""

import contextlib
import time
from collections.abc import Sequence
from typing import Final, Self

from broker.monitor.fleet import MAX_DEVICES, Fleet
from broker.settings import Aggregator
from edgeclient.link.mqtt import Connected, Endpoint, Link, LinkDown, Message
from edgeclient.wire.errors import WireError

# Retained messages follow the subscription at once.
_HEAR_S: Final = 1.0
_POLL_S: Final = 0.1


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


class Listener:
    """Hears what devices say of themselves as long as it is open.

    Args:
        endpoint: the MQTT broker.
        wanted: status topics to subscribe to, of one device or of all devices of a task.

    Attributes:
        fleet: the book.
        reached: whether the broker has ever let us in.

    Example: `with Listener(endpoint, [topics.everyone("har", "status")]) as listener: listener.wait(1.0)`
    """

    def __init__(self, endpoint: Endpoint, wanted: Sequence[str]) -> None:
        self.fleet = Fleet()
        self.reached = False
        self._wanted = wanted
        self._link = Link(endpoint, client_id_prefix="listens")

    def __enter__(self) -> Self:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait(self, seconds: float) -> None:
        """Take in what comes, for so long."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            for event in self._link.poll(min(left_s, _POLL_S)):
                if isinstance(event, Connected):
                    self.reached = True
                    self.fleet.connected()
                    with contextlib.suppress(LinkDown):  # gone again: the next Connected asks again
                        self._link.subscribe(*self._wanted)
                elif isinstance(event, Message):
                    self._link.acknowledge(event)
                    self.hear(event)

    def hear(self, message: Message) -> None:
        """Take in a message."""
        with contextlib.suppress(WireError):  # who may write there may write anything
            self.fleet.hear(message.topic, message.payload)

    def first(self, *, connect_s: float = 10.0, enough: int = MAX_DEVICES) -> None:
        """Wait for the retained statuses, of so many devices at most: they follow the subscription at once."""
        until_s = time.monotonic() + connect_s
        while not self.reached and time.monotonic() < until_s:
            self.wait(_POLL_S)
        until_s = time.monotonic() + _HEAR_S
        while self.reached and len(self.fleet) < enough and time.monotonic() < until_s:
            self.wait(_POLL_S)
