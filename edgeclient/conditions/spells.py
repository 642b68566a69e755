"""Lives that end before a round does: how long the device gets at a time, and how long its rounds may be then.

A device with power or a link for seconds at a time would train for ever and never finish. A small file says at the next
start what was under way, so that rounds become as short as the spells are; it is written a few times a round.
"""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeclient import files

_LOG = logging.getLogger(__name__)
# Of a spell: by then a round shall have ended, since packing, the disk and the link need the rest.
_SHARE: Final = 0.75
_LEAST_SHARE: Final = 0.1
_SHORTER: Final = 0.6  # what a round that was cut off leaves of the share ...
_LONGER: Final = 1.05  # ... and one that ended; ten of those are half as long again
_OUTLIVED: Final = 1.1
_LATE: Final = 0.25  # of its age: so long may a round be that begins late in a spell, or in one that goes on
_LEAST_S: Final = 1.0
# An age is known to a fifth, at the cost of a few writes of some bytes a round.
_MARK: Final = 1.2
_MARK_S: Final = 2.0
_BRIEF_S: Final = 1.0  # a round like that leaves nothing to remember
_MANY: Final = 3


@dataclass(frozen=True, slots=True)
class Spells:
    """What the starts before came to; ages are seconds since a start.

    Attributes:
        fruitless: starts in a row in which nothing was got done: no chunk of a model, no round, no receipt.
        cut: starts in a row that ended within a round.
        spell_s: at which age the last of those ended, at least; 0 for never.
        share: of a spell, by which a round shall have ended.
        planned: whether the round that is under way was to end within the spell.
        began_s: age at which it began; -1 without one.
        lived_s: age at which it was last seen.

    Example:
        >>> cut = Spells().begun(4.0).seen(12.0).started()
        >>> cut.cut, cut.spell_s, cut.limit_s(age_s=4.0)
        (1, 12.0, 5.0)
        >>> cut.begun(4.0).ended(9.0).cut
        0
    """

    fruitless: int = 0
    cut: int = 0
    spell_s: float = 0.0
    share: float = _SHARE
    planned: bool = False
    began_s: float = -1.0
    lived_s: float = -1.0

    def started(self) -> "Spells":
        """At a start: whether the one before ended within a round."""
        after = replace(self, fruitless=self.fruitless + 1, planned=False, began_s=-1.0, lived_s=-1.0)
        if self.began_s < 0:
            return after
        # A round that began late was a try; nothing else follows from its end than when that was.
        share = max(_LEAST_SHARE, self.share * _SHORTER) if self.planned else self.share
        spell_s = self.spell_s if self.lived_s <= self.spell_s <= _next_mark(self.lived_s) else self.lived_s
        return replace(after, cut=self.cut + 1, spell_s=max(spell_s, _LEAST_S), share=share)

    def limit_s(self, age_s: float) -> float:
        """How long a round may take that begins at this age; infinite when none was ever cut off.

        Who has lived longer than the last spell may live as long again.
        """
        if not self.spell_s:
            return math.inf
        return max(self.share * self.spell_s - age_s, _LATE * age_s, _LEAST_S)

    def begun(self, age_s: float) -> "Spells":
        """A round begins."""
        planned = self.share * self.spell_s - age_s >= _LATE * age_s
        return replace(self, planned=planned, began_s=age_s, lived_s=age_s)

    def seen(self, age_s: float) -> "Spells":
        """It goes on."""
        return replace(self, lived_s=age_s)

    def ended(self, age_s: float) -> "Spells":
        """It is over, whatever came of it: rounds may slowly become longer again."""
        spell_s = max(self.spell_s, min(age_s, self.spell_s * _OUTLIVED))
        share = min(_SHARE, self.share * _LONGER)
        return replace(self, cut=0, spell_s=spell_s, share=share, planned=False, began_s=-1.0, lived_s=-1.0)


def _next_mark(lived_s: float) -> float:
    """The age at which a round that goes on is seen next; what has ended before that is not known to have."""
    return max(_MARK * lived_s, lived_s + _MARK_S)


class Lives:
    """Keeps the account of a device's starts in a file, and tells the log what it says.

    Args:
        path: of the file.

    Attributes:
        before: what it said at this start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._born_s = time.monotonic()
        self._unkept = False
        self._second = 0
        self._brief = False  # the last round of this start was
        self._written = was = _read(path)
        self.before = self._now = was.started()
        if self.before.cut:
            _LOG.warning("%s: rounds are made shorter", self.told)
        elif was.fruitless >= _MANY:
            _LOG.warning(
                "the last %d starts got nothing done: no chunk of a model, no round, no receipt", was.fruitless
            )
        self._keep(self._now)

    @property
    def told(self) -> str:
        """Why rounds of this start are shorter, "" when they are not."""
        if not self._now.spell_s:
            return ""
        cut, spell = self.before.cut, f"{self._now.spell_s:.0f} s"
        starts = "the last start" if cut == 1 else f"the last {cut} starts"
        return f"{starts} ended within a round, after about {spell}" if cut else f"a start once ended after {spell}"

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of Status."""
        return {"fruitless": max(0, self._now.fruitless - 1), "cut": self._now.cut, "spell_s": round(self._now.spell_s)}

    def limit_s(self) -> float:
        """How long a round may take that begins now."""
        return self._now.limit_s(self._age_s)

    def begin(self) -> None:
        """A round begins."""
        begun = self._now.begun(self._age_s)
        if self._brief:
            self._now = begun
        else:
            self._keep(begun)

    def tick(self) -> bool:
        """A round goes on; true once a second."""
        age_s, second = self._age_s, self._second
        self._second = int(age_s)
        if self._now.began_s >= 0 and age_s > _next_mark(self._now.lived_s):
            self._keep(self._now.seen(age_s))
        return self._second != second

    def end(self) -> None:
        """A round is over."""
        age_s = self._age_s
        self._brief = age_s - self._now.began_s < _BRIEF_S
        self._keep(self._now.ended(age_s))

    def progress(self) -> None:
        """Something was got done in this start."""
        if self._now.fruitless:
            self._keep(replace(self._now, fruitless=0))

    @property
    def _age_s(self) -> float:
        return time.monotonic() - self._born_s

    def _keep(self, spells: Spells) -> None:
        self._now = spells
        if spells == self._written:
            return
        try:
            files.replace(self._path, json.dumps(asdict(spells)).encode())
            self._written = spells
        except OSError as error:
            if not self._unkept:
                _LOG.warning("%s cannot be written (%s): rounds are as long as ever", self._path, error.strerror)
            self._unkept = True


def _read(path: Path) -> Spells:
    """What the file says; damaged, or by hand, it says nothing."""
    try:
        said = json.loads(path.read_bytes())
        read = Spells(**said)
        numbers = [read.spell_s, read.share, read.began_s, read.lived_s]
        if all(-1 <= each <= 1e9 for each in numbers) and _LEAST_SHARE <= read.share <= _SHARE:
            return replace(read, fruitless=int(read.fruitless), cut=int(read.cut))
    except (OSError, OverflowError, ValueError, TypeError):
        pass
    return Spells()
