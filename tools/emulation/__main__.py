"""The command `tools/arm64`."""

import argparse
import fcntl
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker import children
from broker.embedded import EmbeddedBrokerError
from tools.emulation import round as training
from tools.emulation import steps, suite
from tools.emulation.machine import CPU, SITE, Board, EmulationError

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".arm64"
TEST_TOOLS: Final = {"hypothesis", "pytest", "pytest-timeout"}
ACCEL: Final = ("numba-", "llvmlite-")
DIES: Final = "onnxruntime==1.21.0"  # uses instructions of newer cores without asking
HELP: Final = f"""Run what a device runs on an emulated {CPU}: its tests, with numba and without, and one training
round against an MQTT broker and an aggregator on this machine. Needs Debian or one of its kin (apt, dpkg), no root.
Everything is kept in .arm64, 0.7 GB; remove that folder to fetch the newest wheels."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Two installations on one board.

    Attributes:
        plain: Python with what a device must install, ONNX Runtime and the test tools.
        numba: the same with numba.
        environment: of emulated processes.
    """

    plain: Path
    numba: Path
    environment: dict[str, str]


def main() -> int:
    """Make what is missing, then run everything at once: one line each at the end, 0 when all is well."""
    parser = argparse.ArgumentParser("tools/arm64", description=HELP)
    parser.add_argument("--control", action="store_true", help=f"only see that {DIES} dies there, as on real boards")
    control = parser.parse_args().control
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("arm64: another run is using .arm64: wait for its end", file=sys.stderr)
            return 1
        try:
            board = Board(FOLDER)
            devices = _devices(board)
            bites, said = _control(board, devices)
            good = bites and (control or _everything(board, devices))
        except (EmulationError, steps.StepsError) as error:
            print(f"arm64: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        print(said)
        return 0 if good else 1


def _devices(board: Board) -> Devices:
    board.userland()
    wheels = board.wheels("wheels", _requirements())
    accel = [path for path in wheels if path.name.startswith(ACCEL)]
    plain = board.environment("plain", [path for path in wheels if path not in accel], [ROOT])
    numba = board.environment("accel", accel, [plain.parents[1] / SITE, ROOT])
    return Devices(plain, numba, board.clean_environment())


def _control(board: Board, devices: Devices) -> tuple[bool, str]:
    """Whether the emulated core lacks what real ones lack; what to tell."""
    wheel = board.wheels("control-wheel", [DIES], closure=False)
    python = board.environment("control", wheel, [devices.plain.parents[1] / SITE])
    command = [str(python), "-c", "import onnxruntime"]
    done = subprocess.run(command, env=devices.environment, capture_output=True, check=False, timeout=120)
    if done.returncode == -signal.SIGILL:
        return True, f"{CPU}, control: {DIES} dies of SIGILL, as it must"
    return False, f"{CPU}, control: FAILED: {DIES} must die of SIGILL, but its import ended with {done.returncode}"


def _everything(board: Board, devices: Devices) -> bool:
    environment = devices.environment | {"HYPOTHESIS_STORAGE_DIRECTORY": str(FOLDER / "hypothesis")}
    if steps.NATIVE.exists():
        taken = sha256(b"".join(path.read_bytes() for path in steps.sources(ROOT))).hexdigest()
        board.keep("steps", [taken], "taking training steps of the zoo to compare with", steps.take)
        environment[suite.STEPS_VARIABLE] = str(FOLDER / "steps")
    print("arm64: running tests, with numba and without, and a training round ...", file=sys.stderr, flush=True)
    passes: list[suite.Pass] = []
    try:
        # From this thread: children die with the one that started them.
        passes.append(suite.start("with numba", devices.numba, environment, FOLDER / "with-numba.log"))
        without = suite.NEED_NUMBA
        passes.append(suite.start("without numba", devices.plain, environment, FOLDER / "without-numba.log", without))
        trained, said = _round(devices.plain, devices.environment)
        results = [each.passed() for each in passes]
    finally:
        children.end_all(each.process for each in passes)
    for each in passes:
        print(f"{CPU}, tests {each.name}:\n{each.summary()}")
    for each, passed in zip(passes, results, strict=True):
        print(f"{CPU}, tests {each.name}: {'passed' if passed else f'FAILED ({each.log.relative_to(ROOT)})'}")
    print(f"{CPU}, one training round: {said}")
    return trained and all(results)


def _round(python: Path, environment: dict[str, str]) -> tuple[bool, str]:
    began_s = time.monotonic()
    try:
        said = training.one_round(python, environment, FOLDER / "round")
    except (EmbeddedBrokerError, training.RoundError, subprocess.TimeoutExpired) as error:
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
