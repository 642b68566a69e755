"""What the MQTT broker keeps: retained messages, asked for once."""

import time
from collections.abc import Sequence
from typing import Final

from broker.settings import Aggregator
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message

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
