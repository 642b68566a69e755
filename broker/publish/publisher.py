"""What the fleet must find on the broker, published: heads, blobs, and the receipts of devices."""

import secrets
from collections.abc import Iterable
from typing import Final

from broker.publish import retained
from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.wire import messages, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.messages import Receipt

# Retired versions whose chunks may still lie on the broker.
CLEARED: Final = 64


class Publisher:
    """Publishes over one link, and only while the service listens: a device answers at once, and must be heard.

    What a broken connection loses is published again after the next.

    Attributes:
        service: names this start of the aggregator.
        listens: whether the service is subscribed.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.service = secrets.token_hex(8)
        self._cleared: dict[str, set[str]] = {}
        self.listens = False

    def begin(self, task: str, retired: list[str]) -> None:
        """The broker may have forgotten anything; chunks of all but the newest `retired` versions are not there."""
        self._cleared[task] = set(retired[:-CLEARED])

    def blob(self, task: str, digest: str, content: bytes) -> None:
        """A content on its topics."""
        self._publish(retained.chunks(task, retained.blob_of(digest, len(content)), content))

    def version(self, announced: Announcement, parameters: bytes, retired: Iterable[str]) -> None:
        """The new parameters, then the head that names them, then what is retired goes.

        Args:
            announced: the version.
            parameters: as bytes.
            retired: digests of versions that are served no longer.
        """
        cleared = self._cleared.setdefault(announced.task, set())
        cleared.discard(announced.parameters.digest)
        chunks = retained.chunks(announced.task, announced.parameters, parameters)
        self._publish([*chunks, retained.head(announced)])
        for digest in retired:
            if digest not in cleared:
                self._publish(retained.cleared(announced.task, retained.blob_of(digest, announced.parameters.size)))
                cleared.add(digest)

    def receipt(self, task: str, device: str, receipt: Receipt) -> None:
        """The ledger's answer; LinkDown when the connection has broken."""
        self._link.publish(topics.down(task, device), messages.encode_receipt(receipt))

    def _publish(self, pairs: Iterable[retained.Retained]) -> None:
        if not self.listens:
            return
        try:
            for topic, payload in pairs:
                self._link.publish(topic, payload, retain=True)
        except LinkDown:
            return
