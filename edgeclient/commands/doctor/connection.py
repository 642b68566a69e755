"""What a device meets on its MQTT broker, tried end to end: announcement, HELLO and the receipt that answers it."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from edgeclient.link import limits
from edgeclient.link.events import Connected, Disconnected, LinkDown, Message, SubscriptionRefused
from edgeclient.link.limits import Answer
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.settings import Device
from edgeclient.wire import messages, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.messages import NOBODY, Hello

_CONNECT_S: Final = 4.0
# A retained announcement follows the subscription at once, and an aggregator at work answers within a second.
_ANNOUNCED_S: Final = 2.0
_ANSWERED_S: Final = 4.0


@dataclass(slots=True)
class Heard:
    """What came of it.

    Attributes:
        accepted: the broker has let us in.
        why: it has not, or has thrown us out.
        head: the task's announcement.
        others: tasks that are announced.
        refused: topics that we may not read.
        answer_s: how long the receipt took; None for none.
        told: what a broker that speaks MQTT 5 says about itself and about the HELLO.
    """

    accepted: bool = False
    why: str = ""
    head: bytes | None = None
    others: set[str] = field(default_factory=set)
    refused: tuple[str, ...] = ()
    answer_s: float | None = None
    told: Answer | None = None


def heard(settings: Device) -> Heard:
    """Connect beside a device that may be running, say HELLO of a store that nobody has, and wait for the answer.

    Raises:
        ConfigError: a certificate or the password file is no good.
    """
    endpoint, found = Endpoint.of(settings.mqtt), Heard()
    link = Link(endpoint, client_id_prefix=f"{settings.device}-doctor")
    up, down = topics.up(settings.task, settings.device), topics.down(settings.task, settings.device)
    hello = messages.encode_hello(Hello(NOBODY, 0, 0))
    until_s, said_s = time.monotonic() + _CONNECT_S, 0.0
    link.start()
    try:
        while not found.why and found.answer_s is None and (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(left_s, limit=1):
                match event:
                    case Connected():
                        found.accepted, until_s = True, time.monotonic() + _ANNOUNCED_S
                        with suppress(LinkDown):  # Disconnected follows
                            link.subscribe(topics.head(settings.task), down)
                            link.subscribe(topics.heads(), qos=0)
                    case Disconnected(why):
                        found.why = why
                    case SubscriptionRefused(refused):
                        found.refused += refused
                    case Message() as message:
                        link.acknowledge(message)
                        if message.topic == down:
                            found.answer_s = _answered_s(message, said_s)
                            continue
                        if message.topic == topics.head(settings.task) and found.head is None:
                            found.head, said_s = message.payload, time.monotonic()
                            until_s = said_s + _ANSWERED_S
                            with suppress(LinkDown):
                                link.publish(up, hello)
                        with suppress(WireError):
                            found.others.add(topics.parse(message.topic).task)
    finally:
        link.stop()
    if found.accepted:
        wrong = found.head is not None and found.answer_s is None
        found.told = limits.asked(
            endpoint, f"{endpoint.client_id or settings.device}-asks", (up, hello) if wrong else None
        )
    return found


def _answered_s(message: Message, said_s: float) -> float | None:
    with suppress(WireError):
        if messages.decode_receipt(message.payload).epoch == NOBODY:
            return time.monotonic() - said_s
    return None
