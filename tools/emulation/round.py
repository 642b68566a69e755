"""One round of training by an emulated device, against a real MQTT broker and aggregator on this machine."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from broker.demo import data, files
from broker.demo.observer import Observer
from broker.demo.plan import AGGREGATOR, TASK
from broker.demo.supervisor import Supervisor
from broker.ledger.opening import open_ledger
from broker.processes.embedded import EmbeddedBroker
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from broker.upkeep import accounts
from edgeclient.settings import load
from tools.emulation.machine import EmulationError
from tools.output import output

DEVICE: Final = "emulated"
_ROUND_S: Final = 180.0
_GRACE_S: Final = 30.0  # an emulated process ends some seconds after it was asked


def one_round(python: Path, environment: Mapping[str, str], folder: Path) -> str:
    """Fetch, train, upload, aggregate, announce, until the device has its receipt; then the account of both sides.

    Returns what happened, for people; `folder` is emptied and keeps configuration, stores and logs.

    Raises:
        EmulationError, DemoError: the round did not come about, or its account is wrong; says what.
    """
    shutil.rmtree(folder, ignore_errors=True)
    configs = {AGGREGATOR: folder / "aggregator.toml", DEVICE: folder / "device" / "device.toml"}
    config = configs[DEVICE]
    with ExitStack() as stack:
        mqtt = stack.enter_context(EmbeddedBroker(folder / "mqtt"))
        files.write_aggregator(configs[AGGREGATOR], mqtt.port)
        aggregator = load(configs[AGGREGATOR], Aggregator)
        add_task(aggregator, TASK, data.bundle_bytes(), Task(goal=1, min_interval_s=0, keep_frames_of_versions=-1))
        config.parent.mkdir()
        files.write_windows(config.parent, 1, 0)
        files.write_device(config, DEVICE, mqtt.port, more="[upload]\nstatus_every_s = 0.2\n")
        observer = stack.enter_context(Observer(mqtt.port))
        supervisor = Supervisor(
            configs.__getitem__,
            lambda name: folder / f"{name}.log",
            device=python,
            environment=environment,
            grace_s=_GRACE_S,
        )
        stack.enter_context(supervisor)
        observer.connect(_GRACE_S)
        for name in configs:
            supervisor.start(name)
        _await_round(observer, supervisor)
        supervisor.end([DEVICE])
        if code := supervisor.processes[DEVICE].returncode:
            raise EmulationError(f"edgeclient run: exit code {code}: {supervisor.last_words(DEVICE)}")
        said = told([str(python), "-m", "edgeclient.cli"], environment, config)
    with open_ledger(aggregator.ledger, read_only=True) as ledger:
        account = accounts.examine(ledger, TASK, DEVICE, config)
        applied, refused, doubled = ledger.frame_counts(TASK)[DEVICE]
        version = ledger.versions(TASK)[-1].number
    check(said, account, (refused, doubled))
    return f"version {version} after {account.rounds} rounds, {applied} frames applied, the law of conservation holds"


def _await_round(observer: Observer, supervisor: Supervisor) -> None:
    """Until the device says that it has the receipt of its frames and the version made of them."""
    until_s, note = time.monotonic() + _ROUND_S, "no word from it"
    while time.monotonic() < until_s:
        observer.wait(0.5)
        supervisor.check()
        if (device := observer.fleet.find(TASK, DEVICE)) is not None:
            note = device.said.note
            if device.said.applied >= 1 and device.said.version >= 1:
                return
    raise EmulationError(f"no round in {_ROUND_S:.0f} s: {note}; {supervisor.last_words(DEVICE)}")


def told(edgeclient: Sequence[str], environment: Mapping[str, str], config: Path) -> dict[str, Any]:
    """What `edgeclient status` says.

    Raises:
        EmulationError: it says nothing.
    """
    said: dict[str, Any] = json.loads(
        output([*edgeclient, "status", config, "--json"], EmulationError, env=environment, limit_s=_GRACE_S)
    )
    return said


def check(said: Mapping[str, Any], account: accounts.Account, unwanted: tuple[int, int]) -> None:
    """The account of both sides after a round; `unwanted` are frames refused, and frames counted twice.

    Raises:
        EmulationError: all that is wrong in it.
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
        raise EmulationError(f"{', '.join(wrong)}: {json.dumps(said)}, {account}")
