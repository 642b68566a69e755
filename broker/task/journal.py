"""What happens at the aggregator, told to people: the watch that looks on, and the log, in bounded memory."""

import logging
from collections.abc import Sequence
from typing import Final

from broker.intake.decode import FrameIn, Incoming, Rejected
from broker.intake.door import SHARE
from broker.ledger.rows import Admission, Entry, Verdict, Withdrawal
from broker.monitor import namesakes, rivals
from broker.monitor.learning import SAME_TIME, finding
from broker.monitor.text import counted, worth
from broker.monitor.watch import Watch
from broker.registry.evaluator import Evaluated
from broker.settings import Task, differences
from broker.task.gate import Judged
from broker.task.live import LiveTask
from broker.views import Contact, Point
from edgeclient.logs.complaints import Complaints
from edgeclient.logs.fields import identity

_LOG = logging.getLogger(__name__)
_CONNECTION_S: Final = 60.0  # at least, between two lines about the same trouble of the connection


class Journal:
    """Tells a watch and the log; decides nothing.

    Attributes:
        watch: who looks on.
        complain: writes a log line about a device or a task, at most twice a minute.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.complain = Complaints().tell
        self._findings: dict[tuple[str, str], int] = {}  # by task and kind, the version at which it last was so
        self._rests: dict[str, str] = {}  # of each task, as last told
        self._turns = namesakes.Turns()
        self._connection = Complaints(_CONNECTION_S).tell

    def disconnected(self, why: str) -> None:
        """There is no connection to the MQTT broker."""
        self._connection("no connection", why, why)

    def unheard(self, refused: Sequence[str]) -> None:
        """The MQTT broker does not grant these topics."""
        what = ", ".join(refused)
        self._connection("not heard", what, f"the broker refuses a subscription to {what}: check its access rules")

    def begins(self, task: LiveTask) -> None:
        """A task is served."""
        self.watch.served(task.name, yes=True)
        self.watch.task(task.name, 4 * task.layout.size)
        self.watch.version(task.name, task.version.number, task.version.created_s)
        self.watch.evaluated(task.name, task.version.number, task.version.metrics)

    def refused(self, task: str, why: str, contact: Contact, *, alone: bool) -> None:
        """A task is not served, since another aggregator serves it; `alone`: the command ends with that line."""
        self.watch.served(task, yes=False)
        self.watch.met(task, contact)
        if not alone:
            _LOG.error("%s", why, extra={"task": task, "reason": contact})

    def met(self, task: str, other: str, own: str, contact: Contact) -> bool:
        """An aggregator with the ledger `other` has to do with a task that is served here; whether a line was due."""
        self.watch.met(task, contact)
        # Whichever other ledger it has: who publishes may invent one a message.
        reason = f"{contact} by a copy" if other == own else contact
        return self.complain(f"task {task}", reason, rivals.told(contact, other, own), level=logging.ERROR)

    def changed(self, task: LiveTask, before: Task) -> None:
        """A task goes on with other settings."""
        told = ", ".join(f"{key} {old} → {new}" for key, old, new in differences(before, task.settings))
        _LOG.info("task %s: %s", task.name, told, extra={"task": task.name})

    def rests(self, task: LiveTask) -> None:
        """Whether versions of a task are made; told when that changes."""
        if task.rest != self._rests.get(task.name, ""):
            told = f"rests: {task.rest}; new data lets it go on" if task.rest else "goes on"
            _LOG.info("task %s %s", task.name, told, extra={"task": task.name})
            self.watch.rests(task.name, rests=bool(task.rest))
        self._rests[task.name] = task.rest

    def ends(self, task: LiveTask) -> None:
        """A task is served no longer."""
        self.watch.ended(task.name)
        _LOG.info("task %s is removed: it is served no longer", task.name, extra={"task": task.name})

    def counted(
        self,
        read: Sequence[Incoming],
        asked: Sequence[Entry | Withdrawal],
        admissions: Sequence[Admission],
        seconds: float,
    ) -> None:
        """Messages have been read, and the ledger has answered what they asked, within so long."""
        for said in read:
            match said:
                case Rejected(device, reason, detail):
                    if reason != SHARE:
                        self.watch.rejected(reason)
                        detail = f"dropped bytes: {detail}"
                    self.complain(device, reason, detail)
                case FrameIn(task, device, _, frame):
                    self.watch.kept(task, device, frame.update.indices.size * frame.parts)
        if asked:
            self.watch.committed(seconds)
        for each, admission in zip(asked, admissions, strict=True):
            self._admitted(each, admission)
            if self._turns.heard((each.task, each.device), each.epoch):
                self.complain(each.device, "two-boards", namesakes.SAID)

    def cleared(self, task: str) -> None:
        """Somebody has cleared the announcement of a task."""
        self._connection(task, "cleared", "what it had retained on the MQTT broker was cleared: it is published again")

    def lost(self, device: str, frames: int) -> None:
        """A device has settled frames that this ledger has never seen."""
        self.watch.lost(frames)
        told = "are unknown to this ledger: the backup that was restored is older; what they carried is lost"
        self.complain(device, "lost-to-restore", f"{frames} frames that it has settled {told}")

    def _admitted(self, asked: Entry | Withdrawal, admission: Admission) -> None:
        reason = "" if admission.refusal is None else admission.refusal.reason
        self.watch.answered(asked.task, admission.verdict, reason)
        if isinstance(asked, Entry) and admission.verdict is Verdict.APPLIED:
            self.watch.applied(asked.task, len(asked.body), asked.parts, asked.base_version)
        if _LOG.isEnabledFor(logging.DEBUG):
            fields = identity(
                asked.task, asked.device, asked.epoch, asked.sequence, verdict=admission.verdict.value, reason=reason
            )
            _LOG.debug("frame %d %s", asked.sequence, admission.verdict, extra=fields)
        if reason:
            self.complain(asked.device, reason, f"frame {asked.sequence} is not counted: {reason}")

    def caught_up(self, task: LiveTask, was: int) -> None:
        """A task goes on above what the fleet knows."""
        told = f"the fleet knows newer versions than {was}: an older ledger was put back; what came after it is lost"
        self.complain(task.name, "older-ledger", f"{told}, and the task continues as version {task.version.number}")

    def judged(self, task: LiveTask, judged: Judged) -> None:
        """What waited has become a version that the fleet sees, or one that is held back and another instead."""
        version = judged.current
        self.watch.closed(task.name)
        self.watch.version(task.name, version.number, version.created_s)
        fields = {"task": task.name, "version": judged.made.number}
        if judged.held:
            self.watch.held(task.name, judged.made.number, judged.held)
            told = "task %s: version %d is held back: %s; the fleet gets the last good parameters again, as version %d"
            _LOG.error(told, task.name, judged.made.number, judged.held, version.number, extra=fields)
            return
        _LOG.info(
            "task %s: version %d from %s%s", task.name, version.number, counted(version.updates, "update"),
            f": {worth(version.metrics)}" if version.metrics else "", extra=fields,
        )  # fmt: skip

    def evaluated(self, task: LiveTask, found: Evaluated, points: Sequence[Point]) -> None:
        """It is known what a version is worth, or why not; a learning curve that shows no learning is told once."""
        if found.error:
            self.complain(task.name, "evaluation", f"version {found.version} is not evaluated: {found.error}")
        self.watch.evaluated(task.name, found.version, found.metrics)
        if found.version < task.news_from:
            return
        if found.metrics and found.version <= task.version.number:  # it is out already; of others `judged` tells
            _LOG.info("task %s: version %d: %s", task.name, found.version, worth(found.metrics))
        wrong = finding(task.name, [(each.number, each.metrics) for each in points], task.settings.policy.learning_rate)
        self.watch.learns(task.name, "" if wrong is None else wrong.kind)
        if wrong is None:
            return
        before = self._findings.get((task.name, wrong.kind))
        if before is None or found.version - before > SAME_TIME:
            _LOG.warning("task %s: %s", task.name, wrong.text, extra={"task": task.name, "reason": wrong.kind})
        self._findings[task.name, wrong.kind] = found.version
