"""Each optional part absent or broken, alone: a line in `doctor` says so, and a round is trained and counted."""

import ctypes
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import fleet
import pytest

from broker.processes import children
from broker.settings import Task
from edgeclient.compress.select import KERNEL
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.wire import announcement, frame, messages, topics
from edgeclient.wire.messages import Receipt

Env: TypeAlias = Mapping[str, str]
Before: TypeAlias = Callable[[], None] | None

ROOT = Path(__file__).parents[2]
CACHE = "NUMBA_CACHE_DIR"
NONE: Final[Env] = {}
NOWHERE: Final[Env] = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR", CACHE), "/proc/nowhere")
_PR_SET_MDWE, _PR_GET_MDWE, _PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 65, 66, 24, 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # before any fork

# At every start of Python: these distributions are not there, neither to import nor to ask about.
ABSENT = """
import importlib.metadata as metadata, os, sys

hidden = set(os.environ["HIDDEN"].split(","))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
every, one = metadata.distributions, metadata.Distribution.from_name
metadata.distributions = lambda **given: (each for each in every(**given) if each.name not in hidden)

def from_name(name):
    if name in hidden:
        raise metadata.PackageNotFoundError(name)
    return one(name)

metadata.Distribution.from_name = from_name
"""
# An index without its end, kernels without theirs.
TORN: Final = (("nbi", 0), ("nbc", 0), ("nbc", 3000))
HANGS = "#!/bin/sh\necho $$ >> {pids}\n/bin/sleep 60 &\necho $! >> {pids}\nwait\n"

needs_numba = pytest.mark.skipif(KERNEL.why_not() is not None, reason="numba cannot be used here")


@pytest.fixture
def task(tmp_path: Path, endpoint: Endpoint) -> Iterator[str]:
    """A task whose aggregator counts, and makes no further version."""
    name = f"degrades-{time.monotonic_ns()}"
    (tmp_path / "broker").mkdir()
    with fleet.aggregator(tmp_path / "broker", endpoint, name, Task(goal=4096, deadline_s=1e6)):
        yield name


def edgeclient(*arguments: str, env: Env = NONE, before: Before = None) -> "subprocess.CompletedProcess[str]":
    """A command, started where no package is; whatever is missing, it has no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeclient.cli", *arguments], cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, timeout=100, check=False, preexec_fn=before,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def lines(topic: str, env: Env = NONE, before: Before = None, config: tuple[str, ...] = ()) -> list[str]:
    """What `doctor` says about a topic: level, what is there, and what to do."""
    found = json.loads(edgeclient("doctor", "--json", *config, env=env, before=before).stdout)["findings"]
    return [f"{each['level']}: {each['what']} → {each['advice']}" for each in found if each["topic"] == topic]


def warmup(env: Env, before: Before = None) -> Any:
    return json.loads(edgeclient("warmup", "--json", env=env, before=before).stdout)


def trains(
    folder: Path, endpoint: Endpoint, task: str, env: Env = NONE, before: Before = None
) -> "subprocess.CompletedProcess[str]":
    """A new device begins, trains, sends, and hears that it counts."""
    config = fleet.write_device(folder, endpoint, "pi", task)
    done = edgeclient("once", str(config), "--timeout", "60", "--json", env=env, before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["done"], report["applied"], report["sent"], report["returned"]) == (True, 1, 0, 0)
    return done


def shadow(folder: Path, hidden: str = "", **modules: str) -> Env:
    """An environment in which these modules come first, and hidden distributions are not there."""
    (folder / "shadow").mkdir()
    for name, text in {"sitecustomize": ABSENT if hidden else "", **modules}.items():
        (folder / "shadow" / f"{name}.py").write_text(text)
    return {"PYTHONPATH": f"{folder / 'shadow'}:{ROOT}", "HIDDEN": hidden}


def refuse_executable_memory() -> None:
    _LIBC.prctl(_PR_SET_MDWE, 1, 0, 0, 0)


def obey_permissions() -> None:
    """Also as root."""
    _LIBC.prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def keep_small_files_alone() -> None:
    """As a disk on which an index has room and a kernel has not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


# numba


def test_numba_absent(tmp_path: Path, endpoint: Endpoint, task: str) -> None:
    env = shadow(tmp_path, hidden="numba,llvmlite")
    (line,) = lines("numba", env)
    assert line.startswith("ok: not installed: NumPy kernels, same results → for more speed: pip install")
    trains(tmp_path, endpoint, task, env)


@pytest.mark.parametrize("error", ["OSError('libLLVM.so: invalid ELF header')", "SystemError('wrong ABI')"])
def test_numba_broken(tmp_path: Path, endpoint: Endpoint, task: str, error: str) -> None:
    env = shadow(tmp_path, numba=f"raise {error}\n")
    (line,) = lines("numba", env)
    assert line.startswith("warn: ")
    assert f"cannot be used ({error.partition('(')[0]}: " in line
    trains(tmp_path, endpoint, task, env)


@needs_numba
def test_no_executable_memory(tmp_path: Path, endpoint: Endpoint, task: str) -> None:
    """As under systemd's MemoryDenyWriteExecute; ONNX Runtime needs none."""
    if _LIBC.prctl(_PR_GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("the kernel does not know PR_SET_MDWE")
    (line,) = lines("numba", before=refuse_executable_memory)
    assert line.startswith("warn: ")
    assert "cannot allocate executable memory" in line
    trains(tmp_path, endpoint, task, before=refuse_executable_memory)


@needs_numba
def test_a_read_only_installation_without_home_or_cache(tmp_path: Path, endpoint: Endpoint, task: str) -> None:
    installed = tmp_path / "installed"
    for package in ("edgeclient", "firmware_configs"):
        shutil.copytree(ROOT / package, installed / package, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"PYTHONPATH": str(installed), **NOWHERE}
    everything = [installed, *installed.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        (line,) = lines("numba", env, obey_permissions)
        assert line.startswith("warn: ")
        assert "no locator available" in line
        trains(tmp_path, endpoint, task, env, obey_permissions)
    finally:
        for path in everything:
            path.chmod(0o755)


@needs_numba
def test_a_torn_cache_is_made_anew(tmp_path: Path, endpoint: Endpoint, task: str) -> None:
    """As a power cut leaves files that nobody has synced; numba alone fails at the first call of a kernel."""
    assert warmup(NONE)["backend"] == "numba"
    shutil.copytree(ROOT / "edgeclient", tmp_path / "edgeclient")
    shutil.copytree(ROOT / "firmware_configs", tmp_path / "firmware_configs")
    kernels = sorted({path.name.partition("-")[0] for path in tmp_path.rglob("*.nbi")})  # module.function
    torn: dict[Path, int] = {}
    for at, (suffix, size) in enumerate(TORN):
        paths = [path for each in kernels[at :: len(TORN)] for path in tmp_path.rglob(f"{each}-*.{suffix}")]
        assert len(paths) > 2
        torn |= dict.fromkeys(paths, size)
    for path, size in torn.items():
        os.truncate(path, size)
    env = {"PYTHONPATH": str(tmp_path)}
    trains(tmp_path, endpoint, task, env)
    assert warmup(env)["backend"] == "numba"
    # But for what only tests have compiled, of types that no frame has.
    assert sum(path.stat().st_size > size for path, size in torn.items()) > 0.8 * len(torn)
    (line,) = lines("numba cache", env)
    assert line.startswith("ok: warmed up")


@needs_numba
def test_a_full_cache(tmp_path: Path) -> None:
    """Kernels are compiled, used, and not kept."""
    env = {CACHE: str(tmp_path)}
    assert warmup(env, keep_small_files_alone)["backend"] == "numba"
    assert not list(tmp_path.rglob("*.nbc"))
    (line,) = lines("numba cache", env, keep_small_files_alone)
    assert line.startswith("warn: ")
    assert "edgeclient warmup" in line


# ONNX Runtime


def test_onnxruntime_absent_after_an_update(tmp_path: Path, endpoint: Endpoint) -> None:
    """What was learnt before goes out, nothing is lost, and training goes on when the runtime is back."""
    env, config = shadow(tmp_path, hidden="onnxruntime"), fleet.write_device(tmp_path, endpoint, "pi", "no-runtime")
    with a_model(endpoint, "no-runtime") as link:
        with running(config):
            first = next_frame(link)
        with running(config, env):
            announce(link, "no-runtime", 1)
            fleet.log_says(tmp_path, "version 1 was not trained")
            again = next_frame(link)
            assert (again.epoch, again.sequence) == (first.epoch, first.sequence)
            link.publish(topics.down("no-runtime", "pi"), messages.encode_receipt(Receipt(first.epoch, 1, 1)))
            told = "cannot train on version 1: ONNX Runtime cannot be imported"
            status(tmp_path, told, applied=1, version=1, rounds=1)
        (line,) = lines("onnxruntime", env)
        assert line.startswith("fail: ONNX Runtime cannot be imported")
        assert "→ pip install '.[onnx]' in the clone" in line
        done = edgeclient("once", str(config), "--json", "--timeout", "30", env=env)
        report = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, report["done"], report["rounds"]) == (3, False, 1)
        assert report["because"].startswith(told)
        with running(config):
            third = next_frame(link)
    assert (third.epoch, third.sequence, third.base_version) == (first.epoch, 1, 1)
    assert edgeclient("store", "check", str(config)).returncode == 0


@contextmanager
def a_model(endpoint: Endpoint, task: str) -> Iterator[Link]:
    """A stranger who announces version 0 and gives receipts when asked to."""
    with fleet.hand(endpoint, topics.everyone(task, "up")) as link:
        fleet.publish(link, task, fleet.BUNDLE)
        fleet.publish(link, task, fleet.START.tobytes())
        announce(link, task, 0)
        yield link


def announce(link: Link, task: str, version: int) -> None:
    link.publish(topics.head(task), announcement.encode(fleet.announcement(task, version, fleet.START)), retain=True)


def next_frame(link: Link) -> frame.Frame:
    said = fleet.await_message(link, lambda message: messages.kind(message.payload) == messages.FRAME)
    return frame.decode(said.payload, fleet.LAYOUT.tensors)


@contextmanager
def running(config: Path, env: Env = NONE) -> Iterator[None]:
    """`edgeclient run` until the end of the block; it must not end by itself."""
    log, ran = config.parent / "d.log", [sys.executable, "-m", "edgeclient.cli", "run", str(config)]
    process = children.spawn(ran, log=log, env={**os.environ, "PYTHONPATH": str(ROOT), **env})
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        children.end(process)
    assert "Traceback" not in log.read_text()


def status(folder: Path, note: str = "", **wanted: object) -> dict[str, Any]:
    """The device's own, once it says this; the note begins so."""
    until_s, path = time.monotonic() + 60, folder / "state/status.json"
    while True:
        said: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if said.get("note", "").startswith(note) and all(said.get(key) == value for key, value in wanted.items()):
            return said
        assert time.monotonic() < until_s, f"{said}\n{(folder / 'd.log').read_text()[-3000:]}"
        time.sleep(0.02)


# The system around it


@pytest.mark.parametrize("module", ["psutil", "cryptography"])
def test_packages_that_are_not_needed(tmp_path: Path, endpoint: Endpoint, task: str, module: str) -> None:
    """psutil is used nowhere: files under /proc and /sys tell the same."""
    trains(tmp_path, endpoint, task, shadow(tmp_path, **{module: "raise SystemExit(9)\n"}))


def test_no_commands_at_all(tmp_path: Path, endpoint: Endpoint, task: str) -> None:
    """Neither NetworkManager nor Termux:API nor systemd."""
    (line,) = lines("conditions", {"PATH": ""})
    assert line.startswith("ok: ")
    assert "metered" in line.partition("not told: ")[2]
    trains(tmp_path, endpoint, task, {"PATH": ""})
    arguments = ("install", "--systemd", "--user", str(tmp_path / "d.toml"))
    done = edgeclient(*arguments, env={"PATH": "", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "systemctl" in done.stderr


@pytest.mark.parametrize("name", ["nmcli", "termux-battery-status", "vcgencmd"])
def test_commands_that_hang(tmp_path: Path, endpoint: Endpoint, task: str, name: str) -> None:
    """Each is given up after two seconds, and nothing of it is left: Termux:API's are scripts that start others."""
    script, pids, env = tmp_path / "bin" / name, tmp_path / "pids", {"PATH": str(tmp_path / "bin")}
    script.parent.mkdir()
    script.write_text(HANGS.format(pids=pids))
    script.chmod(0o755)
    _, line = lines("conditions", env)
    assert line.startswith(f"warn: {name} hangs")
    began_s = time.monotonic()
    trains(tmp_path, endpoint, task, env)
    assert time.monotonic() - began_s < 30
    started = [int(each) for each in pids.read_text().split()]
    assert len(started) >= 4
    while any(map(alive, started)):  # a kill takes a moment; the test's time limit holds
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Not gone, and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_board_that_tells_nothing(tmp_path: Path) -> None:
    """Neither pressure nor load: the owner hears that training cannot wait for others."""
    hide = "mount -t tmpfs none /proc/pressure && mount --bind /dev/null /proc/loadavg && mount -t tmpfs none /sys"
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c"]
    if subprocess.run([*namespace, hide], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    ask = [*namespace, f"{hide} && exec {sys.executable} -m edgeclient.cli doctor --json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(ask, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    (line,) = (each for each in json.loads(done.stdout)["findings"] if each["topic"] == "conditions")
    assert line["level"] == "warn"
    assert "pressure" in line["what"].partition("not told: ")[2]
    assert line["advice"] == "training cannot wait for a busy board: see that /proc is mounted"


@pytest.mark.parametrize("name", ["status", "usage"])
def test_files_on_which_nothing_depends(tmp_path: Path, endpoint: Endpoint, task: str, name: str) -> None:
    (tmp_path / "state" / f"{name}.new").mkdir(parents=True)
    assert f"{name}.json cannot be written" in trains(tmp_path, endpoint, task).stderr


def test_a_directory_that_cannot_be_written(tmp_path: Path, endpoint: Endpoint) -> None:
    """Nothing can be learnt there: one line, in `doctor` and in `run`."""
    config = str(fleet.write_device(tmp_path, endpoint, "pi", "read-only"))
    (tmp_path / "state").mkdir(mode=0o555)
    (line,) = lines("disk speed", before=obey_permissions, config=(config,))
    assert line.startswith("fail: ")
    assert "cannot be written: Permission denied → see its owner and rights" in line
    done = edgeclient("run", config, before=obey_permissions)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Permission denied" in done.stderr


@pytest.mark.case("fleet 42")
def test_a_store_that_another_program_holds(tmp_path: Path, endpoint: Endpoint) -> None:
    """Such as a backup script: the device pauses, and goes on."""
    config = fleet.write_device(tmp_path, endpoint, "pi", "held")
    with a_model(endpoint, "held") as link, running(config):
        first = next_frame(link)
        with closing(sqlite3.connect(next(tmp_path.glob("state/store/*/store.db")), isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            link.publish(topics.down("held", "pi"), messages.encode_receipt(Receipt(first.epoch, 1, 1)))
            fleet.log_says(tmp_path, "database is locked: end the program that holds store.db")
        link.publish(topics.down("held", "pi"), messages.encode_receipt(Receipt(first.epoch, 1, 1)))
        status(tmp_path, applied=1)
