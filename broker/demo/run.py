"""The whole loop on one machine, with real processes: the third composition root.

Starts an MQTT broker, an aggregator and devices, kills two of them at mid-run, and checks from outside
that nothing was lost or counted twice.
"""

import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.demo import data
from broker.demo.traffic import Traffic
from broker.ledger.opening import open_ledger
from broker.ledger.rows import Version
from broker.monitor.fleet import Fleet
from broker.monitor.text import size
from broker.processes import children
from broker.processes.embedded import EmbeddedBroker
from broker.registry.blobs import Blobs
from broker.service import add_task
from broker.settings import Aggregator, Monitor, Task
from broker.upkeep import accounts
from edgeclient import failpoint
from edgeclient.bundle import archive
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.settings import Mqtt
from edgeclient.wire import topics
from edgeclient.wire.announcement import Policy
from edgeclient.wire.errors import WireError

TASK: Final = "watch-har"
_KILL_DEVICE_AT: Final = 0.4  # of the run
_KILL_AGGREGATOR_AT: Final = 0.5
_SETTLE_S: Final = 10.0


class DemoError(Exception):
    """The demo cannot run here, or a process ended by itself; one line that says which and where its log is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `edgebroker demo` was asked for; see its options."""

    out: Path
    seconds: float
    devices: int
    density: float
    seed: int
    sabotage: str | None
    web: bool = True


@dataclass(slots=True)
class _Run:
    """Everything that is alive during the demo."""

    plan: Plan
    settings: Aggregator
    task: Task
    observer: Link
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    fleet: Fleet = field(default_factory=Fleet)
    events: list[str] = field(default_factory=list)
    kills: int = 0
    started_s: float = field(default_factory=time.monotonic)
    uplink_at: dict[int, tuple[float, int]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_s


def run(plan: Plan) -> bool:
    """Run the demo and write the report; whether the account adds up.

    Raises:
        DemoError, EmbeddedBrokerError: it cannot run, or a process ended by itself.
    """
    began_s = time.monotonic()
    out = _fresh(plan.out.resolve())
    try:
        content = data.bundle_bytes()
    except FileNotFoundError:
        missing = "the demo's recordings are no part of the installed package"
        raise DemoError(f"{missing}: clone the repository and run tools/demo there") from None
    devices = _write_devices(out, plan)
    _write_held_out(out)
    with ExitStack() as stack:
        mqtt = stack.enter_context(EmbeddedBroker(out / "mqtt"))
        settings = Aggregator(directory=out / "aggregator", mqtt=Mqtt(port=mqtt.port))
        page = _page_port() if plan.web else None
        _write_configs(out, plan, devices, mqtt.port, page)
        task = _task(out, plan)
        add_task(settings, TASK, content, task)
        observer = Link(Endpoint("127.0.0.1", mqtt.port), client_id_prefix="observer")
        stack.callback(observer.stop)
        observer.start()
        demo = _Run(plan, settings, task, observer)
        stack.callback(lambda: children.end_all(demo.processes.values()))
        _wait_for_observer(demo)
        for name in ("aggregator", *devices):
            _start(demo, out, name)
        if page is not None:
            _tell_page(demo, page)
        _learn(demo, out, devices)
        _settle(demo, devices)
    report = _report(demo, out, devices, content)
    report["seconds"] = round(time.monotonic() - began_s, 1)
    _write_report(demo, out, report)
    return bool(report["law_holds"] and not report["frames_lost"] and not report["frames_doubled"])


# Before: files that a person would write by hand


def _fresh(out: Path) -> Path:
    if out.exists() and any(out.iterdir()):
        if not (out / "aggregator.toml").exists():
            raise DemoError(f"{out} is not empty and not an earlier demo's: choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write_devices(out: Path, plan: Plan) -> list[str]:
    """Every device gets a file with its own windows and no others."""
    names = []
    for person, side in data.DEVICES[: plan.devices]:
        name = f"person-{person}-{'left' if side == 0 else 'right'}"
        x, labels = data.device_windows(person, side)
        (out / "devices" / name).mkdir(parents=True)
        np.savez(out / "devices" / name / "windows.npz", x=x, labels=labels)
        names.append(name)
    return names


def _write_held_out(out: Path) -> None:
    x, labels = data.held_out_windows()
    np.savez(out / "held_out.npz", x=x, labels=labels)


def _page_port() -> int:
    """The usual one, or any when that is taken: the aggregator must find it again after its death."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", Monitor().port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_configs(out: Path, plan: Plan, devices: list[str], port: int, page: int | None) -> None:
    monitor = "enabled = false" if page is None else f"port = {page}"
    (out / "aggregator.toml").write_text(f'directory = "aggregator"\n[mqtt]\nport = {port}\n[monitor]\n{monitor}\n')
    for name in devices:
        (out / "devices" / name / "device.toml").write_text(
            f'device = "{name}"\ntask = "{TASK}"\ndirectory = "state"\naudit = true\n'
            f"[mqtt]\nport = {port}\n"
            '[data]\nsource = "windows.npz"\n'
            f"[training]\nseed = {plan.seed}\n"
            "[upload]\nstatus_every_s = 1.0\n"
            # A demo of many processes on one machine is load by itself.
            '[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n'
        )


def _task(out: Path, plan: Plan) -> Task:
    return Task(
        goal=max(1, plan.devices // 2),
        deadline_s=5.0,
        min_interval_s=1.0,
        evaluation=str(out / "held_out.npz"),
        keep_frames_of_versions=-1,
        # From a study over 12 seeds: 0.65 and more from version 12 on; lr 0.02 and one pass need 46.
        policy=Policy(density=plan.density, learning_rate=0.04, local_epochs=3),
    )


# During: processes, a live view, two kills


def _start(demo: _Run, out: Path, name: str) -> None:
    environment = dict(os.environ)
    promise = demo.plan.sabotage
    if promise is not None:
        environment[failpoint.VARIABLE] = f"sabotage.{promise}=on"
    if name == "aggregator":
        command = [sys.executable, "-m", "broker.cli", "serve", str(out / "aggregator.toml")]
    else:
        command = [sys.executable, "-m", "edgeclient.cli", "run", str(out / "devices" / name / "device.toml")]
    (out / "logs").mkdir(exist_ok=True)
    demo.processes[name] = children.spawn(command, log=out / "logs" / f"{name}.log", env=environment)


def _kill(demo: _Run, out: Path, name: str) -> None:
    """SIGKILL and start again; counts only when the signal ended a live process."""
    process = demo.processes[name]
    process.kill()
    if process.wait() == -signal.SIGKILL:
        demo.kills += 1
        demo.events.append(f"{demo.seconds:.0f} s: {name} killed with SIGKILL and started again")
    _start(demo, out, name)


def _wait_for_observer(demo: _Run) -> None:
    """Nobody publishes before the observer listens, so that no byte goes uncounted."""
    while True:
        for event in demo.observer.poll(1.0):
            if isinstance(event, Connected):
                demo.observer.subscribe(*(topics.everyone(TASK, kind) for kind in ("up", "down", "status")))
                return
        if demo.seconds > _SETTLE_S:
            raise DemoError("the MQTT broker does not answer")


def _tell_page(demo: _Run, port: int) -> None:
    """Its address, as soon as somebody answers there."""
    until_s = demo.seconds + _SETTLE_S
    while demo.seconds < until_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        _observe(demo, 0.1)
    print(f"watch it live: http://127.0.0.1:{port}", flush=True)


def _learn(demo: _Run, out: Path, devices: list[str]) -> None:
    victim = random.Random(demo.plan.seed).choice(devices)  # noqa: S311 (which device, not a secret)
    due = [(_KILL_DEVICE_AT, victim), (_KILL_AGGREGATOR_AT, "aggregator")]
    parameters = archive.decode(data.bundle_bytes()).manifest.layout.size
    with open_ledger(demo.settings.ledger, read_only=True) as ledger, _display() as show:
        while demo.seconds < demo.plan.seconds:
            _observe(demo, 0.25)
            if due and demo.seconds >= due[0][0] * demo.plan.seconds:
                _kill(demo, out, due.pop(0)[1])
            versions = ledger.versions(TASK)
            demo.uplink_at.setdefault(versions[-1].number, (demo.seconds, demo.traffic.bytes["up"]))
            show(demo, versions, parameters)
            for name, process in demo.processes.items():
                if process.poll() is not None:
                    raise DemoError(f"{name} ended by itself: {_last_line(out / 'logs' / f'{name}.log')}")


def _observe(demo: _Run, timeout_s: float) -> None:
    for event in demo.observer.poll(timeout_s):
        if isinstance(event, Message):
            demo.observer.acknowledge(event)
            if not event.retained:
                demo.traffic.hear(event.topic, len(event.payload))
            with suppress(WireError):  # what is no status is not for the book
                demo.fleet.hear(event.topic, event.payload)


def _settle(demo: _Run, devices: list[str]) -> None:
    """Stop the devices, let the aggregator finish what it has, stop it."""
    children.end_all(demo.processes[name] for name in devices)
    with open_ledger(demo.settings.ledger, read_only=True) as ledger:
        until_s = demo.seconds + _SETTLE_S
        while demo.seconds < until_s and not all(version.metrics for version in ledger.versions(TASK)):
            _observe(demo, 0.25)
    children.end(demo.processes["aggregator"])
    _observe(demo, 0.25)


@contextmanager
def _display() -> Iterator[Callable[[_Run, list[Version], int], None]]:
    """A live table on a terminal, a line every five seconds elsewhere."""
    from rich.live import Live  # noqa: PLC0415 (only where it draws)

    from broker.demo import terminal  # noqa: PLC0415

    def view(demo: _Run, versions: list[Version], size: int) -> terminal.View:
        updates = sum(version.updates for version in versions)
        return terminal.View(
            seconds=demo.seconds,
            version=versions[-1].number,
            updates=updates,
            accuracies=[version.metrics["accuracy"] for version in versions if "accuracy" in version.metrics],
            uplink_bytes=demo.traffic.bytes["up"],
            dense_bytes=4 * size * updates,
            devices={name: device.said for name, device in demo.fleet.devices(TASK).items()},
            uplink_by_device=demo.traffic.up_by_device,
            events=demo.events,
        )

    if sys.stdout.isatty():
        with Live(refresh_per_second=4) as live:
            yield lambda demo, versions, size: live.update(terminal.table(view(demo, versions, size)))
        return
    told_s = [-5.0]

    def tell(demo: _Run, versions: list[Version], size: int) -> None:
        if demo.seconds - told_s[0] >= 5:
            told_s[0] = demo.seconds
            print(terminal.headline(view(demo, versions, size)), flush=True)

    yield tell


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} ({log})"


# After: the account, from outside


def _report(demo: _Run, out: Path, devices: list[str], content: bytes) -> dict[str, Any]:
    size = archive.decode(content).manifest.layout.size
    with open_ledger(demo.settings.ledger, read_only=True) as ledger:
        versions = ledger.versions(TASK)
        configs = {name: out / "devices" / name / "device.toml" for name in devices}
        found = [accounts.examine(ledger, TASK, name, config) for name, config in configs.items()]
        counts = ledger.frame_counts(TASK)
        updates = sum(version.updates for version in versions) + ledger.pending(TASK).updates
        remade = accounts.remade(ledger, Blobs(demo.settings.registry), TASK, demo.task.learning_rate)
    uplink, dense = demo.traffic.bytes["up"], 4 * size * updates
    # The end may come before the last version is evaluated.
    evaluated = [version.metrics for version in versions if version.metrics] or [versions[0].metrics]
    return {
        "accuracy_before": evaluated[0].get("accuracy"),
        "accuracy_after": evaluated[-1].get("accuracy"),
        "majority_baseline": evaluated[0].get("majority"),
        "versions": versions[-1].number,
        "versions_remade": remade,
        "devices": len(devices),
        "updates_applied": updates,
        "frames_applied": sum(applied for applied, _, _ in counts.values()),
        "frames_refused": sum(refused for _, refused, _ in counts.values()),
        "frames_waiting": sum(account.waiting for account in found),
        "frames_lost": sum(account.lost for account in found),
        "frames_doubled": sum(doubled for _, _, doubled in counts.values()),
        "law_holds": all(account.law_holds for account in found) and remade == versions[-1].number,
        "law_worst_error": max(account.worst_error for account in found),
        "residuals_dropped": sum(account.renewals for account in found),
        "uplink_bytes": uplink,
        "dense_bytes": dense,
        "reduction": dense / uplink if uplink else 0.0,
        "downlink_bytes": demo.fleet.downlink_bytes,
        "receipt_bytes": demo.traffic.bytes["down"],
        "status_bytes": demo.traffic.bytes["status"],
        "socket_bytes": demo.fleet.socket_bytes,
        "kills": demo.kills,
        "seconds": demo.seconds,
        "density": demo.plan.density,
        "seed": demo.plan.seed,
        "sabotage": demo.plan.sabotage,
        "parameters": size,
        "host": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "curve": [_point(demo, version, versions, size) for version in versions],
        "accounts": [asdict(account) for account in found],
    }


def _point(demo: _Run, version: Version, versions: list[Version], size: int) -> dict[str, Any]:
    seconds, uplink = demo.uplink_at.get(version.number, (None, demo.traffic.bytes["up"]))
    updates = sum(each.updates for each in versions if each.number <= version.number)
    return {
        "version": version.number,
        "seconds": seconds,
        "accuracy": version.metrics.get("accuracy"),
        "uplink_bytes": uplink,
        "dense_bytes": 4 * size * updates,
    }


def _write_report(demo: _Run, out: Path, report: dict[str, Any]) -> None:
    from broker.demo import charts as pages  # noqa: PLC0415 (matplotlib takes a second)

    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "report.html").write_text(pages.page(report, demo.events))
    before, after, majority = (
        "?" if report[key] is None else f"{report[key]:.3f}"
        for key in ("accuracy_before", "accuracy_after", "majority_baseline")
    )
    law = "holds" if report["law_holds"] else "IS BROKEN"
    for event in demo.events:
        print(event)
    print(
        f"accuracy on people never seen: {before} → {after} (always the most common class: {majority})\n"
        f"uploaded: {size(report['uplink_bytes'])}, as dense float32: {size(report['dense_bytes'])},"
        f" {report['reduction']:.0f} times fewer\n"
        f"frames: {report['frames_applied']} applied, {report['frames_lost']} lost, {report['frames_doubled']} counted"
        f" twice, {report['frames_waiting']} still waiting\n"
        f"the law of conservation {law} for {report['devices']} devices;"
        f" {report['versions_remade']} of {report['versions']} versions made again bit for bit\n"
        f"report: {_shown(out / 'report.html')}"
    )


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
