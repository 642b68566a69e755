"""The retained messages of a task, as (topic, payload) pairs; an empty payload clears a topic; and who publishes."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.wire import announcement, messages, topics
from edgeclient.wire.announcement import Announcement, Blob
from edgeclient.wire.messages import Receipt

_LOG = logging.getLogger(__name__)
Retained: TypeAlias = tuple[str, bytes]

# Of 64 KiB at most: a device that is awake for 20 s on a link of 20 kbit/s gets two of these, and none of 64 KiB. With
# topic and header it is a packet of 16 KiB, which some brokers have as their limit.
CHUNK_BYTES: Final = 16 * 1024 - 256
KEEP_VERSIONS: Final = 3
KEEP_S: Final = 600.0
# Retired versions whose chunks may still lie on the broker.
CLEARED: Final = 64


def blob_of(digest: str, size: int) -> Blob:
    """How a content of this size is cut."""
    return Blob(digest, size, CHUNK_BYTES)


def chunks(task: str, blob: Blob, content: bytes) -> Iterator[Retained]:
    """Every chunk of a content on its topic."""
    for chunk in range(blob.chunks):
        yield topics.blob(task, blob.digest, chunk), content[chunk * blob.chunk : (chunk + 1) * blob.chunk]


def cleared(task: str, blob: Blob) -> Iterator[Retained]:
    """What takes a content off the broker."""
    for chunk in range(blob.chunks):
        yield topics.blob(task, blob.digest, chunk), b""


def head(announced: Announcement) -> Retained:
    """The announcement; published last, so that what it names is already there."""
    return topics.head(announced.task), announcement.encode(announced)


def served(created: Sequence[tuple[str, float]], now: float) -> tuple[list[str], list[str]]:
    """Which parameter digests stay on the broker and which may go.

    Args:
        created: digest and time (s) of every version, oldest first.
        now: on the same clock.

    Returns:
        (stay, go), each oldest first. The last 3 versions stay, and each stays for 10 minutes after
        its successor came.

    Example:
        >>> served([("a", 0.0), ("b", 10.0), ("c", 20.0), ("d", 30.0)], now=700.0)
        (['b', 'c', 'd'], ['a'])
    """
    stay: list[str] = []
    go: list[str] = []
    for i, (digest, _) in enumerate(created):
        recent = i >= len(created) - KEEP_VERSIONS
        young = not recent and now - created[i + 1][1] < KEEP_S
        (stay if recent or young else go).append(digest)
    return stay, [digest for digest in go if digest not in stay]


class Publisher:
    """Publishes over one link, and only while the service listens: a device answers at once, and must be heard.

    What a broken connection loses is published again after the next.

    Attributes:
        listens: whether the service is subscribed.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._cleared: dict[str, set[str]] = {}
        self.listens = False

    def begin(self, task: str, retired: list[str]) -> None:
        """The broker may have forgotten anything; chunks of all but the newest `retired` versions are not there."""
        self._cleared[task] = set(retired[:-CLEARED])

    def blob(self, task: str, digest: str, content: bytes) -> None:
        """A content on its topics."""
        self._publish(chunks(task, self._cut(task, blob_of(digest, len(content))), content))

    def version(self, announced: Announcement, parameters: bytes, retired: Iterable[str]) -> None:
        """The new parameters, then the head that names them; then what is retired goes, named by digest."""
        gone = self._cleared.setdefault(announced.task, set())
        gone.discard(announced.parameters.digest)
        cut = self._cut(announced.task, announced.parameters)
        self._publish([*chunks(announced.task, cut, parameters), head(self._served(announced))])
        for digest in retired:
            if digest not in gone:
                self._publish(cleared(announced.task, replace(cut, digest=digest)))
                gone.add(digest)

    def withdraw(self, task: str, digests: Iterable[str], path: Callable[[str], Path]) -> bool:
        """Take a task off the broker, its head first, then contents as large as their files; False when that failed."""
        if not self.listens:
            return False
        try:
            self._link.publish(topics.head(task), b"", retain=True)
            for digest in digests:
                size = path(digest).stat().st_size if path(digest).exists() else 0
                for topic, payload in cleared(task, self._cut(task, blob_of(digest, size))):
                    self._link.publish(topic, payload, retain=True)
        except LinkDown:
            return False
        self._cleared.pop(task, None)
        return True

    def head(self, announced: Announcement) -> None:
        """The announcement alone, once more."""
        self._publish([head(self._served(announced))])

    def receipt(self, task: str, device: str, receipt: Receipt) -> None:
        """The ledger's answer; LinkDown when the connection has broken."""
        topic, payload = topics.down(task, device), messages.encode_receipt(receipt)
        if len(payload) > self._link.room(topic):  # a device that asks again has settled more by then
            _LOG.error("a receipt of %d bytes for %s is over the MQTT broker's limit", len(payload), device)
            return
        self._link.publish(topic, payload)

    def _cut(self, task: str, blob: Blob) -> Blob:
        """A blob in chunks that the MQTT broker takes."""
        return replace(blob, chunk=min(blob.chunk, self._link.room(topics.blob(task, blob.digest, blob.size))))

    def _served(self, announced: Announcement) -> Announcement:
        """An announcement as contents are published here."""
        parameters, bundle = (self._cut(announced.task, blob) for blob in (announced.parameters, announced.bundle))
        return replace(announced, parameters=parameters, bundle=bundle)

    def _publish(self, pairs: Iterable[Retained]) -> None:
        if not self.listens:
            return
        try:
            for topic, payload in pairs:
                self._link.publish(topic, payload, retain=True)
        except LinkDown:
            return
