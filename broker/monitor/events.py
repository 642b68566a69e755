"""Notable events, as the difference between what is known and what a ledger has newly: no I/O, no clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.monitor.text import age
from broker.views import Epoch, Mark, NewMark, NewVersion


class Notice(NamedTuple):
    """One line: `device` is "" when it concerns all of them."""

    time_s: float
    task: str
    device: str
    kind: str
    text: str


@dataclass(slots=True)
class Bookmark:
    """How far the news of a ledger have been told.

    Attributes:
        silent_after_s: a device from which nothing has come for so long is silent.
        versions: newest number of each task.
        marks: of each epoch.

    Example:
        >>> bookmark = Bookmark(silent_after_s=60)
        >>> epoch = NewMark(("har", "pi-7", 1), (1, 1, 0, 0), 1000.0, 1000.0, ())
        >>> [(each.kind, each.text) for each in notices(bookmark, [], [epoch], now_s=1001.0)]
        [('new-device', 'is new here')]
        >>> [(each.kind, each.text) for each in notices(bookmark, [], [], now_s=1100.0)]
        [('silent', 'nothing has come for 100 s')]
        >>> notices(bookmark, [], [], now_s=1200.0)
        []
    """

    silent_after_s: float
    versions: dict[str, int] = field(default_factory=dict)
    marks: dict[Epoch, Mark] = field(default_factory=dict)
    _refused: dict[Epoch, frozenset[int]] = field(default_factory=dict)
    _heard_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _silent: set[tuple[str, str]] = field(default_factory=set)

    def heard(self, task: str, device: str, when_s: float) -> bool:
        """Note a contact; whether the device was silent before."""
        key = (task, device)
        self._heard_s[key] = max(when_s, self._heard_s.get(key, when_s))
        if key in self._silent:
            self._silent.discard(key)
            return True
        return False

    def fallen_silent(self, now_s: float) -> Iterator[tuple[str, str, float]]:
        """Those that have become silent, and since when; each is told once."""
        for key, when_s in self._heard_s.items():
            if now_s - when_s > self.silent_after_s and key not in self._silent:
                self._silent.add(key)
                yield (*key, when_s)

    def knows(self, task: str, device: str) -> bool:
        """Whether it has ever been in contact."""
        return (task, device) in self._heard_s

    def untold(self, new: NewMark) -> list[tuple[int, str, float]]:
        """Refusals of an epoch that are new."""
        told = self._refused.get(new.epoch, frozenset())
        # Below the watermark no refusal is new, so that those need not be remembered.
        self._refused[new.epoch] = frozenset(each[0] for each in new.refused if each[0] >= new.mark[0])
        return [each for each in new.refused if each[0] not in told]


def notices(
    bookmark: Bookmark, versions: Iterable[NewVersion], epochs: Iterable[NewMark], *, now_s: float
) -> list[Notice]:
    """What is worth a line, oldest first; the bookmark stands behind it from now on.

    A time that the ledger has forgotten is taken as now, but for what is new at the first call: that is old.
    """
    first_time = not bookmark.marks and not bookmark.versions
    events: list[Notice] = []
    for task, number, made_s, updates in versions:
        bookmark.versions[task] = max(number, bookmark.versions.get(task, 0))
        what = "begins" if updates is None else f"made from {updates} updates"
        events.append(Notice(made_s, task, "", "version", f"version {number} {what}"))
    for new in sorted(epochs, key=lambda new: new.first_s or 0.0):
        events += _of_device(bookmark, new, now_s=now_s, first_time=first_time)
    for task, device, since_s in bookmark.fallen_silent(now_s):
        events.append(Notice(now_s, task, device, "silent", f"nothing has come for {age(now_s - since_s)}"))
    return sorted(events)


def _of_device(bookmark: Bookmark, new: NewMark, *, now_s: float, first_time: bool) -> Iterator[Notice]:
    task, device, _ = new.epoch
    before = bookmark.marks.get(new.epoch)
    stranger = not bookmark.knows(task, device)
    bookmark.marks[new.epoch] = new.mark
    contact_s = (new.last_s or now_s) if first_time else now_s
    if bookmark.heard(task, device, contact_s):
        yield Notice(contact_s, task, device, "back", "has come back")
    began_s = new.first_s or (None if first_time else now_s)
    if before is None and began_s is not None:
        if stranger:
            yield Notice(began_s, task, device, "new-device", "is new here")
        else:
            yield Notice(began_s, task, device, "renewed", "has begun anew: what it had not sent yet was dropped")
    for sequence, reason, when_s in bookmark.untold(new):
        yield Notice(when_s, task, device, "refused", f"frame {sequence} is not counted: {reason}")
    lost = new.mark[3] - (before[3] if before else 0)
    if lost:
        yield Notice(now_s, task, device, "lost", f"{lost} frames are unknown since a backup was restored")
