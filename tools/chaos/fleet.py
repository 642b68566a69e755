"""`--fleet`: real devices, aggregator and broker; bad links, no link, and SIGKILL from a seed."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.demo.plan import AGGREGATOR
from broker.demo.supervisor import Supervisor
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.settings import Aggregator
from tools.chaos import brokers, schedule
from tools.chaos.plan import TASK, Plan, drain_only, write
from tools.chaos.proxy import Proxy
from tools.chaos.schedule import BROKER, Sample
from tools.chaos.traffic import Sent

# Not "tombstone": over one connection no copy comes after its withdrawal, so a fleet would rarely notice.
SABOTAGE: Final = ("drop", "double", "residual")
_OPEN: Final = ("queued", "sent", "withdrawing")
_TICK_S: Final = 0.1
_TELL_S: Final = 5.0
_PAUSE_S: Final = 1.0  # after a process that ended by itself
# Without an update for so long, the fleet is stuck.
_PATIENCE_S: Final = 60.0


class FleetError(Exception):
    """Processes do not stay up; one line that says which and where its log is."""


@dataclass(slots=True)
class Run:
    """Everything that is alive, and what has happened."""

    plan: Plan
    settings: Aggregator
    broker: brokers.Broker
    proxy: Proxy
    ledger: Ledger
    sent: Sent
    supervisor: Supervisor
    say: Callable[[str], None]
    began_s: float = field(default_factory=time.monotonic)
    restarts: list[tuple[float, str]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    outage: tuple[float, float] | None = None
    died: list[str] = field(default_factory=list)  # by themselves
    recovered: bool = False
    drained: bool = False

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began_s

    @property
    def updates(self) -> int:
        """Applied as of the last look."""
        return self.samples[-1].updates if self.samples else 0


def run(plan: Plan, say: Callable[[str], None], examine: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """Run the fleet to its end; what `examine` says when all processes have ended.

    Raises:
        FleetError, BrokerError, EmbeddedBrokerError: it cannot run.
    """
    shutil.rmtree(plan.out, ignore_errors=True)
    plan.out.mkdir(parents=True)
    broker: brokers.Broker = brokers.KINDS[plan.broker](plan.out / "mqtt")
    sent = Sent()
    with ExitStack() as stack:
        stack.callback(broker.stop)
        broker.start()
        proxy = stack.enter_context(Proxy(broker.port, plan.seed, plan.faults, sent.connection))
        settings = write(plan, broker.port, {name: proxy.open(name) for name in plan.names})
        ledger = stack.enter_context(open_ledger(settings.ledger, read_only=True))
        supervisor = stack.enter_context(Supervisor(plan.config, plan.log, sabotage=plan.sabotage))
        fleet = Run(plan, settings, broker, proxy, ledger, sent, supervisor, say)
        for name in (AGGREGATOR, *plan.names):
            _start(fleet, name)
        _work(fleet)
        _drain(fleet)
        supervisor.end(plan.names)
        supervisor.end([AGGREGATOR])
        return examine(fleet)


def _start(fleet: Run, name: str) -> None:
    if name == BROKER:
        fleet.broker.start()
    else:
        fleet.supervisor.start(name)


def _kill(fleet: Run, kill: schedule.Kill) -> None:
    """SIGKILL; counts only when it ended something alive."""
    if any(name == kill.victim for _, name in fleet.restarts):
        return  # dead already
    if kill.victim == BROKER:
        fleet.kills[BROKER] += brokers.kill(fleet.broker)
    else:
        kind = AGGREGATOR if kill.victim == AGGREGATOR else "device"
        fleet.kills[kind] += fleet.supervisor.kill(kill.victim)
    fleet.restarts.append((fleet.seconds + kill.pause_s, kill.victim))


def _work(fleet: Run) -> None:
    """Until enough is applied and every kind has been killed once; stuck fleets are let go."""
    plan = fleet.plan
    plot = schedule.kills(plan.seed, plan.names, plan.kill_every_s)
    due = next(plot)
    due_s, told_s, moved_s = due.after_s, -_TELL_S, 0.0
    wanted = {"device", AGGREGATOR, BROKER} if plan.kill_every_s else set()
    cut_s: float | None = None
    while fleet.updates < plan.updates or not wanted <= fleet.kills.keys() or cut_s is not None:
        time.sleep(_TICK_S)
        before = fleet.updates
        _look(fleet)
        now = fleet.seconds
        if fleet.updates > before or cut_s is not None:
            moved_s = now
        if now - moved_s > _PATIENCE_S:
            fleet.say(f"{now:.0f} s: nothing was applied for {_PATIENCE_S:.0f} s: stuck")
            return
        if plan.outage_s and fleet.outage is None and cut_s is None and 2 * fleet.updates >= plan.updates:
            cut_s = now
            fleet.proxy.cut()
            fleet.say(f"{now:.0f} s: no link for {plan.outage_s:.0f} s")
        if cut_s is not None and now >= cut_s + plan.outage_s:
            fleet.proxy.mend()
            fleet.outage, cut_s = (cut_s, now), None
            fleet.say(f"{now:.0f} s: the links are back")
        _restart_due(fleet)
        if _may_kill(fleet, cut_s) and plan.kill_every_s and now >= due_s:
            _kill(fleet, due)
            due = next(plot)
            due_s = now + due.after_s
        if now - told_s >= _TELL_S:
            told_s = now
            fleet.say(_line(fleet))


def _may_kill(fleet: Run, cut_s: float | None) -> bool:
    """Not between a cut and the recovery from it, so that it is the recovery that is measured."""
    if fleet.outage is not None and not fleet.recovered:
        fleet.recovered = schedule.recovery(fleet.samples, *fleet.outage)[1] is not None
    return cut_s is None and (fleet.outage is None or fleet.recovered)


def _look(fleet: Run) -> None:
    versions = fleet.ledger.versions(TASK)
    updates = sum(version.updates for version in versions) + fleet.ledger.pending(TASK).updates
    fleet.samples.append(Sample(fleet.seconds, updates))
    processes = fleet.supervisor.processes
    for name, process in processes.items():
        if process.poll() is not None and not any(name == dead for _, dead in fleet.restarts):
            fleet.died.append(name)
            fleet.say(f"{fleet.seconds:.0f} s: {name} ENDED BY ITSELF, see {fleet.plan.log(name)}")
            if len(fleet.died) > len(processes):
                raise FleetError(f"{name} and others end again and again, see {fleet.plan.log(name)}")
            fleet.restarts.append((fleet.seconds + _PAUSE_S, name))


def _restart_due(fleet: Run) -> None:
    for at_s, name in [each for each in fleet.restarts if each[0] <= fleet.seconds]:
        fleet.restarts.remove((at_s, name))
        _start(fleet, name)


def _line(fleet: Run) -> str:
    counters, killed = fleet.proxy.counters, ", ".join(f"{count} {kind}" for kind, count in fleet.kills.items())
    return (
        f"{fleet.seconds:.0f} s: {fleet.updates} updates applied, {counters.up_bytes / 1e6:.2f} MB sent,"
        f" {counters.resets} resets, {counters.stalls} stalls, killed: {killed or 'nobody'}"
    )


def _drain(fleet: Run) -> None:
    """Devices start again and only send, until every outbox is empty: the load they see is over their limit."""
    for _, name in fleet.restarts:
        _start(fleet, name)
    fleet.restarts.clear()
    plan = fleet.plan
    fleet.supervisor.end(plan.names)
    for name in plan.names:
        drain_only(plan, name)
        (plan.out / name / "state" / "status.json").unlink(missing_ok=True)
        _start(fleet, name)
    moved_s, best = fleet.seconds, -1
    while fleet.seconds - moved_s < _PATIENCE_S:
        time.sleep(_TICK_S)
        _look(fleet)
        _restart_due(fleet)
        waiting = [_open_frames(plan.out / name / "state") for name in plan.names]
        open_ = sum(each or 0 for each in waiting)
        if open_ == 0 and None not in waiting:
            fleet.drained = True
            return
        if open_ != best:
            moved_s, best = fleet.seconds, open_
    fleet.say(f"{fleet.seconds:.0f} s: {best} frames do not get away: stuck")


def _open_frames(state: Path) -> int | None:
    """Frames that a device has not settled, by its own word; None while it says nothing."""
    try:
        said = json.loads((state / "status.json").read_text())
    except FileNotFoundError:
        return None
    return None if said["version"] < 0 else sum(said.get(state, 0) for state in _OPEN)
