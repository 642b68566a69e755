"""Counts payload bytes on the wire by kind of topic, as an independent listener hears them."""

from collections import Counter
from dataclasses import dataclass, field

from edgeclient.wire import topics
from edgeclient.wire.errors import WireError


@dataclass(slots=True)
class Traffic:
    """Bytes by topic kind (up, down, status), and on `up` by device.

    A message that the broker delivers twice counts twice: the figure errs against us.

    Example:
        >>> traffic = Traffic()
        >>> traffic.hear("edge/v1/har/up/pi-7", 120)
        >>> traffic.bytes["up"], traffic.up_by_device["pi-7"]
        (120, 120)
    """

    bytes: Counter[str] = field(default_factory=Counter)
    up_by_device: Counter[str] = field(default_factory=Counter)

    def hear(self, topic: str, size: int) -> None:
        """Count one message; a foreign topic is left alone."""
        try:
            parsed = topics.parse(topic)
        except WireError:
            return
        self.bytes[parsed.kind] += size
        if parsed.kind == "up":
            self.up_by_device[parsed.rest[0]] += size
