"""What a device meets where it joins: the task, and ids of others: boards share host names, two with one id are one."""

import socket
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from edgeclient.link import refusal
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message
from edgeclient.settings import Device
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError

_REACH_S: Final = 2.0
_CONNECT_S: Final = 3.0
_HEAR_S: Final = 0.7  # what is retained follows the subscription at once
_ANNOUNCED_S: Final = 2.0  # before nobody is said to announce the task
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


@dataclass(slots=True)
class Met:
    """What came of asking.

    Attributes:
        taken: those of the candidates that have said something in this task.
        tasks: that are announced.
        why: the MQTT broker does not tell; "" when it does.
    """

    taken: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)
    why: str = ""


def met(settings: Device) -> Met:
    """Ask the MQTT broker, for a few seconds at most."""
    if why := _unreached(settings.mqtt.host, settings.mqtt.port):
        return Met(why=why)
    endpoint = Endpoint.of(settings.mqtt)
    own = {topics.status(settings.task, each): each for each in candidates(settings.device)}
    found, until_s = Met(why=f"{endpoint.where} answers, but not as an MQTT broker"), time.monotonic() + _CONNECT_S
    link = Link(endpoint, client_id_prefix=f"{settings.device}-joins")
    link.start()
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(left_s, limit=1):
                if isinstance(event, Connected):
                    with suppress(LinkDown):
                        link.subscribe(*own, topics.heads(), qos=0)
                        found.why, until_s = "", time.monotonic() + _ANNOUNCED_S
                elif isinstance(event, Message) and event.payload and event.topic in own:
                    found.taken.add(own[event.topic])
                elif isinstance(event, Message) and event.payload:
                    with suppress(WireError):
                        found.tasks.add(topics.parse(event.topic).task)
                    if settings.task in found.tasks:
                        until_s = min(until_s, time.monotonic() + _HEAR_S)
                elif isinstance(event, Disconnected):
                    found.why = event.why or f"{endpoint.where} hung up"
                    return found
        return found
    finally:
        link.stop()


def _unreached(host: str, port: int) -> str:
    """Why nobody can be asked there, "" where somebody listens; a resolver that hangs is left alone."""
    where = Endpoint(host, port).where
    answers: list[str] = []

    def ask() -> None:
        try:
            socket.create_connection((host, port), timeout=_REACH_S).close()
            answers.append("")
        except (OSError, UnicodeError) as error:
            answers.append(refusal.of_error(error, where).text)

    asking = threading.Thread(target=ask, daemon=True, name="join asks")
    asking.start()
    asking.join(_REACH_S + 0.5)
    return answers[0] if answers else refusal.of_error(TimeoutError(), where).text
