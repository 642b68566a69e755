"""Notable events, as the difference between what is known and what a ledger has newly: no I/O, no clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.monitor.text import age, counted
from broker.views import Epoch, Mark, NewMark, NewVersion


class Met(NamedTuple):
    """Another aggregator that has to do with a task: when it was met (Unix seconds), and what came of it."""

    task: str
    met_s: float
    text: str


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
        >>> [(each.kind, each.text) for each in bookmark.notices([], [epoch], now_s=1001.0)]
        [('new-device', 'is new here')]
        >>> [(each.kind, each.text) for each in bookmark.notices([], [], now_s=1100.0)]
        [('silent', 'nothing has come for 100 s')]
        >>> bookmark.notices([], [], now_s=1200.0)
        []
    """

    silent_after_s: float
    versions: dict[str, int] = field(default_factory=dict)
    marks: dict[Epoch, Mark] = field(default_factory=dict)
    _refused: dict[Epoch, frozenset[int]] = field(default_factory=dict)
    _heard_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _silent: set[tuple[str, str]] = field(default_factory=set)
    _met_s: dict[str, float] = field(default_factory=dict)  # of each task: its newest rival

    def notices(
        self, versions: Iterable[NewVersion], epochs: Iterable[NewMark], rivals: Iterable[Met] = (), *, now_s: float
    ) -> list[Notice]:
        """What is worth a line, oldest first; the bookmark stands behind it from now on.

        A time that the ledger has forgotten is taken as now, but for what is new at the first call: that is old.
        """
        first_time = not self.marks and not self.versions
        events: list[Notice] = []
        for new in versions:
            self.versions[new.task] = max(new.number, self.versions.get(new.task, 0))
            events.append(Notice(new.made_s, new.task, "", "held" if new.held else "version", _told(new)))
        for mark in sorted(epochs, key=lambda mark: mark.first_s or 0.0):
            events += self._of_device(mark, now_s=now_s, first_time=first_time)
        for task, met_s, text in sorted(rivals, key=lambda met: met.met_s):
            if met_s > self._met_s.get(task, 0.0):
                self._met_s[task] = met_s
                events.append(Notice(met_s, task, "", "rival", text))
        for who, heard_s in self._heard_s.items():
            if now_s - heard_s > self.silent_after_s and who not in self._silent:
                self._silent.add(who)
                events.append(Notice(now_s, *who, "silent", f"nothing has come for {age(now_s - heard_s)}"))
        return sorted(events)

    def _of_device(self, new: NewMark, *, now_s: float, first_time: bool) -> Iterator[Notice]:
        who, before = new.epoch[:2], self.marks.get(new.epoch)
        stranger = who not in self._heard_s
        self.marks[new.epoch] = new.mark
        contact_s = (new.last_s or now_s) if first_time else now_s
        self._heard_s[who] = max(contact_s, self._heard_s.get(who, contact_s))
        if who in self._silent:
            self._silent.discard(who)
            yield Notice(contact_s, *who, "back", "has come back")
        began_s = new.first_s or (None if first_time else now_s)
        if before is None and began_s is not None:
            if stranger:
                yield Notice(began_s, *who, "new-device", "is new here")
            else:
                yield Notice(
                    began_s,
                    *who,
                    "renewed",
                    "uploads from a new store: it has begun anew, or a second board has its id",
                )
        told = self._refused.get(new.epoch, frozenset())
        # Below the watermark no refusal is new, so that those need not be remembered.
        self._refused[new.epoch] = frozenset(each[0] for each in new.refused if each[0] >= new.mark[0])
        for sequence, reason, when_s in new.refused:
            if sequence not in told:
                yield Notice(when_s, *who, "refused", f"frame {sequence} is not counted: {reason}")
        lost = new.mark[3] - (before[3] if before else 0)
        if lost:
            yield Notice(now_s, *who, "lost", f"{lost} frames are unknown since a backup was restored")


def _told(new: NewVersion) -> str:
    if new.held:
        return f"version {new.number} is held back: {new.held}"
    if new.same_as is not None:
        return f"version {new.number} has the parameters of version {new.same_as:.0f} again"
    made = "begins" if new.updates is None else f"made from {counted(new.updates, 'update')}"
    return f"version {new.number} {made}"
