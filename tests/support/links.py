"""Links that are connected or say what a test wants, what they hear next, and ports."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from edgeclient.link.events import Event
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, Message, SubscriptionRefused

Kind = TypeVar("Kind", Connected, Disconnected, Message, SubscriptionRefused)


class Script:
    """Gives out events, and keeps what was done with it."""

    connected = True
    connection = 1
    pending = 0

    def __init__(self, *events: Event, passed_bytes: int = 0) -> None:
        self.events = list(events)
        self.passed_bytes = passed_bytes
        self.acknowledged: list[Message] = []
        self.subscribed: list[str] = []
        self.published: list[tuple[str, bytes]] = []

    def poll(self, _wait_s: float, limit: int = 64) -> list[Event]:
        given, self.events = self.events[:limit], self.events[limit:]
        return given

    def acknowledge(self, message: Message) -> None:
        self.acknowledged.append(message)

    def subscribe(self, *names: str, **_: int) -> None:
        self.subscribed += names

    def unsubscribe(self, *names: str) -> None: ...

    def publish(self, topic: str, payload: bytes, **_: bool) -> None:
        self.published.append((topic, payload))

    def room(self, _topic: str, packet_bytes: int = 1_000_000) -> int:
        return packet_bytes

    def reconnect(self, why: str) -> None: ...

    def wake(self) -> None: ...

    def socket_bytes(self) -> tuple[int, int]:
        return self.passed_bytes, 0


@contextmanager
def started(endpoint: Endpoint) -> Iterator[Link]:
    link = Link(endpoint, client_id_prefix="test")
    link.start()
    try:
        yield link
    finally:
        link.stop()


@contextmanager
def connected(endpoint: Endpoint) -> Iterator[Link]:
    with started(endpoint) as link:
        assert expect(link, Connected) == Connected(1)
        yield link


def wait_for(link: Link, kind: type[Kind]) -> Kind:
    """The next event of this kind; others before it are dropped."""
    for event in _heard(link):
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


def expect(link: Link, kind: type[Kind]) -> Kind:
    """The next event, which must be of this kind."""
    for event in _heard(link):
        assert isinstance(event, kind), event
        return event
    raise AssertionError(f"no {kind.__name__}")


def _heard(link: Link) -> Iterator[Event]:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        yield from link.poll(0.5, limit=1)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
