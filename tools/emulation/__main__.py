"""The command `tools/arm64`."""

import argparse
import fcntl
import re
import signal
import subprocess
import sys
import time
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from broker.demo.plan import DemoError
from broker.processes import children
from broker.processes.embedded import EmbeddedBrokerError
from tools.emulation import installed, suite
from tools.emulation import round as training
from tools.emulation.machine import CPU, SITE, Board, EmulationError
from tools.output import output, work_tree_wheel
from tools.zoo import ZOO

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".arm64"
NATIVE: Final = Path(".venv-native/bin/python")
_BATCH: Final = 8
_STEPS_S: Final = 300
TEST_TOOLS: Final = {"hypothesis", "pytest", "pytest-timeout"}
ACCEL: Final = ("numba-", "llvmlite-")
DIES: Final = "onnxruntime==1.21.0"  # uses an instruction of newer cores without asking
FAILURES: Final = (EmulationError, EmbeddedBrokerError, DemoError, subprocess.TimeoutExpired)
HELP: Final = f"""Run what a device runs on an emulated {CPU}: its tests, with numba and without, one training round
against an MQTT broker and an aggregator on this machine, and the README's commands for a Raspberry Pi, from the wheel
to a round over TLS with our configuration of Mosquitto. Needs Debian or one of its kin (apt, dpkg), no root. Everything
is kept in .arm64, half a gigabyte; remove that folder to fetch the newest wheels."""


def main() -> int:
    """Make what is missing, then run everything at once: one line each at the end, 0 when all is well."""
    parser = argparse.ArgumentParser("tools/arm64", description=HELP)
    parser.add_argument(
        "--control", action="store_true", help=f"only show that the emulation bites: {DIES} must die of SIGILL"
    )
    parser.add_argument("--install", action="store_true", help="only the commands for a Raspberry Pi")
    parser.add_argument(
        "--short", action="store_true", help="of the tests only those whose outcome the processor decides"
    )
    asked = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("arm64: it runs already, on the same .arm64", file=sys.stderr)
            return 1
        try:
            board = Board(FOLDER)
            board.userland()
            if asked.install:
                done, said = _installed(board)
                print(f"{CPU}, installed as the README says: {said}")
                return 0 if done else 1
            return _control(board) if asked.control else _everything(board, short=asked.short)
        except (EmulationError, EmbeddedBrokerError) as error:
            print(f"arm64: {error}", file=sys.stderr)
            return 1


def _control(board: Board) -> int:
    python = board.environment("control", board.wheels("control-wheels", [DIES]), [])
    command = [str(python), "-c", "import onnxruntime"]
    done = subprocess.run(command, env=board.clean_environment(), capture_output=True, check=False, timeout=120)
    died = done.returncode == -signal.SIGILL
    print(f"{CPU}, {DIES}: {'dies of SIGILL, as it must' if died else f'exit code {done.returncode}, NOT SIGILL'}")
    return 0 if died else 1


def _everything(board: Board, *, short: bool) -> int:
    wheels = board.wheels("wheels", _requirements())
    accel = [path for path in wheels if path.name.startswith(ACCEL)]
    plain = board.environment("plain", [path for path in wheels if path not in accel], [ROOT])
    numba = board.environment("accel", accel, [plain.parents[1] / SITE, ROOT])
    environment = board.clean_environment() | {"HYPOTHESIS_STORAGE_DIRECTORY": str(FOLDER / "hypothesis")}
    if NATIVE.exists():
        taken = sha256(b"".join(path.read_bytes() for path in _sources())).hexdigest()
        board.keep("steps", [taken], "taking training steps of the zoo to compare with", _take_steps)
        environment[suite.STEPS_VARIABLE] = str(FOLDER / "steps")
    print("arm64: running tests, with numba and without, and a training round ...", file=sys.stderr, flush=True)
    passes: list[suite.Pass] = []
    try:
        # From this thread: children die with the one that started them.
        log = FOLDER / "with-numba.log"
        with_, without = (
            [file for file in files if file in suite.SHORT or not short]
            for files in (suite.WITH_NUMBA, suite.WITHOUT_NUMBA)
        )
        passes.append(suite.start("with numba", numba, environment, log, with_))
        files, log = without, FOLDER / "plain.log"
        passes.append(suite.start("without numba", plain, environment, log, files, without=suite.NEED_NUMBA))
        trained, said = _round(plain, environment)
        installed_, told = _installed(board)
        results = [each.passed() for each in passes]
    finally:
        children.end_all(each.process for each in passes)
    for each in passes:
        print(f"{CPU}, tests {each.name}:\n{each.summary()}")
    for each, passed in zip(passes, results, strict=True):
        print(f"{CPU}, tests {each.name}: {'passed' if passed else f'FAILED ({each.log.relative_to(ROOT)})'}")
    print(f"{CPU}, one training round: {said}")
    print(f"{CPU}, installed as the README says: {told}")
    return 0 if trained and installed_ and all(results) else 1


def _sources() -> list[Path]:
    """The files that decide what the steps are."""
    found = [path for name in ("compile", "train", "wire") for path in (ROOT / "edgeclient" / name).rglob("*.py")]
    return sorted(found) + [ROOT / "tools" / f"{name}.py" for name in ("bundles", "training_steps", "zoo")]


def _take_steps(folder: Path) -> None:
    """On this machine's processor, for each model of the zoo a folder: its bundle, unpacked, batch.npz and step.npz."""
    output([NATIVE, "-m", "tools.bundles", "zoo", folder], EmulationError, limit_s=_STEPS_S)
    for name, entry in ZOO.items():
        np.savez(folder / name / "batch.npz", *entry.batch(_BATCH, np.random.default_rng(0)))
    command: list[str | Path] = [sys.executable, "-m", "tools.training_steps", *(folder / name for name in ZOO)]
    output(command, EmulationError, limit_s=_STEPS_S)


def _installed(board: Board) -> tuple[bool, str]:
    """Wheel → the README's commands → `edgeclient once` over TLS, in a home of its own."""
    began_s = time.monotonic()
    environment = board.clean_environment()
    environment["PATH"] = f"{board.system()}:{environment['PATH']}"
    board.wheels("wheels", _requirements())
    try:
        wheel = work_tree_wheel(FOLDER / "dist", EmulationError)
        home, folder = FOLDER / "pi", FOLDER / "installed"
        edgeclient = installed.install(ROOT / "edgeclient" / "README.md", wheel, home, environment, FOLDER / "wheels")
        installed_s = time.monotonic() - began_s
        said = installed.one_round(edgeclient, folder, environment)
    except FAILURES as error:
        return False, f"FAILED: {error}"
    return True, f"passed: in {installed_s:.0f} s, then {said}, {time.monotonic() - began_s:.0f} s"


def _round(python: Path, environment: dict[str, str]) -> tuple[bool, str]:
    began_s = time.monotonic()
    try:
        said = training.one_round(python, environment, FOLDER / "round")
    except FAILURES as error:
        return False, f"FAILED: {error}"
    return True, f"passed: {said}, {time.monotonic() - began_s:.0f} s"


def _requirements() -> list[str]:
    """What a device installs, its extras and the test tools, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tools = [text for text in extras["dev"] if re.split(r"[^\w-]", text)[0] in TEST_TOOLS]
    return sorted([*project["dependencies"], *extras["onnx"], *extras["accel"], *tools])


if __name__ == "__main__":
    sys.exit(main())
