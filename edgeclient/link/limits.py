"""What an MQTT broker takes: asked for with MQTT 5, which tells it, or found out from what it hangs up at.

MQTT 3.1.1 tells nothing: a packet over the limit, a retained message or a QoS that the broker does not take ends the
connection without a word, each time.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edgeclient.link.endpoint import Endpoint
from edgeclient.wire import topics

# No message of ours but frames and chunks can be cut, and the largest of the others is about so large.
LEAST_BYTES: Final = 2048
_HEADER_BYTES: Final = 9  # of PUBLISH at most: type, remaining length, length of the topic, packet id
_ASK_S: Final = 3.0
ASKED_AFTER: Final = 2  # connections that ended at the same message
_HALVED_AFTER: Final = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a broker takes.

    Attributes:
        packet_bytes: of one message with its topic and header, at most.
        retain: whether it keeps messages for who comes later.
        qos: the highest.
    """

    packet_bytes: int
    retain: bool = True
    qos: int = 1

    def room(self, topic: str) -> int:
        """Bytes that a payload on `topic` may have.

        Example:
            >>> Limits(16384).room("edge/v1/har/up/pi-7")
            16356
        """
        return self.packet_bytes - _HEADER_BYTES - len(topic.encode())

    def within(self, other: "Limits") -> "Limits":
        """Both of them kept."""
        return Limits(
            min(self.packet_bytes, other.packet_bytes), self.retain and other.retain, min(self.qos, other.qos)
        )


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """Of a message."""
    return _HEADER_BYTES + len(topic.encode()) + payload_bytes


def doubled(times: int) -> bool:
    """Whether something has happened 2, 4, 8, 16 … times in a row: then it is looked at again.

    Example:
        >>> [times for times in range(20) if doubled(times)]
        [2, 4, 8, 16]
    """
    return times >= ASKED_AFTER and times & (times - 1) == 0


class CutOffs:
    """Connections that end while the same message is under way: by chance once, by a limit again and again.

    Example:
        >>> cuts = CutOffs()
        >>> cuts.note(65570), cuts.asks, cuts.note(65570), cuts.asks, cuts.halves(1024), cuts.note(65570)
        (None, False, None, True, None, None)
        >>> cuts.halves(1_000_000), cuts.note(900), cuts.halves(1_000_000)
        (32785, None, None)
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._times = 0

    def note(self, largest_bytes: int) -> None:
        """A connection has ended while a message of so many bytes was the largest under way; 0 for none."""
        self._times = self._times + 1 if largest_bytes == self._bytes and largest_bytes else min(1, largest_bytes)
        self._bytes = largest_bytes

    @property
    def times(self) -> int:
        """How many in a row."""
        return self._times

    @property
    def bytes(self) -> int:
        """Of the message."""
        return self._bytes

    @property
    def asks(self) -> bool:
        """Whether it is time to ask the broker: the second and third time, and whenever that number doubles."""
        return self._times == _HALVED_AFTER or doubled(self._times)

    def halves(self, limit_bytes: int) -> int | None:
        """The limit to try, below `limit_bytes`, where the broker tells none; None as long as it may be chance."""
        tried = min(self._bytes, limit_bytes) // 2
        return tried if self._times >= _HALVED_AFTER and tried >= LEAST_BYTES else None


class Answer(NamedTuple):
    """What a broker that speaks MQTT 5 says.

    Attributes:
        limits: of the broker.
        published: its words on what was published, "" for a plain yes.
    """

    limits: Limits
    published: str = ""


def asked(endpoint: Endpoint, client_id: str, publish: tuple[str, bytes] | None = None) -> Answer | None:
    """Ask a broker with MQTT 5, in a connection of a few seconds; None where it does not speak that or refuses us.

    Args:
        endpoint: the broker.
        client_id: another than the one that is in use.
        publish: a message that may be published there, to hear what becomes of it.
    """
    told: list[Limits] = []
    became: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect_timeout = _ASK_S
    if endpoint.username is not None:
        client.username_pw_set(endpoint.username, endpoint.password)
    if endpoint.tls is not None:
        client.tls_set_context(endpoint.tls)

    def connected(*told_by: Any) -> None:
        reason, properties = told_by[3:5]
        if not reason.is_failure:
            told.append(_of(properties, endpoint.max_packet_bytes))
            if publish is not None:
                topic, payload = publish
                client.publish(topics.placed(topic, endpoint.prefix), payload, qos=told[0].qos)

    client.on_connect = connected
    client.on_publish = lambda *told_by: became.append(str(told_by[3]) if told_by[3].value else "")
    client.on_disconnect = lambda *told_by: became.append(str(told_by[3]))
    until_s = time.monotonic() + _ASK_S
    with suppress(OSError, ValueError):
        client.connect(endpoint.host, endpoint.port, 10)
        while not (told and (became or publish is None)) and time.monotonic() < until_s:
            if client.loop(0.1):
                break
        client.disconnect()
    client._reset_sockets()  # noqa: SLF001 (paho leaves a socket open whose peer hung up)
    if not told:
        return None
    return Answer(told[0], became[0] if became and publish is not None else "")


def _of(properties: Any, most_bytes: int) -> Limits:
    size = getattr(properties, "MaximumPacketSize", most_bytes)
    retain, qos = getattr(properties, "RetainAvailable", 1), getattr(properties, "MaximumQoS", 1)
    return replace(Limits(most_bytes), packet_bytes=min(most_bytes, size), retain=bool(retain), qos=min(1, qos))
