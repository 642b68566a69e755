"""What the owner grants at this moment: conditions and budgets, kept together for the policy."""

import errno
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

from edgeclient.conditions import reasons
from edgeclient.conditions.board import Board, Observed
from edgeclient.conditions.budgets import Allowance, Usage, lacking
from edgeclient.conditions.reasons import Decision, Hindrance, History, Queue
from edgeclient.settings import Conditions, ConfigError

_LOG = logging.getLogger(__name__)
PAUSED: Final = "paused"  # file in the device's directory
_OBSERVE_S: Final = 5.0
_OBSERVE_TRAINING_S: Final = 1.0
# Then a process that can keep nothing ends, and whoever watches over it hears of it; until then it tells people.
_READ_ONLY_S: Final = 600.0


class Guard:
    """Conditions as last observed, bytes and writes as far as they are used up.

    Args:
        conditions: the owner's.
        directory: of the device: usage.json is kept there, and `paused` looked for.
        board: tells the conditions; None for the one that this runs on.

    Attributes:
        rules: what the owner grants.
        observed: conditions when they were last looked at.
        hindrance: why training was last stopped, "" if it was not.
    """

    def __init__(self, conditions: Conditions, directory: Path, board: Board | None = None) -> None:
        self.rules = conditions
        self.observed = Observed()
        self.hindrance = ""
        self._directory = directory
        self._pausable = [directory]
        self._board = board or Board(directory)
        self._observed_s = -_OBSERVE_S
        self._writable_s = time.monotonic()  # when the disk was last seen so
        self._usage = _usage(directory)
        self._counted: dict[Path, tuple[float, int]] = {}  # by task: when, and how much had passed
        self._unkept = False
        allowed = conditions.max_written_bytes_per_day
        self._wear = Allowance(allowed, float(allowed), time.monotonic())

    def also(self, directory: Path) -> None:
        """Another task of the device is here: pausing one pauses all."""
        if directory not in self._pausable:
            self._pausable.append(directory)

    def look(self, *, now: bool = False) -> None:
        """Observe, if that was some seconds ago or it has to be `now`.

        Raises:
            OSError: the disk has been read-only for ten minutes.
        """
        if now or time.monotonic() - self._observed_s >= _OBSERVE_S:
            self._observe()
            if self._observed_s - self._writable_s > _READ_ONLY_S:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self._directory))

    def accept(self, task: str, size: int, *, begun: bool) -> None:
        """Take a task of n = `size` parameters; `begun` if the device's files for it are there already.

        Raises:
            ConfigError: this board lacks what it needs.
        """
        if lacks := lacking(size, self.observed, self._wear.bytes_a_day, begun=begun):
            raise ConfigError(f"task {task} cannot be taken: {lacks}")

    def passed(self, directory: Path, total: int) -> None:
        """So many bytes have gone over the network for the task of this directory since it began."""
        # On a clock of its own: of several tasks nearly always the same one finds that `look` has looked.
        now = time.monotonic()
        since_s, counted = self._counted.get(directory, (-math.inf, 0))
        if now - since_s < _OBSERVE_S:
            return
        self._counted[directory] = (now, total)
        count = max(0, total - counted)
        usage = self._usage.on(datetime.now().date())  # noqa: DTZ005 (days are the owner's)
        if self.observed.metered:
            usage = usage.plus(count)
        if usage != self._usage:
            self._usage = usage
            # Not synced: a power cut costs seconds of an account.
            self._keep(json.dumps(asdict(usage)))

    def _keep(self, text: str) -> None:
        path = self._directory / "usage.json"
        try:
            path.with_suffix(".new").write_text(text, encoding="utf-8")
            path.with_suffix(".new").replace(path)
        except OSError as error:
            if not self._unkept:
                _LOG.warning("%s cannot be written (%s): a restart begins the budget anew", path, error.strerror)
            self._unkept = True

    @property
    def health(self) -> dict[str, float | None]:
        """Fields of Status."""
        return {"battery_percent": self.observed.battery_percent, "temperature_c": self.observed.temperature_c}

    def wrote(self, count: int) -> None:
        """So many bytes were written to the card."""
        self._wear = self._wear.spent(count, now=time.monotonic())

    def decide(self, queue: Queue, *, link_up: bool) -> Decision:
        """What conditions and budgets make of what could be done."""
        return reasons.decide(_minute(), self.observed, self.rules, queue, self._history(link_up=link_up))

    def _history(self, *, link_up: bool) -> History:
        """What was done."""
        paused = "paused by its owner: edgeclient resume lets it go on" if self._paused else ""
        wait_s = self._wear.wait_s(now=time.monotonic())
        return History(self._usage.day_bytes, self._usage.month_bytes, wait_s, paused, link_up)

    def no_fetch(self, size: int) -> Hindrance | None:
        """Why a model of so many bytes may not be downloaded, or None."""
        return reasons.no_fetch(_minute(), self.observed, self.rules, self._history(link_up=True), size)

    def training(self, stopping: Callable[[], bool]) -> Callable[[], bool]:
        """A function that says before every step whether training may go on, and keeps the `hindrance`."""
        self.hindrance = ""

        def proceed() -> bool:
            if stopping():
                self.hindrance = "the device stops"
            elif time.monotonic() - self._observed_s >= _OBSERVE_TRAINING_S:
                self._observe()
                found = reasons.hindrance(self.observed, self.rules)
                self.hindrance = found.because if found else "paused by its owner" * self._paused
            return not self.hindrance

        return proceed

    @property
    def _paused(self) -> bool:
        return any((directory / PAUSED).exists() for directory in self._pausable)

    def _observe(self) -> None:
        self.observed, self._observed_s = self._board.observe(), time.monotonic()
        if not self.observed.read_only:
            self._writable_s = self._observed_s


def _minute() -> int:
    here = datetime.now()  # noqa: DTZ005 (quiet hours are the owner's)
    return 60 * here.hour + here.minute


def _usage(directory: Path) -> Usage:
    try:
        return Usage(**json.loads((directory / "usage.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, or damaged: the budget begins anew
        return Usage()
