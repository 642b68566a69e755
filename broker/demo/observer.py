"""An independent listener on the MQTT broker: counts what travels, and believes what devices say of their sockets."""

import time
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from broker.demo.plan import TASK, DemoError
from broker.monitor.listener import Listener
from edgeclient.link.mqtt import Endpoint, Message
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError


class Moment(NamedTuple):
    """Seconds since the start, and bytes until then: uploaded, received by devices, on their sockets both ways."""

    seconds: float
    uplink_bytes: int
    downlink_bytes: int
    socket_bytes: int


class Observer(Listener):
    """Listens to one task.

    A message that the broker delivers twice counts twice: the figures err against us.

    Attributes:
        payload_bytes: by kind of topic: up, down, status.
        uploaded_bytes: on `up`, by device.
    """

    def __init__(self, port: int) -> None:
        wanted = [topics.everyone(TASK, kind) for kind in ("up", "down", "status")]
        super().__init__(Endpoint("127.0.0.1", port), wanted)
        self.payload_bytes = Counter[str]()
        self.uploaded_bytes = Counter[str]()
        self._started_s = time.monotonic()

    @property
    def now(self) -> Moment:
        """The figures of this moment."""
        elapsed_s = time.monotonic() - self._started_s
        return Moment(elapsed_s, self.payload_bytes["up"], self.fleet.downlink_bytes, self.fleet.socket_bytes)

    def connect(self, within_s: float) -> None:
        """Wait for the MQTT broker: who starts others after this misses no byte of theirs."""
        while not self.reached:
            if self.now.seconds > within_s:
                raise DemoError("the MQTT broker does not answer")
            self.wait(0.1)

    def hear(self, message: Message) -> None:
        """Count it, but for what the broker has kept, and see what a device says."""
        with suppress(WireError):  # who may write there may write anything
            topic = topics.parse(message.topic)
            if not message.retained:
                self.payload_bytes[topic.kind] += len(message.payload)
                if topic.kind == "up":
                    self.uploaded_bytes[topic.rest[0]] += len(message.payload)
        super().hear(message)
