"""What a connection tells: values, in the order in which they happened."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection breaks."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker has accepted us; connections count from 1. Subscriptions are the caller's to make again."""

    connection: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone or was refused; it comes back by itself."""

    why: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a subscription, to be acknowledged once it is processed."""

    topic: str
    payload: bytes
    retained: bool
    connection: int
    mid: int
    qos: int


@dataclass(frozen=True, slots=True)
class SubscriptionRefused:
    """The broker does not grant one of these topics."""

    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far messages get now.

    Attributes:
        up: the broker is connected.
        room: bytes that it takes in one frame.
        unanswered: what is likely when the other end answers nothing; "" while it does, or that may be chance.
    """

    up: bool = True
    room: int = 1 << 30
    unanswered: str = ""


Event: TypeAlias = Connected | Disconnected | Message | SubscriptionRefused


class LinkDown(Exception):
    """There is no connection: wait for Connected."""
