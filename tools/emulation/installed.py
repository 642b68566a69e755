"""The README's commands for a Raspberry Pi on the emulated board, and a round over TLS with our Mosquitto."""

import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import secured

from broker.demo import data, files
from broker.demo.plan import AGGREGATOR, TASK
from broker.demo.supervisor import Supervisor
from broker.ledger.opening import open_ledger
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from broker.upkeep import accounts
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message
from edgeclient.settings import load
from edgeclient.wire import announcement, topics
from tools.emulation.machine import EmulationError
from tools.emulation.round import check, told
from tools.output import output

DEVICE: Final = "pi-7"
OBSERVER: Final = "pi-8"
# The userland has that package; what follows it is run as it stands, but for what is installed.
_README: Final = re.compile(r"(?m)^sudo apt install -y python3-venv && (python3 -m venv .* && pip install .*)$")
_CLONE: Final = "'.[onnx]'"
_INSTALL_S: Final = 400.0
_ONCE_S: Final = 180.0
_VERSION_S: Final = 60.0

_run = partial(output, failed=EmulationError)


def install(readme: Path, wheel: Path, folder: Path, environment: Mapping[str, str], found: Path) -> Path:
    """What the README says for a Raspberry Pi, with the wheel for the clone; the command `edgeclient`.

    `folder` is emptied and is the home; `environment` has the board's `python3` in its PATH; `found` has the wheels
    that this machine's pip found for the board.

    Raises:
        EmulationError: the README says something else, or a command failed.
    """
    said = _README.search(readme.read_text())
    if said is None or _CLONE not in said[1]:
        raise EmulationError(f"{readme.name} has no line for a Raspberry Pi as {_README.pattern}, with {_CLONE}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    commands = said[1].replace(_CLONE, f"'{wheel}[onnx]'") + " && command -v edgeclient"
    environment = {**environment, "HOME": str(folder), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(found)}
    out = _run(["sh", "-euc", commands], cwd=folder, env=environment, limit_s=_INSTALL_S)
    return Path(out.splitlines()[-1])


def one_round(edgeclient: Path, folder: Path, environment: Mapping[str, str]) -> str:
    """`join`, `doctor`, `once` and `status`, as their user over TLS, until the aggregator has made a version.

    Returns what happened, for people; `folder` is emptied and keeps configurations, certificates, stores and logs.

    Raises:
        EmulationError: the round did not come about, or its account is wrong.
    """
    if secured.mosquitto_program() is None:
        raise EmulationError("mosquitto is not installed: apt install mosquitto")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    secured.authority(folder).issue("server", names=("localhost",))
    secured.secrets_of(folder)
    with ExitStack() as stack:
        port = stack.enter_context(secured.mosquitto(folder))
        config = _join(edgeclient, folder, port, environment)
        aggregator = _aggregator(folder, port)
        add_task(aggregator, TASK, data.bundle_bytes(), Task(goal=1, min_interval_s=0, keep_frames_of_versions=-1))
        serving = Supervisor(lambda name: folder / f"{name}.toml", lambda name: folder / f"{name}.log")
        stack.enter_context(serving)
        serving.start(AGGREGATOR)
        _await_version(folder, port, serving, 0)
        _run([edgeclient, "doctor", config], cwd=folder, env=environment, limit_s=_INSTALL_S)
        once: list[str | Path] = [edgeclient, "once", config, "--json", "--timeout", str(_ONCE_S)]
        outcome = json.loads(_run(once, cwd=folder, env=environment, limit_s=2 * _ONCE_S).splitlines()[-1])
        _await_version(folder, port, serving, 1)
        said = told([str(edgeclient)], environment, config)
    with open_ledger(aggregator.ledger, read_only=True) as ledger:
        account = accounts.examine(ledger, TASK, DEVICE, config)
        _, refused, doubled = ledger.frame_counts(TASK)[DEVICE]
    # The version that came of its round may be news to it.
    check({**said, "version": max(1, said["version"])}, account, (refused, doubled))
    if not outcome["done"]:
        raise EmulationError(f"edgeclient once is not done: {outcome}")
    return f"rounds trained and counted over TLS: {account.rounds}, the law of conservation holds"


def _join(edgeclient: Path, folder: Path, port: int, environment: Mapping[str, str]) -> Path:
    home = folder / "device"
    home.mkdir()
    files.write_windows(home, 1, 0)
    url = f"mqtts://localhost:{port}/{TASK}"
    join: list[str | Path] = [edgeclient, "join", url, "--data", "windows.npz", "--device", DEVICE]
    _run(join, cwd=home, env=environment, limit_s=_INSTALL_S)
    config = home / "device.toml"
    written = config.read_text()
    if "[mqtt]\n" not in written:
        raise EmulationError(f"edgeclient join wrote no line [mqtt]: {written}")
    written = written.replace("[mqtt]\n", f"audit = true\n\n[mqtt]\n{_access(folder, DEVICE)}")
    # This machine may be busy with the tests; a board of its own is not.
    config.write_text(written + '\n[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n')
    return config


def _access(folder: Path, user: str) -> str:
    return f'ca_file = "{folder}/ca.crt"\nusername = "{user}"\npassword_file = "{folder}/{user}.password"\n'


def _aggregator(folder: Path, port: int, user: str = AGGREGATOR) -> Aggregator:
    config = folder / f"{user}.toml"
    where = f'[mqtt]\nhost = "localhost"\nport = {port}\ntls = true\n'
    config.write_text(f'directory = "aggregator-data"\n{where}{_access(folder, user)}')
    return load(config, Aggregator)


def _await_version(folder: Path, port: int, serving: Supervisor, version: int) -> None:
    mqtt = _aggregator(folder, port, OBSERVER).mqtt
    assert mqtt is not None
    observer = Link(Endpoint.of(mqtt), client_id_prefix="observer")
    observer.start()
    try:
        until_s = time.monotonic() + _VERSION_S
        while time.monotonic() < until_s:
            serving.check()
            for event in observer.poll(0.5):
                if isinstance(event, Connected):
                    observer.subscribe(topics.head(TASK))
                elif isinstance(event, Message):
                    observer.acknowledge(event)
                    if announcement.decode(event.payload).version >= version:
                        return
    finally:
        observer.stop()
    raise EmulationError(f"version {version} was not announced: {serving.last_words(AGGREGATOR)}")
