"""What a person would write by hand before the first start: data, and a configuration for everybody."""

import shutil
import socket
from pathlib import Path

import numpy as np

from broker.demo import data
from broker.demo.plan import AGGREGATOR, TASK, DemoError, Plan
from broker.settings import Monitor, Task
from edgeclient.settings import Source
from edgeclient.wire.announcement import Policy


def make_folder(plan: Plan) -> None:
    """An empty folder; DemoError when there is something in it that is no earlier demo's."""
    out = plan.out
    if out.exists() and any(out.iterdir()):
        if not plan.config(AGGREGATOR).exists():
            raise DemoError(f"{out} is not empty and not an earlier demo's: choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def bundle() -> bytes:
    """The training bundle; DemoError when the package was installed without it."""
    try:
        return data.bundle_bytes()
    except FileNotFoundError:
        missing = "the demo's recordings are no part of the installed package"
        raise DemoError(f"{missing}: clone the repository and run tools/demo there") from None


def write_aggregator(config: Path, mqtt_port: int, page_port: int | None = None) -> None:
    """Its configuration; without a page unless there is a port for it."""
    monitor = "enabled = false" if page_port is None else f"port = {page_port}"
    config.write_text(f'directory = "aggregator"\n[mqtt]\nport = {mqtt_port}\n[monitor]\n{monitor}\n', encoding="utf-8")


def write_windows(folder: Path, person: int, side: int) -> None:
    """What one wrist recorded, as windows.npz."""
    x, labels = data.device_windows(person, side)
    np.savez(folder / "windows.npz", x=x, labels=labels)


def write_device(
    config: Path, name: str, mqtt_port: int, *, task: str = TASK, source: str = "windows.npz", audit: bool = True,
    more: str = "",
) -> None:  # fmt: skip
    """The configuration of a device that never waits for better conditions; `more` are further tables."""
    config.write_text(
        f'device = "{name}"\ntask = "{task}"\ndirectory = "state"\naudit = {str(audit).lower()}\n'
        f'[mqtt]\nport = {mqtt_port}\n[data]\nsource = "{source}"\n'
        # A fleet of processes on one machine is load by itself.
        f'[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n{more}',
        encoding="utf-8",
    )


def write_devices(plan: Plan, mqtt_port: int) -> list[str]:
    """Every device gets a configuration and its own windows, no others; their names."""
    names = []
    for person, side in data.DEVICES[: plan.devices]:
        name = f"person-{person}-{'left' if side == 0 else 'right'}"
        config = plan.config(name)
        config.parent.mkdir(parents=True)
        write_windows(config.parent, person, side)
        more = f"[training]\nseed = {plan.seed}\n[upload]\nstatus_every_s = 1.0\n"
        write_device(config, name, mqtt_port, more=more)
        names.append(name)
    return names


def task(plan: Plan) -> Task:
    """Settings of the task; writes the windows that versions are evaluated on."""
    held_out = plan.out / "held_out.npz"
    x, labels = data.held_out_windows()
    np.savez(held_out, x=x, labels=labels)
    return Task(
        goal=max(1, plan.devices // 2),
        deadline_s=5.0,
        min_interval_s=1.0,
        evaluation=Source(str(held_out)),
        keep_frames_of_versions=-1,
        # From a study over 12 seeds: 0.65 and more from version 12 on; lr 0.02 and one pass need 46.
        policy=Policy(density=plan.density, learning_rate=0.04, local_epochs=3),
    )


def page_port() -> int:
    """The usual one, or any when that is taken: the aggregator must find it again after its death."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", Monitor().port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
