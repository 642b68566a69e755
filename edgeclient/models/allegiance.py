"""Which ledger a device follows: one, though others announce its task, until an operator has another succeed it.

Who can publish can announce anything. So a successor is followed only where the ledger that is followed stays silent:
one that lives announces the task again at once (PROTOCOL.md, 8).
"""

import logging
import re
import time
from pathlib import Path
from typing import Any, Final

from edgeclient import files
from edgeclient.wire.announcement import Announcement

_LOG = logging.getLogger(__name__)
SILENT_S: Final = 10.0  # twice as long as an aggregator takes to answer (broker/task/incumbency)


class Allegiance:
    """Of a device in one task.

    Args:
        path: the file that remembers it.

    Attributes:
        ledger: that is followed; "" before the first announcement.
        stranger: another one that has announced the task in this session; "" for none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            said = path.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, ValueError):
            said = ""
        # Zeros that a power cut has left would be a ledger that nobody announces.
        self.ledger = said if re.fullmatch("[0-9a-f]{16}", said) else ""
        self.stranger = ""
        self._successor: tuple[float, Announcement] | None = None  # since when, and as it last announced the task

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of Status."""
        return {"ledger": self.ledger, "stranger": self.stranger}

    def accepts(self, announced: Announcement) -> bool:
        """Whether this is an announcement to follow."""
        if not self.ledger:
            self.follow(announced)
        if announced.ledger == self.ledger:
            self._successor = None
            return True
        if announced.ledger != self.stranger:
            self.stranger = announced.ledger
            _LOG.warning(
                "another aggregator, with ledger %s, announces task %s: this device goes on with ledger %s",
                *(announced.ledger, announced.task, self.ledger),
            )
        if self.ledger in announced.succeeds:
            since_s = time.monotonic()
            if self._successor is not None and self._successor[1].ledger == announced.ledger:
                since_s = self._successor[0]
            self._successor = since_s, announced
        return False

    def connected(self) -> None:
        """A new connection, which brings what is announced: who was not to be heard was not silent."""
        self._successor = None

    def successor(self) -> Announcement | None:
        """What a successor has announced that is followed from now on, since the other one has stayed silent."""
        if self._successor is None or time.monotonic() - self._successor[0] < SILENT_S:
            return None
        announced, self._successor = self._successor[1], None
        _LOG.warning("task %s goes on with ledger %s instead of %s", announced.task, announced.ledger, self.ledger)
        self.follow(announced)
        return announced

    def follow(self, announced: Announcement) -> None:
        """This one and no other, from now on."""
        files.replace(self._path, announced.ledger.encode())
        self.ledger, self.stranger = announced.ledger, ""
