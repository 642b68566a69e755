"""An independent listener on the MQTT broker: counts what travels, and believes what devices say of their sockets."""

import time
from collections import Counter
from contextlib import suppress
from typing import NamedTuple, Self

from broker.demo.plan import TASK, DemoError
from broker.monitor.fleet import Fleet
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.wire import topics
from edgeclient.wire.errors import WireError


class Moment(NamedTuple):
    """Seconds since the start, and bytes until then: uploaded, received by devices, on their sockets both ways."""

    seconds: float
    uplink_bytes: int
    downlink_bytes: int
    socket_bytes: int


class Observer:
    """Listens to one task.

    A message that the broker delivers twice counts twice: the figures err against us.

    Attributes:
        payload_bytes: by kind of topic: up, down, status.
        uploaded_bytes: on `up`, by device.
        fleet: what devices say.
    """

    def __init__(self, port: int) -> None:
        self.payload_bytes = Counter[str]()
        self.uploaded_bytes = Counter[str]()
        self.fleet = Fleet()
        self._link = Link(Endpoint("127.0.0.1", port), client_id_prefix="observer")
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    @property
    def now(self) -> Moment:
        """The figures of this moment."""
        return Moment(
            time.monotonic() - self._started_s,
            self.payload_bytes["up"],
            self.fleet.downlink_bytes,
            self.fleet.socket_bytes,
        )

    def connect(self, within_s: float) -> None:
        """Wait for the MQTT broker: who starts others after this misses no byte of theirs."""
        while self.now.seconds <= within_s:
            for event in self._link.poll(1.0):
                if isinstance(event, Connected):
                    self._link.subscribe(*(topics.everyone(TASK, kind) for kind in ("up", "down", "status")))
                    return
        raise DemoError("the MQTT broker does not answer")

    def listen(self, timeout_s: float) -> None:
        """Take in what has come."""
        for event in self._link.poll(timeout_s):
            if isinstance(event, Message):
                self._link.acknowledge(event)
                with suppress(WireError):  # who may write there may write anything
                    topic = topics.parse(event.topic)
                    if not event.retained:
                        self.payload_bytes[topic.kind] += len(event.payload)
                        if topic.kind == "up":
                            self.uploaded_bytes[topic.rest[0]] += len(event.payload)
                    self.fleet.hear(event.topic, event.payload)
