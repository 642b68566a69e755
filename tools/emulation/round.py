"""One round of training by an emulated device, against a real MQTT broker and aggregator on this machine."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.demo import data
from broker.ledger.opening import open_ledger
from broker.processes import children
from broker.processes.embedded import EmbeddedBroker
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from broker.upkeep import accounts
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.settings import Mqtt
from edgeclient.wire import announcement, messages, status, topics

TASK: Final = "watch-har"
DEVICE: Final = "emulated"
_ROUND_S: Final = 180.0
_GRACE_S: Final = 30.0  # an emulated process ends some seconds after it was asked


class RoundError(Exception):
    """The round did not come about, or its account is wrong; says what."""


def one_round(python: Path, environment: Mapping[str, str], folder: Path) -> str:
    """Fetch, train, upload, aggregate, announce, until the device has its receipt; then the account of both sides.

    Args:
        python: of the emulated environment.
        environment: of the emulated processes.
        folder: emptied; keeps configuration, stores and logs.

    Returns:
        What happened, for people.

    Raises:
        RoundError: see there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    config = folder / "device" / "device.toml"
    with ExitStack() as stack:
        mqtt = stack.enter_context(EmbeddedBroker(folder / "mqtt"))
        aggregator = Aggregator(directory=folder / "aggregator", mqtt=Mqtt(port=mqtt.port))
        add_task(aggregator, TASK, data.bundle_bytes(), Task(goal=1, min_interval_s=0, keep_frames_of_versions=-1))
        (folder / "aggregator.toml").write_text(
            f'directory = "aggregator"\n[mqtt]\nport = {mqtt.port}\n[monitor]\nenabled = false\n'
        )
        _write_device(config, mqtt.port)
        observer = Link(Endpoint("127.0.0.1", mqtt.port), client_id_prefix="observer")
        stack.callback(observer.stop)
        observer.start()
        running: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(lambda: children.end_all(running.values(), grace_s=_GRACE_S))
        serve = [sys.executable, "-m", "broker.cli", "serve", str(folder / "aggregator.toml")]
        running["aggregator"] = children.spawn(serve, log=folder / "aggregator.log")
        take_part = [str(python), "-m", "edgeclient.cli", "run", str(config)]
        running["device"] = children.spawn(take_part, log=folder / "device.log", env=environment)
        _await_round(observer, running, folder)
        children.end(running["device"], grace_s=_GRACE_S)
        if running["device"].returncode != 0:
            raise RoundError(f"edgeclient run: exit code {running['device'].returncode}: {last_line(folder, 'device')}")
        said = told([str(python), "-m", "edgeclient.cli"], environment, config)
    with open_ledger(aggregator.ledger, read_only=True) as ledger:
        account = accounts.examine(ledger, TASK, DEVICE, config)
        applied, refused, doubled = ledger.frame_counts(TASK)[DEVICE]
        version = ledger.versions(TASK)[-1].number
    check(said, account, (refused, doubled))
    return f"version {version} after {account.rounds} rounds, {applied} frames applied, the law of conservation holds"


def _write_device(config: Path, port: int) -> None:
    config.parent.mkdir(parents=True)
    x, labels = data.device_windows(1, 0)
    np.savez(config.parent / "windows.npz", x=x, labels=labels)
    config.write_text(
        f'device = "{DEVICE}"\ntask = "{TASK}"\ndirectory = "state"\naudit = true\n[mqtt]\nport = {port}\n'
        '[data]\nsource = "windows.npz"\n[upload]\nstatus_every_s = 0.2\n'
        '[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n'
    )


def _await_round(observer: Link, running: Mapping[str, "subprocess.Popen[bytes]"], folder: Path) -> None:
    """Until a receipt says applied, a new version is announced, and the device has heard of both."""
    wanted = {"the receipt", "version 1", "the device's word"}
    until_s = time.monotonic() + _ROUND_S
    while wanted:
        for event in observer.poll(0.5):
            if isinstance(event, Connected):
                observer.subscribe(topics.head(TASK), topics.down(TASK, DEVICE), topics.status(TASK, DEVICE))
            elif isinstance(event, Message):
                observer.acknowledge(event)
                wanted -= _said(event)
        for name, process in running.items():
            if process.poll() is not None:
                raise RoundError(f"{name} ended with exit code {process.returncode}: {last_line(folder, name)}")
        if time.monotonic() > until_s:
            missing = ", ".join(sorted(wanted))
            raise RoundError(f"{missing} did not come in {_ROUND_S:.0f} s: {last_line(folder, 'device')}")


def _said(message: Message) -> set[str]:
    if message.topic == topics.head(TASK):
        return {"version 1"} if announcement.decode(message.payload).version >= 1 else set()
    if message.topic == topics.down(TASK, DEVICE):
        return {"the receipt"} if messages.decode_receipt(message.payload).watermark >= 1 else set()
    said = status.decode(message.payload)
    return {"the device's word"} if said.applied >= 1 and said.version >= 1 else set()


def told(edgeclient: Sequence[str], environment: Mapping[str, str], config: Path) -> dict[str, Any]:
    """What `edgeclient status` says.

    Raises:
        RoundError: it says nothing.
    """
    command = [*edgeclient, "status", str(config), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_GRACE_S)
    if done.returncode:
        raise RoundError(f"edgeclient status: exit code {done.returncode}: {done.stderr.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def check(said: Mapping[str, Any], account: accounts.Account, unwanted: tuple[int, int]) -> None:
    """The account of both sides after a round.

    Args:
        said: by the device.
        account: what was trained, and where it is.
        unwanted: frames refused, and frames counted twice.

    Raises:
        RoundError: something in it is wrong; all that is.
    """
    facts = {
        "edgeclient status says that it runs": said["running"],
        "edgeclient status tells no round": said["rounds"] < 1 or said["applied"] < 1 or said["version"] < 1,
        "edgeclient status tells refused frames": said["refused"],
        "frames were refused or counted twice": any(unwanted),
        "frames were lost": account.lost,
        "the residual was dropped": account.renewals,
        "the law of conservation is broken": not account.law_holds,
    }
    if wrong := [fact for fact, holds in facts.items() if holds]:
        raise RoundError(f"{', '.join(wrong)}: {json.dumps(said)}, {account}")


def last_line(folder: Path, name: str) -> str:
    """What a process said last, for people."""
    log = folder / f"{name}.log"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} ({log})"
