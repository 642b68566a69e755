"""What changes by itself on the page, and the part of it that a reader does not have yet."""

import math
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from broker.page.read_model import ReadModel

EVERY_S: Final = 1.0
_KEPT: Final = 16  # of a kilobyte to a hundred


class Changes:
    """The live sections of tasks, looked up once a second however many ask; the last few are kept by their number."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._found: dict[str, tuple[float, int]] = {}
        self._kept: dict[int, dict[str, Any]] = {}
        # No number of an earlier start, which a page that reconnects may still tell.
        self._number = secrets.randbits(40)

    def now(self, task: str) -> tuple[int, dict[str, Any]]:
        """The newest sections, at most half a second old, and their number."""
        at_s, number = self._found.get(task, (-math.inf, 0))
        if number not in self._kept or time.monotonic() - at_s > EVERY_S / 2:
            sections = self._model.live(task)
            if not sections:
                return 0, {}
            self._number = number = self._number + 1
            self._found[task] = (time.monotonic(), number)
            self._kept[number] = sections
            self._kept.pop(number - _KEPT, None)
        return number, self._kept[number]

    def then(self, number: int) -> dict[str, Any]:
        """What a reader has that was sent sections of this number; nothing when that is long ago."""
        return dict(self._kept.get(number, {}))


def difference(sections: Mapping[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """The part of `sections` that a reader does not have; `sent` is what it has, and has it from now on.

    Of the learning curve only points that are new or newly evaluated go, of events only new ones.

    Example:
        >>> sent = {}
        >>> difference({"statuses": 1, "events": ["a"]}, sent)
        {'statuses': 1, 'events': ['a']}
        >>> difference({"statuses": 2, "events": ["a", "b"]}, sent)
        {'statuses': 2, 'events': ['b']}
        >>> difference({"statuses": 2, "events": ["a", "b"]}, sent)
        {}
    """
    found: dict[str, Any] = {}
    for name, value in sections.items():
        before = sent.get(name)
        if value != before:
            found[name] = [each for each in value if each not in (before or ())] if isinstance(value, list) else value
            sent[name] = value
    return {name: value for name, value in found.items() if value != []}
