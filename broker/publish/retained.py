"""The retained messages of a task, as (topic, payload) pairs; an empty payload clears a topic."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement, Blob
from edgeclient.wire.limits import MAX_CHUNK_BYTES

Retained: TypeAlias = tuple[str, bytes]

KEEP_VERSIONS: Final = 3
KEEP_S: Final = 600.0


def blob_of(digest: str, size: int) -> Blob:
    """How a content of this size is cut."""
    return Blob(digest, size, MAX_CHUNK_BYTES)


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
