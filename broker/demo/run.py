"""The whole loop on one machine, with real processes: the third composition root.

Starts an MQTT broker, an aggregator and devices, kills two of them at mid-run, and checks from outside
that nothing was lost or counted twice.
"""

import json
import random
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from broker.demo import document, files, report
from broker.demo.observer import Moment, Observer
from broker.demo.plan import AGGREGATOR, TASK, Plan
from broker.demo.supervisor import Supervisor
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.processes.embedded import EmbeddedBroker
from broker.settings import Aggregator
from broker.task.new import add_task
from edgeclient.settings import load

_KILL_DEVICE_AT: Final = 0.4  # of the run
_KILL_AGGREGATOR_AT: Final = 0.5
_PATIENCE_S: Final = 10.0
_START_S: Final = 30.0  # within which devices learn, however busy the machine is


def run(plan: Plan) -> bool:
    """Run the demo and write the report; whether the account adds up.

    Raises:
        DemoError, EmbeddedBrokerError: it cannot run, or a process ended by itself.
    """
    began_s = time.monotonic()
    plan = replace(plan, out=plan.out.resolve())
    files.make_folder(plan)
    bundle = files.bundle()
    with ExitStack() as stack:
        mqtt = stack.enter_context(EmbeddedBroker(plan.out / "mqtt"))
        page_port = files.page_port() if plan.web else None
        files.write_aggregator(plan.config(AGGREGATOR), mqtt.port, page_port)
        devices = files.write_devices(plan, mqtt.port)
        settings = load(plan.config(AGGREGATOR), Aggregator)
        add_task(settings, TASK, bundle, files.task(plan))

        observer = stack.enter_context(Observer(mqtt.port))
        observer.connect(_PATIENCE_S)
        supervisor = stack.enter_context(Supervisor(plan.config, plan.log, sabotage=plan.sabotage))
        for name in (AGGREGATOR, *devices):
            supervisor.start(name)
        if page_port is not None:
            _tell_page(observer, page_port)
        with open_ledger(settings.ledger, read_only=True) as ledger:
            moments, events = _learn(plan, observer, supervisor, ledger, devices)
            _settle(observer, supervisor, ledger, devices)
    made = report.make(plan, settings, bundle, devices, observer, moments)
    made |= {"events": events, "kills": len(events), "seconds": round(time.monotonic() - began_s, 1)}
    _write(plan, made)
    return report.adds_up(made)


def _tell_page(observer: Observer, port: int) -> None:
    """Its address, as soon as somebody answers there."""
    until_s = observer.now.seconds + _PATIENCE_S
    while observer.now.seconds < until_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        observer.wait(0.1)
    print(f"watch it live: http://127.0.0.1:{port}", flush=True)


def _learn(
    plan: Plan, observer: Observer, supervisor: Supervisor, ledger: Ledger, devices: Sequence[str]
) -> tuple[dict[int, Moment], list[str]]:
    """From the first model on a device until the time is over; when each version was seen, and what happened."""
    from broker.demo import terminal  # noqa: PLC0415 (rich: only where it draws)

    victim = random.Random(plan.seed).choice(devices)  # noqa: S311 (which device, not a secret)
    due = [(_KILL_DEVICE_AT, victim), (_KILL_AGGREGATOR_AT, AGGREGATOR)]
    began_s = _START_S
    moments: dict[int, Moment] = {}
    events: list[str] = []
    with terminal.display() as show:
        while (now := observer.now).seconds < began_s + plan.seconds:
            versions = ledger.versions(TASK)
            moments.setdefault(versions[-1].number, now)
            show(terminal.View(now, versions, observer.fleet.devices(TASK), observer.uploaded_bytes, events))
            observer.wait(0.25)
            if any(device.said.version >= 0 for device in observer.fleet.devices(TASK).values()):
                began_s = min(began_s, now.seconds)
            if due and now.seconds >= began_s + due[0][0] * plan.seconds:
                name = due.pop(0)[1]
                if supervisor.kill(name):
                    events.append(f"{observer.now.seconds:.0f} s: {name} killed with SIGKILL and started again")
                supervisor.start(name)
            supervisor.check()
    return moments, events


def _settle(observer: Observer, supervisor: Supervisor, ledger: Ledger, devices: Sequence[str]) -> None:
    """Stop the devices, let the aggregator finish what it has, stop it."""
    supervisor.end(devices)
    until_s = observer.now.seconds + _PATIENCE_S
    while observer.now.seconds < until_s and not all(version.metrics for version in ledger.versions(TASK)):
        observer.wait(0.25)
    supervisor.end([AGGREGATOR])
    observer.wait(0.25)


def _write(plan: Plan, made: dict[str, Any]) -> None:
    (plan.out / "report.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    here = Path.cwd()
    out = plan.out.relative_to(here) if plan.out.is_relative_to(here) else plan.out
    (plan.out / "report.html").write_text(document.page(made, str(out)), encoding="utf-8")
    print(f"{document.closing(made)}\nreport: {out / 'report.html'}")
