"""From an MQTT message on `up` to what a device said."""

from dataclasses import dataclass
from typing import TypeAlias

from edgeclient.wire import frame, messages, topics
from edgeclient.wire.errors import WireError


@dataclass(frozen=True, slots=True, eq=False)
class FrameIn:
    """A frame as it came, with its decoded form."""

    task: str
    device: str
    body: bytes
    frame: frame.Frame


@dataclass(frozen=True, slots=True)
class HelloIn:
    """A device has connected."""

    task: str
    device: str
    hello: messages.Hello


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that are no message of ours: counted per device and dropped. `device` is "" when unknown."""

    device: str
    reason: str
    detail: str


Incoming: TypeAlias = FrameIn | HelloIn | Rejected


def decode(topic: str, payload: bytes) -> Incoming:
    """What the message says; never raises, whatever the bytes."""
    device = ""
    try:
        parsed = topics.parse(topic)
        if parsed.kind != "up":
            return Rejected(device, "topic", f"{topic[:120]!r} is not an upload")
        (device,) = parsed.rest
        if messages.kind(payload) == messages.HELLO:
            return HelloIn(parsed.task, device, messages.decode_hello(payload))
        return FrameIn(parsed.task, device, payload, frame.decode(payload))
    except WireError as error:
        return Rejected(device, error.reason, error.detail)
