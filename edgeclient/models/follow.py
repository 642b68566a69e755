"""From the newest announcement to an active model: which chunks to ask for next, and what came of them."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.models.absence import Absence
from edgeclient.models.fetch import Fetch
from edgeclient.models.slots import Model, Models
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement, Blob
from edgeclient.wire.errors import WireError

_LOG = logging.getLogger(__name__)
_AGAIN_S: Final = 2.0  # after a blob that was not what it should be; twice as long each time
_MAX_AGAIN_S: Final = 300.0
# A fetch that has taken so long is finished though a newer version is there: on a slow link there always is one ...
_SLOW_S: Final = 30.0
# ... unless nothing has come for so long: its chunks may be gone.
_GONE_S: Final = 60.0
_SHOWN_S: Final = 5.0  # before its progress is worth a status
_TELL_S: Final = 30.0  # between two log lines about a fetch


class Follower:
    """Follows the announcements of one task: the bundle first, once, then each version's parameters.

    Args:
        task: its id.
        models: where versions are kept.

    Attributes:
        active: the model to train from, or None until the first is complete.
        allegiance: to a ledger.
    """

    def __init__(self, task: str, models: Models) -> None:
        self._task = task
        self._absence = Absence(task)
        self._models = models
        self._service = ""  # of the last announcement
        self.allegiance = models.allegiance
        active = models.active()
        ours = active is not None and self.allegiance.ledger in {active.announcement.ledger, ""}
        self.active: Model | None = active if ours else None
        if self.active is not None and not self.allegiance.ledger:  # a file that was lost
            self.allegiance.follow(self.active.announcement)
        self._announced: Announcement | None = None
        self._fetch: Fetch | None = None
        self._aim_at: Announcement | None = None  # that the fetch is for
        # When the fetch began, its last chunk or the connection came, a line was written about it.
        self._begun_s = self._came_s = self._told_s = time.monotonic()
        self._asked: set[str] = set()  # topics of chunks, as subscribed
        self._unkept = False  # the disk had no room for what was announced
        self._ask_after_s, self._again_s = 0.0, _AGAIN_S
        had = -1 if self.active is None else self.active.announcement.version
        kept = models.incoming.kept()
        if kept is not None and self._continues(kept.announced, had):
            self._fetch, self._aim_at, self._begun_s = Fetch(kept.blob, kept.parts), kept.announced, -math.inf
            _LOG.info("goes on with the %s", self.progress)

    def hear(self, payload: bytes) -> bool:
        """Take in what is announced; nothing: the task is removed, or its aggregator announces it again soon.

        Returns:
            Whether another life of the aggregator has begun to announce.

        Raises:
            WireError: it is no announcement, or one of another task.
        """
        if payload:
            with self._keeping():
                return self.announce(announcement.decode(payload))
        self._absence.begun()
        return False

    def announce(self, announced: Announcement) -> bool:
        """Aim at this version, unless it is older than what is known: versions only rise.

        Returns:
            Whether another life of the aggregator has begun to announce.

        Raises:
            WireError: "topic", for an announcement of another task.
        """
        if announced.task != self._task:
            if self._absence.heard(announced.task):
                return False
            raise WireError("topic", f"an announcement of task {announced.task}")
        self._absence.ended()
        if not self.allegiance.accepts(announced):
            return False
        self._follow(announced)
        before, self._service = self._service, announced.service
        return before != announced.service

    def _continues(self, announced: Announcement, had: int) -> bool:
        ours = announced.task == self._task and announced.ledger == (self.allegiance.ledger or announced.ledger)
        return ours and announced.version > had

    def _follow(self, announced: Announcement) -> None:
        heard = [each for each in (self._announced, self.active and self.active.announcement) if each]
        known = [each.version for each in heard if each.ledger == announced.ledger]
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
        if self._fetch is None:
            return 0 if self._service else None
        return self._fetch.missing_bytes

    @property
    def progress(self) -> str:
        """How far a fetch is that takes long, or why there is none, in words; "" without either.

        Example: `model 37 of 64 chunks, 606 of 1,049 kB`
        """
        if self._absence.told:
            return self._absence.told
        if self._fetch is None or self._aim_at is None or time.monotonic() - self._begun_s < _SHOWN_S:
            return ""
        is_bundle = self._fetch.blob == self._aim_at.bundle
        return f"model {self._fetch}" if is_bundle else f"version {self._aim_at.version}, {self._fetch}"

    def connected(self, link: Link) -> None:
        """Ask a new connection, which has no subscriptions, for announcements."""
        self._asked.clear()
        self._absence.connected()
        self.allegiance.connected()
        self._unkept = False
        self._came_s = time.monotonic()
        with suppress(LinkDown):
            link.subscribe(topics.head(self._task))

    def ask(self, link: Link, may_fetch: Callable[[int | None, str], bool]) -> None:
        """Subscribe to the chunks that are wanted now, and to no others; to none where that is not allowed.

        `may_fetch` is told how many bytes are missing and how far the fetch is.
        """
        self._absence.look(link)
        if link.connected:
            with self._keeping():
                if (successor := self.allegiance.successor()) is not None:
                    self._follow(successor)
        allowed = may_fetch(self.missing_bytes, self.progress)
        if allowed and link.connected:
            self._tell()
            if self._unkept:
                with suppress(LinkDown):
                    link.subscribe(topics.head(self._task))  # it is retained, and comes again
                    self._unkept = False
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
            with self._keeping():
                return self._take(digest, chunk, payload)
        except WireError:
            self._ask_after_s = time.monotonic() + self._again_s
            self._again_s = min(2 * self._again_s, _MAX_AGAIN_S)
            raise

    def _take(self, digest: str, chunk: int, payload: bytes) -> Model | None:
        if self._fetch is None or self._aim_at is None or digest != self._fetch.blob.digest or chunk in self._fetch:
            return None
        incoming, before, content = self._models.incoming, self.active, None
        self._came_s = time.monotonic()
        try:
            content = self._fetch.receive(chunk, payload)
            if content is None:
                incoming.add(chunk, payload)
                return None
            if self._fetch.blob == self._aim_at.bundle:
                self._models.install_bundle(digest, content)
            else:
                self.active = self._models.activate(self._aim_at, content)
        except WireError as error:
            if error.reason != "range":  # that chunk alone is refused
                incoming.begin(self._aim_at, self._fetch.blob)
            raise
        except OSError:
            if content is not None:  # only its last chunk is asked for again
                kept = incoming.kept()
                self._fetch = Fetch(self._fetch.blob, None if kept is None else kept.parts)
            raise
        incoming.clear()
        self._fetch, self._again_s = None, _AGAIN_S
        self._aim()
        return None if self.active is before else self.active

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Around what is written: where the disk is full, what was announced is to be heard again."""
        try:
            yield
        except OSError:
            self._unkept = True
            raise

    def _aim(self) -> None:
        """Choose what to fetch next, if anything."""
        announced = self._announced
        if announced is None or self._finishes(announced):
            return
        if self._models.bundle(announced.bundle.digest) is None:
            self._begin(announced, announced.bundle)
        elif self.active and (self.active.announcement.version, self.active.announcement.parameters.digest) == (
            announced.version,
            announced.parameters.digest,  # chunks may be of another size by now
        ):
            self._fetch = None
            self._refresh(announced)
        elif (content := self._known(announced)) is not None:
            self._fetch = None
            self.active = self._models.activate(announced, content)
        else:
            self._begin(announced, announced.parameters)

    def _known(self, announced: Announcement) -> bytes | None:
        """Its parameters, where they need no fetch: the active ones again, or those that the bundle brings."""
        active = self.active
        if active is not None and active.announcement.parameters.digest == announced.parameters.digest:
            return active.parameters.astype("<f4").tobytes()
        return self._models.initial(announced)

    def _begin(self, announced: Announcement, blob: Blob) -> None:
        self._aim_at = announced
        if self._fetch is None or self._fetch.blob != blob:
            self._fetch, self._begun_s = Fetch(blob), time.monotonic()
            self._models.incoming.begin(announced, blob)

    def _finishes(self, announced: Announcement) -> bool:
        """Whether a slow fetch of an older version goes on: what is trained from it must still be admitted."""
        aim, now = self._aim_at, time.monotonic()
        return (
            self._fetch is not None
            and aim is not None
            and self._fetch.blob == aim.parameters != announced.parameters
            and (aim.bundle, aim.layout, aim.ledger) == (announced.bundle, announced.layout, announced.ledger)
            and 0 < announced.version - aim.version <= announced.policy.max_staleness // 2
            and now - self._begun_s > _SLOW_S
            and now - self._came_s < _GONE_S
        )

    def _tell(self) -> None:
        """Now and then a line about a fetch that takes long; one that has stalled aims anew."""
        now = time.monotonic()
        if self._fetch is None or now - max(self._told_s, self._begun_s) < _TELL_S:
            return
        self._told_s, waited_s = now, now - self._came_s
        _LOG.info("%s%s", self.progress, f", none for {waited_s:.0f} s" if waited_s > _TELL_S else "")
        self._aim()

    def _refresh(self, announced: Announcement) -> None:
        """The same version announced with another policy: take the policy, keep the parameters."""
        assert self.active is not None
        if announced != self.active.announcement:
            self.active = Model(announced, self.active.parameters, self.active.bundle_directory)
