"""A task that nobody announces: who has mistyped its name would wait for ever, and the right ones are a look away."""

import time
from contextlib import suppress
from typing import Final

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.logs.complaints import Complaints
from edgeclient.wire import topics

# A retained announcement follows the subscription at once; on a slow link a large one may take a while.
_PATIENCE_S: Final = 8.0
_LOOK_S: Final = 4.0
_TOLD_S: Final = 600.0  # between two log lines
_MOST: Final = 20  # names are shown


class Absence:
    """Looks which tasks are announced, once a connection, when the own one is not.

    Args:
        task: the own one.

    Attributes:
        told: what to say of it; "" as long as there is nothing to say.
    """

    def __init__(self, task: str) -> None:
        self.told = ""
        self._task = task
        self._others: set[str] = set()
        self._complain = Complaints(_TOLD_S).tell
        self._due_s: float | None = None  # of the next step
        self._looks = False
        self._here = False

    def connected(self) -> None:
        """A new connection: an announcement is due."""
        self._due_s, self._looks, self._here = time.monotonic() + _PATIENCE_S, False, False

    def begun(self) -> None:
        """The task is announced no longer."""
        self._due_s, self._looks, self._here = time.monotonic(), False, False

    def ended(self) -> None:
        """The task is announced; a look that is under way still ends."""
        self.told, self._here = "", True
        self._due_s = self._due_s if self._looks else None

    def heard(self, task: str) -> bool:
        """Another task is announced; whether that was asked for."""
        if self._looks and len(self._others) < _MOST:
            self._others.add(task)
        return self._looks

    def look(self, link: Link) -> None:
        """Ask for the others when it is time, and then say what came of it."""
        if self._due_s is None or time.monotonic() < self._due_s:
            return
        with suppress(LinkDown):
            if self._looks:
                link.unsubscribe(topics.heads())
                self._due_s = None
                if not self._here:
                    self._tell()
            else:
                link.subscribe(topics.heads(), qos=0)
                self._due_s, self._looks = time.monotonic() + _LOOK_S, True

    def _tell(self) -> None:
        names = ", ".join(sorted(self._others))
        rest = (
            f"; announced are: {names}"
            if names
            else ", nor any other: does edgebroker serve run on this MQTT broker, and may we read there?"
        )
        self.told = f"nobody announces task {self._task} here{rest}"
        self._complain("waiting", "unannounced", self.told)
