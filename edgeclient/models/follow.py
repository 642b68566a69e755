"""From the newest announcement to an active model: which chunks to ask for next, and what came of them."""

import time
from contextlib import suppress
from typing import Final

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.models.fetch import Fetch
from edgeclient.models.slots import Model, Models
from edgeclient.wire import topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.errors import WireError

_AGAIN_S: Final = 2.0  # after a blob that was not what it should be


class Follower:
    """Follows the announcements of one task: the bundle first, once, then each version's parameters.

    Args:
        task: its id.
        models: where versions are kept.

    Attributes:
        active: the model to train from, or None until the first is complete.
    """

    def __init__(self, task: str, models: Models) -> None:
        self._task = task
        self._models = models
        self._service = ""  # of the last announcement
        self.active: Model | None = models.active()
        self._announced: Announcement | None = None
        self._fetch: Fetch | None = None
        self._asked: set[str] = set()  # topics of chunks, as subscribed
        self._ask_after_s = 0.0

    def announce(self, announced: Announcement) -> bool:
        """Aim at this version, unless it is older than what is known: versions only rise.

        Returns:
            Whether another life of the aggregator has begun to announce.

        Raises:
            WireError: "topic", for an announcement of another task.
        """
        if announced.task != self._task:
            raise WireError("topic", f"an announcement of task {announced.task}")
        self._follow(announced)
        before, self._service = self._service, announced.service
        return before != announced.service

    def _follow(self, announced: Announcement) -> None:
        known = [each.version for each in (self._announced, self.active and self.active.announcement) if each]
        if announced.version < max(known, default=0):
            return
        self._announced = announced
        self._aim()

    def wanted(self) -> list[tuple[str, int]]:
        """(digest, chunk) of the chunks to subscribe to now."""
        return [(self._fetch.blob.digest, chunk) for chunk in self._fetch.wanted()] if self._fetch else []

    @property
    def missing_bytes(self) -> int | None:
        """Of what was announced, at most: of the blob that is being fetched; None before anything was announced."""
        if not self._service:
            return None
        return self._fetch.missing_bytes if self._fetch else 0

    def connected(self, link: Link) -> None:
        """Ask a new connection, which has no subscriptions, for announcements."""
        self._asked.clear()
        with suppress(LinkDown):
            link.subscribe(topics.head(self._task))

    def ask(self, link: Link, *, allowed: bool) -> None:
        """Subscribe to the chunks that are wanted now, and to no others; to none where that is not allowed."""
        now = allowed and time.monotonic() >= self._ask_after_s
        wanted = {topics.blob(self._task, *chunk) for chunk in self.wanted()} if now else set()
        with suppress(LinkDown):
            link.unsubscribe(*sorted(self._asked - wanted))
            link.subscribe(*sorted(wanted - self._asked), qos=0)
            self._asked = wanted

    def receive(self, digest: str, chunk: int, payload: bytes) -> Model | None:
        """Take in a chunk; the new model once one is active.

        Raises:
            WireError: the chunk or the content is not what was announced; the content is asked for again.
        """
        try:
            return self._take(digest, chunk, payload)
        except WireError:
            self._ask_after_s = time.monotonic() + _AGAIN_S
            raise

    def _take(self, digest: str, chunk: int, payload: bytes) -> Model | None:
        if self._fetch is None or self._announced is None or digest != self._fetch.blob.digest:
            return None
        content = self._fetch.receive(chunk, payload)
        if content is None:
            return None
        if self._fetch.blob == self._announced.bundle:
            self._models.install_bundle(digest, content)
            self._aim()
            return None
        self.active = self._models.activate(self._announced, content)
        self._fetch = None
        return self.active

    def _aim(self) -> None:
        assert self._announced is not None
        wanted = self._announced.bundle
        if self._models.bundle(wanted.digest) is not None:
            wanted = self._announced.parameters
            if self.active and (self.active.announcement.version, self.active.announcement.parameters) == (
                self._announced.version,
                wanted,
            ):
                self._fetch = None
                self._refresh(self._announced)
                return
        if self._fetch is None or self._fetch.blob != wanted:
            self._fetch = Fetch(wanted)

    def _refresh(self, announced: Announcement) -> None:
        """The same version announced with another policy: take the policy, keep the parameters."""
        assert self.active is not None
        if announced != self.active.announcement:
            self.active = Model(announced, self.active.parameters, self.active.bundle_directory)
