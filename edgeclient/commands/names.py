"""Which ids other devices of a task have: boards share host names, and two with one id are taken for one."""

import socket
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message
from edgeclient.settings import Device
from edgeclient.wire import topics

_REACH_S: Final = 2.0
_CONNECT_S: Final = 3.0
_HEAR_S: Final = 0.7  # retained statuses follow the subscription at once
_MOST: Final = 20


def candidates(name: str) -> list[str]:
    """The name and those to take in its place, in order.

    Example:
        >>> candidates("raspberrypi")[:3]
        ['raspberrypi', 'raspberrypi-2', 'raspberrypi-3']
    """
    return [name, *(f"{name[:60]}-{number}" for number in range(2, _MOST))]


def free(name: str, taken: Collection[str]) -> str:
    """The first of the candidates that nobody has.

    Example:
        >>> free("pi", {"pi", "pi-2"})
        'pi-3'
    """
    return next((each for each in candidates(name) if each not in taken), candidates(name)[-1])


def taken(settings: Device) -> set[str] | None:
    """Those of the candidates that have said something in this task; None where the MQTT broker does not tell."""
    if not _reached(settings.mqtt.host, settings.mqtt.port):
        return None
    own = {topics.status(settings.task, each): each for each in candidates(settings.device)}
    found, until_s, asked = set[str](), time.monotonic() + _CONNECT_S, False
    link = Link(Endpoint.of(settings.mqtt), client_id_prefix=f"{settings.device}-joins")
    link.start()
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(left_s, limit=1):
                if isinstance(event, Connected):
                    with suppress(LinkDown):
                        link.subscribe(*own, qos=0)
                        asked, until_s = True, time.monotonic() + _HEAR_S
                elif isinstance(event, Message) and event.payload and event.topic in own:
                    found.add(own[event.topic])
                elif isinstance(event, Disconnected):
                    return None
        return found if asked else None
    finally:
        link.stop()


def _reached(host: str, port: int) -> bool:
    """Whether somebody listens there; a resolver that hangs is left alone."""
    answers: list[bool] = []

    def ask() -> None:
        with suppress(OSError, UnicodeError):
            socket.create_connection((host, port), timeout=_REACH_S).close()
            answers.append(True)

    asking = threading.Thread(target=ask, daemon=True, name="join asks")
    asking.start()
    asking.join(_REACH_S)
    return bool(answers)
