"""What a device costs at rest: the wheel, installed as people install it, and the processes of its commands."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import click

from broker.demo import data, files
from broker.demo.observer import Observer
from broker.demo.plan import AGGREGATOR, TASK, DemoError
from broker.demo.supervisor import Supervisor
from broker.processes.embedded import EmbeddedBroker
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.settings import load
from edgeclient.wire.status import ONLINE
from tools.bench.code_lines import device_code_lines
from tools.bench.report import memory_mib, tell
from tools.output import BOARD, output, work_tree_wheel

ROOT: Final = Path(__file__).parents[2]
# Upper bounds; what has none is told only.
BARS: Final = {
    "import_ratio": 1.2,
    "status_s": 0.5,
    "idle_rss_mib": 55.0,
    "idle_rss_onnx_mib": 95.0,
    "board_mb": 60.0,
    "wheel_kb": 900.0,  # with both sides, for boards that fetch it over a data plan
}
EXTRAS: Final = {"core": "", "onnx": "[onnx]", "accel": "[onnx,accel]"}
DEVICE: Final = "idle"
_MIB: Final = 1 << 20
_INSTALL_S: Final = 600
_IDLE_S: Final = 90.0


class FootprintError(Exception):
    """Nothing was measured; one line that says which step failed."""


@click.command("footprint")
@click.option("--quick", is_flag=True, help="Fewer repetitions of what is timed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
def footprint_command(*, quick: bool, as_json: bool) -> None:
    r"""Size, memory and start-up of a device, from the wheel, in environments of its own (a minute, 700 MB of disk).

    Exit code 1 when one of the figures is over its bar.

    \b
    Example:
      python -m tools.bench footprint --json
    """
    try:
        with tempfile.TemporaryDirectory(prefix="footprint-") as folder:
            measured, rows = measure(Path(folder), repetitions=5 if quick else 15)
    except (FootprintError, DemoError) as error:
        raise click.ClickException(str(error)) from None
    tell(measured, rows, as_json=as_json, seed=0, bars=BARS)


def measure(folder: Path, *, repetitions: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Every figure, and one row per environment; `folder` is empty.

    Raises:
        FootprintError: the wheel cannot be built or installed, or a device does not come to rest.
    """
    wheel = build_wheel(folder / "dist")
    pythons = {name: install(folder / name, f"{wheel}{extras}") for name, extras in EXTRAS.items()}
    rss = {
        name: idle_rss_mib(python, folder / f"device-{name}", trained=name != "core")
        for name, python in pythons.items()
    }
    installed = {name: size(site(python)) / _MIB for name, python in pythons.items()}
    bytecode = size(site(pythons["core"]), "*.pyc")
    board = size(install_for_board(folder / "board", wheel)) + bytecode
    config = folder / "device-core" / "device.toml"
    timed = _timed(
        {
            "numpy": [str(pythons["core"]), "-c", "import numpy"],
            "edgeclient": [str(pythons["core"]), "-c", "import edgeclient"],
            "command": [str(pythons["core"]), "-c", "import edgeclient.cli"],
            "status": [str(pythons["core"].parent / "edgeclient"), "status", str(config), "--json"],
        },
        repetitions,
    )
    rows = [{"environment": name, "installed_mib": installed[name], "rss_mib": rss[name]} for name in EXTRAS]
    return {
        "import_ratio": timed["edgeclient"][0] / timed["numpy"][0],
        "import_command_ratio": timed["command"][0] / timed["numpy"][0],
        "status_s": timed["status"][1],
        "idle_rss_mib": rss["core"],
        "idle_rss_onnx_mib": rss["onnx"],
        "idle_rss_accel_mib": rss["accel"],
        "installed_mib": installed["core"],
        "bytecode_mib": bytecode / _MIB,
        "board_mb": board / 1e6,
        "wheel_kb": wheel.stat().st_size / 1000,
        "device_code_lines": device_code_lines(),
    }, rows


def build_wheel(out: Path) -> Path:
    """The wheel of what lies in the work tree; FootprintError when `tools/release` refuses."""
    return work_tree_wheel(out, FootprintError)


def install(folder: Path, requirement: str) -> Path:
    """A fresh environment without pip, and its Python.

    As the README says, without bytecode: Python writes that of what it runs, a quarter of what pip would.

    Raises:
        FootprintError: pip refuses.
    """
    output([sys.executable, "-m", "venv", "--without-pip", str(folder)], FootprintError, limit_s=_INSTALL_S)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    output([*pip, "install", "--no-compile", requirement], FootprintError, limit_s=_INSTALL_S)
    return python


def install_for_board(folder: Path, wheel: Path) -> Path:
    """The same for a board, which this machine need not be and where numpy is smaller; the folder.

    Raises:
        FootprintError: pip refuses.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile"]
    # pip would ask for its own Python's release.
    options = ["--ignore-requires-python", *BOARD, "--target", str(folder)]
    output([*pip, *options, str(wheel)], FootprintError, limit_s=_INSTALL_S)
    return folder


def site(python: Path) -> Path:
    """The folder of what is installed in an environment."""
    (found,) = python.parents[1].glob("lib/python*/site-packages")
    return found


def size(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def idle_rss_mib(python: Path, folder: Path, *, trained: bool) -> float:
    """Resident memory of `edgeclient run` at rest; bytecode is there afterwards, configuration and logs in `folder`.

    `trained` is after its first round, with the session of a small model (600-64-7) loaded; else there is no model yet.

    Raises:
        FootprintError: it does not come to rest.
    """
    folder.mkdir()
    # Compiling modules, as the first start does, takes memory that is not given back.
    output([python, "-c", "import edgeclient.cli"], FootprintError, env=_environment(), limit_s=_INSTALL_S)
    configs = {AGGREGATOR: folder / "aggregator.toml", DEVICE: folder / "device.toml"}
    with ExitStack() as stack:
        mqtt = stack.enter_context(EmbeddedBroker(folder / "mqtt"))
        files.write_windows(folder, 1, 0)
        files.write_device(configs[DEVICE], DEVICE, mqtt.port, audit=False, more="[upload]\nstatus_every_s = 0.2\n")
        observer = stack.enter_context(Observer(mqtt.port))
        observer.connect(_IDLE_S)
        supervisor = stack.enter_context(
            Supervisor(
                configs.__getitem__, lambda name: folder / f"{name}.log", device=python, environment=_environment()
            )
        )
        if trained:
            files.write_aggregator(configs[AGGREGATOR], mqtt.port)
            # It waits for a second device, so that the first rests after its round.
            waiting = Task(goal=2, deadline_s=86400.0)
            add_task(load(configs[AGGREGATOR], Aggregator), TASK, data.bundle_bytes(), waiting)
            supervisor.start(AGGREGATOR)
        supervisor.start(DEVICE)
        _await_rest(observer, supervisor, trained=trained)
        return memory_mib(supervisor.processes[DEVICE].pid, "VmRSS")


def _timed(commands: Mapping[str, list[str]], repetitions: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall time of each, in seconds; interleaved, so that a busy moment hits all of them."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(repetitions + 1):
        for name, command in commands.items():
            began_s = time.monotonic()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment()) as process:
                _, code, used = os.wait4(process.pid, 0)
                wall_s = time.monotonic() - began_s
                process.returncode = os.waitstatus_to_exitcode(code)
            if process.returncode:
                raise FootprintError(f"{' '.join(command)}: exit code {process.returncode}")
            if turn:  # the first writes bytecode
                taken[name].append((used.ru_utime + used.ru_stime, wall_s))
    return {name: (median(cpu for cpu, _ in each), median(wall for _, wall in each)) for name, each in taken.items()}


def _environment() -> dict[str, str]:
    """Ours without what concerns Python: no bytecode is kept where PYTHONDONTWRITEBYTECODE is set."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**ours, "PYTHONSAFEPATH": "1"}  # what is installed, not what lies in this folder


def _await_rest(observer: Observer, supervisor: Supervisor, *, trained: bool) -> None:
    until_s, last = time.monotonic() + _IDLE_S, "no word from it"
    while time.monotonic() < until_s:
        observer.wait(0.2)
        supervisor.check()
        if (device := observer.fleet.find(TASK, DEVICE)) is not None:
            said, last = device.said, device.said.note
            settled = said.applied >= 1 and not said.sent + said.queued if trained else True
            if said.state == ONLINE and settled:
                return
    raise FootprintError(f"the device did not come to rest in {_IDLE_S:.0f} s: {last}")
