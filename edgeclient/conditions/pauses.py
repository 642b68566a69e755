"""What keeps one task of a device from its work, conditions apart, and what there is left to decide."""

import errno
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from edgeclient.compress.feedback import NotFinite
from edgeclient.conditions.budgets import round_bytes
from edgeclient.conditions.growth import Growth
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.reasons import READ_ONLY, Decision, Hindrance, Queue, Train, Wait
from edgeclient.conditions.spells import Lives
from edgeclient.link.events import Reach
from edgeclient.wire.life import Outbox, Row, State

_LOG = logging.getLogger(__name__)
_DISK_S: Final = 30.0  # before a full disk is tried again
_LONG_S: Final = 600.0  # nobody needs to hear of a longer limit
_STARVED_S: Final = 30.0  # before a source without examples is asked again
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Pauses:
    """A full disk, a version that cannot be trained on, a source without examples, a model that may not be fetched.

    Args:
        guard: what the owner grants.
        directory: of the device.
        source: of its data.

    Attributes:
        once: train one round at most, though the fleet makes new versions meanwhile.
        decision: what is done, or waited for, at the moment.
        lives: the account of this start and those before.
    """

    def __init__(self, guard: Guard, directory: Path, source: str) -> None:
        self.once = False
        self.decision: Decision = Wait("starting", "starting")
        self._guard, self._growth = guard, Growth(source)
        guard.also(directory)
        self._directory = directory
        self.lives = Lives(directory / "spells.json")
        self._full: tuple[float, str] = (-math.inf, "")
        self._failed: tuple[int, str] = (-1, "")  # the version that could not be trained on, and why
        self._starved_until_s = -math.inf
        self._missing_bytes: int | None = None  # of what was announced
        self._progress = ""  # of the fetch
        self._settled: int | None = None  # frames, ever
        self._unfetched: Hindrance | None = None
        self._rounds = 0
        self._room = Reach().room  # for a frame

    # What happens

    def full(self, error: Exception) -> None:
        """The disk has no room, or is read-only: nothing is lost or half done; what could not be kept comes again.

        An OSError of another kind is raised again, and of a disk that stays read-only.
        """
        why = str(error)
        self._guard.look(now=True)
        if self._guard.observed.read_only:
            why = READ_ONLY
        elif isinstance(error, OSError):
            if error.errno not in _FULL:
                raise error
            why = f"disk full: {error.filename or self._directory}: make room there"
        self._full = (time.monotonic() + _DISK_S, f"training and sending pause: {why}")
        _LOG.warning("%s", self._full[1])
        self.decision = self._disk_wait

    def trained(self, size: int, frame_bytes: int) -> None:
        """A round of n = `size` parameters is committed."""
        self._guard.wrote(round_bytes(size, frame_bytes))
        if self._guard.hindrance:
            _LOG.info("training stopped early, %s: what was learnt is kept", self._guard.hindrance)
        self._rounds += 1
        self._growth.learnt()
        self.lives.progress()

    @contextmanager
    def training(self, version: int) -> Iterator[None]:
        """Around a round: a version that leads beyond what numbers can hold cannot be trained on."""
        limit_s = self.lives.limit_s()
        short = f" for {limit_s:.0f} s at most: {self.lives.told}" if limit_s < _LONG_S else ""
        self.decision = Train(f"training on version {version}{short}")
        self.lives.begin()
        try:
            yield
        except NotFinite as error:
            self.untrained(version, "failed", str(error))
        finally:
            self.lives.end()

    def proceed(self, stopping: Callable[[], bool], tell: Callable[[], None]) -> Callable[[], bool]:
        """A function to be asked before every step of a round, whether it may go on; `tell` is called once a second."""
        may = self._guard.training(stopping)

        def proceed() -> bool:
            if self.lives.tick():
                tell()
            return may()

        return proceed

    def untrained(self, version: int, cause: Literal["interrupted", "starved", "failed"], why: str) -> None:
        """Nothing was learnt from this version: conditions ended, there was no example, or it cannot be trained on."""
        if cause == "interrupted":
            _LOG.info("version %d is not trained on yet: %s", version, self._guard.hindrance)
        elif cause == "starved":
            _LOG.info("nothing to train on: %s", why)
            self._starved_until_s = time.monotonic() + _STARVED_S
        else:
            _LOG.error("version %d was not trained: %s", version, why)
            self._failed = version, f"cannot train on version {version}: {why}"

    def may_fetch(self, missing_bytes: int | None, progress: str = "") -> bool:
        """Whether so much of a model may be asked for now; 0 when it is all there, None before it was announced.

        `progress` is how far it is, in words.
        """
        if missing_bytes is not None and missing_bytes < (self._missing_bytes or 0):
            self.lives.progress()
        self._missing_bytes, self._progress = missing_bytes, progress
        self._unfetched = self._guard.no_fetch(missing_bytes) if missing_bytes else None
        return not (self._unfetched or self.disk)

    # What follows

    @property
    def disk(self) -> str:
        """Why nothing is written now, "" when the disk has room."""
        return self._full[1] if time.monotonic() < self._full[0] else ""

    def done(self, outbox: Outbox | None, version: int | None) -> bool:
        """Whether the version that is announced is there and was trained on, and every frame is settled."""
        if outbox is None or version is None or (self._missing_bytes != 0 and not (self.once and self._rounds)):
            return False
        queue = self._queue(outbox, version, [])
        return not (queue.new_version or queue.waiting or self._failed[0] == version)

    def decide(self, outbox: Outbox, version: int, due: Sequence[Row], reach: Reach) -> Decision:
        """What to do now.

        Args:
            outbox: what is held.
            version: of the active model.
            due: frames that the window would let out, in order.
            reach: how far messages get.
        """
        settled = outbox.account.applied + outbox.account.refused + outbox.account.withdrawn
        idle = self.done(outbox, version)
        if idle or settled > (settled if self._settled is None else self._settled):
            self.lives.progress()
        self._settled = settled
        self._room = reach.room
        made = self._decided(outbox, version, due, link_up=reach.up)
        if reach.up and reach.unanswered and made.doing in {"sending", "receipts"}:
            made = replace(made, because=self._unannounced or reach.unanswered, doing="receipts")
        self.decision = made
        return made

    @property
    def _unannounced(self) -> str:
        """Why there is nothing to fetch, although all is there that was announced; "" otherwise."""
        return self._progress if self._missing_bytes == 0 else ""

    def without_model(self) -> None:
        """There is nothing to decide before there is a model."""
        self.decision = self._disk_wait if self.disk else self._fetch_wait()

    def _decided(self, outbox: Outbox, version: int, due: Sequence[Row], *, link_up: bool) -> Decision:
        if self.disk:
            return self._disk_wait
        queue = self._queue(outbox, version, due)
        if not (queue.waiting or queue.new_version):
            if self._failed[0] == version:
                return Wait(self._failed[1], "failed", forbidden=True)
            if self._unfetched is not None or self._progress:
                return self._fetch_wait()
        return self._guard.decide(queue, link_up=link_up)

    @property
    def _disk_wait(self) -> Wait:
        return Wait(self._full[1], "disk", forbidden=True)

    def _fetch_wait(self) -> Wait:
        if self._unfetched is None:
            return Wait(f"waiting for the model{self._progress and ': '}{self._progress}", "model")
        return Wait(self._unfetched.because, self._unfetched.doing, forbidden=True)

    def _queue(self, outbox: Outbox, version: int, due: Sequence[Row]) -> Queue:
        trained = outbox.account.trained_version
        # What was cut for a larger limit joins a round at once: the next version may wait for this very update.
        cut_anew = any(row.state is State.RETURNED and row.size > self._room for row in outbox.rows)
        new_version = (
            (trained is None or trained < version or cut_anew or self._growth.look(now=time.monotonic()))
            and self._failed[0] != version
            and time.monotonic() >= self._starved_until_s
            and not (self.once and self._rounds)
        )
        return Queue(new_version, [row.size for row in due], len(outbox.waiting), outbox.age_s(time.time()))
