"""What devices send, read from the bytes of their connections: how much of it are frames, and how often."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from edgeclient.wire import messages, topics
from edgeclient.wire.errors import WireError

_PUBLISH: Final = 3
_KINDS: Final = {messages.FRAME: "frame", messages.HELLO: "hello", messages.WITHDRAW: "withdraw"}


class Sent:
    """Packets and bytes by kind: frame, hello, withdraw, status, and "mqtt" for the rest.

    Attributes:
        packets: whole packets seen.
        bytes: their bytes, all of MQTT included; what a connection leaves unfinished is in none.
        payload_bytes: of messages on `up`, as `up_bytes` of a device's status counts them.

    Example:
        >>> sent = Sent()
        >>> hear = sent.connection()
        >>> hear(bytes([0xC0])), hear(bytes([0x00, 0xC0]))  # PINGREQ, and half of the next
        (None, None)
        >>> sent.bytes
        Counter({'mqtt': 2})
    """

    def __init__(self) -> None:
        self.packets: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.payload_bytes = 0

    def connection(self) -> Callable[[bytes], None]:
        """Begin a connection; call the result with its bytes as they come."""
        buffer = bytearray()

        def hear(chunk: bytes) -> None:
            buffer.extend(chunk)
            while (packet := _packet(buffer)) is not None:
                start, end = packet
                self._take(buffer[0], bytes(buffer[start:end]), end)
                del buffer[:end]

        return hear

    def _take(self, first: int, body: bytes, size: int) -> None:
        kind = "mqtt"
        if first >> 4 == _PUBLISH:
            length = 2 + int.from_bytes(body[:2], "big")
            payload = body[length + (2 if first & 6 else 0) :]
            kind = _kind(body[2:length], payload)
            if kind in _KINDS.values():
                self.payload_bytes += len(payload)
        self.packets[kind] += 1
        self.bytes[kind] += size


def _packet(buffer: bytearray) -> tuple[int, int] | None:
    """Where the first packet's body begins and ends; None while it is not complete."""
    length = 0
    for i, byte in enumerate(buffer[1:5]):
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            end = 2 + i + length
            return (2 + i, end) if end <= len(buffer) else None
    return None


def _kind(topic: bytes, payload: bytes) -> str:
    try:
        kind = topics.parse(topic.decode()).kind
    except (UnicodeDecodeError, WireError):
        return "mqtt"
    if kind == "up" and len(payload) >= messages.PREFIX_BYTES:
        return _KINDS.get(payload[messages.PREFIX_BYTES - 1], "mqtt")
    return kind
