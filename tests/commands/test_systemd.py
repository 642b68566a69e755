"""Services under a real systemd, in namespaces of their own: what runs, what is restarted, what is left afterwards."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fleet
import pytest
from containers import child_of, possible

from broker.processes.embedded import EmbeddedBroker
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint

SYSTEMD = Path("/usr/lib/systemd/systemd")
# A systemd of an account, with all that it looks for and no unit that is there already.
SCRIPT = f"""
mount --make-rprivate / && umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 77
mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 $XDG_RUNTIME_DIR || exit 77
export SYSTEMD_UNIT_PATH=$HOME/.config/systemd/user
mkdir -p $SYSTEMD_UNIT_PATH
for each in default basic shutdown timers; do
  printf '[Unit]\nDefaultDependencies=no\n' >$SYSTEMD_UNIT_PATH/$each.target
done
{SYSTEMD} --user &
wait
"""


@dataclass
class Account:
    """One with a systemd of its own."""

    folder: Path
    pid: int
    environment: dict[str, str]
    manager: tuple[str, ...] = ("--user",)

    def call(self, *command: str) -> "subprocess.CompletedProcess[str]":
        inside = ("nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--net", f"--wdns={self.folder}")
        full = [*inside, *command]
        return subprocess.run(
            full, capture_output=True, text=True, check=False, env=self.environment, timeout=60, cwd=self.folder
        )

    def edgeclient(self, *arguments: str) -> str:
        done = self.call(sys.executable, "-m", "edgeclient.cli", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, unit: str) -> dict[str, str]:
        names = "ActiveState,SubState,Result,NRestarts,ExecMainPID,ExecMainStatus"
        told = self.call("systemctl", *self.manager, "show", unit, f"--property={names}").stdout
        return dict(line.split("=", 1) for line in told.splitlines())

    def until(self, unit: str, accept: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        until_s = time.monotonic() + 60
        while not accept(state := self.state(unit)):
            assert time.monotonic() < until_s, state
            time.sleep(0.1)
        return state

    def left(self) -> list[str]:
        """Units of ours that systemd knows, failed ones and "not-found" ones included."""
        listed = ("list-units", "--all", "--plain", "--no-legend", "edgeclient*", "edgebroker*")
        return self.call("systemctl", *self.manager, *listed).stdout.splitlines()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    if why := possible() or ("" if SYSTEMD.exists() else "systemd is missing"):
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    ours = {"HOME": str(folder), "XDG_RUNTIME_DIR": "/run/account", "NUMBA_DISABLE_JIT": "1"}
    root = str(Path(__file__).parents[2])
    environment = {**kept, **ours, "PYTHONPATH": root, "SYSTEMD_LOG_TARGET": "console"}
    spaces = ("unshare", "--mount", "--cgroup", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", SCRIPT)
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(spaces, env=environment, stdout=log, stderr=log) as running,
    ):
        try:
            made = Account(folder, child_of(running), environment)
            until_s = time.monotonic() + 20
            while made.call("systemctl", "--user", "is-system-running").stdout.strip() not in {"running", "degraded"}:
                if running.poll() == 77:
                    pytest.skip(f"this machine gives no control group: {(folder / 'log').read_text()}")
                assert (running.poll(), time.monotonic() < until_s) == (None, True), (folder / "log").read_text()
                time.sleep(0.1)
            yield made
        finally:
            running.kill()


@pytest.fixture(scope="module")
def served(account: Account, mqtt_broker: EmbeddedBroker) -> Iterator[Endpoint]:
    """Where an aggregator offers a model."""
    endpoint = Endpoint("127.0.0.1", mqtt_broker.port)
    (account.folder / "broker").mkdir()
    with fleet.aggregator(account.folder / "broker", endpoint, "systemd", Task()):
        yield endpoint


@pytest.fixture
def config(account: Account, served: Endpoint) -> Path:
    return fleet.write_device(account.folder, served, "pi", "systemd")


@pytest.mark.case("fleet 24")
def test_conditions_that_forbid_a_round_are_no_failure(account: Account, config: Path) -> None:
    name = str(config)
    account.edgeclient("pause", name)
    account.edgeclient("install", "--systemd", "--user", "--once", name)
    service, timer = "edgeclient-once@systemd.service", "edgeclient-once@systemd.timer"
    assert account.state(timer)["ActiveState"] == "active"
    started = account.call("systemctl", "--user", "start", service)
    assert started.returncode == 0, started.stderr
    state = account.state(service)
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("inactive", "success", "3")
    # A failure is one, and goes with the service.
    config.write_text(config.read_text() + "nonsense = 1\n")
    assert account.call("systemctl", "--user", "start", service).returncode != 0
    assert account.state(service)["Result"] == "exit-code"
    config.write_text(config.read_text().replace("nonsense = 1\n", ""))
    account.edgeclient("uninstall", name)
    assert account.left() == []
    assert account.call("systemctl", "--user", "is-system-running").stdout == "running\n"


@pytest.mark.case("fleet 24")
def test_uninstall_ends_the_round_that_the_timer_has_begun(account: Account, config: Path) -> None:
    account.edgeclient("resume", str(config))
    account.edgeclient("install", "--systemd", "--user", "--once", str(config))
    service = "edgeclient-once@systemd.service"
    account.call("systemctl", "--user", "start", "--no-block", service)
    account.until(service, lambda state: state["SubState"] == "start" and state["ExecMainPID"] != "0")
    account.edgeclient("uninstall", str(config))
    assert account.left() == []
    assert " once " not in account.call("ps", "ax", "-o", "args").stdout


@pytest.mark.case("fleet 25")
def test_a_service_is_restarted_and_taken_back(account: Account, config: Path) -> None:
    name, service = str(config), "edgeclient@systemd.service"
    said = account.edgeclient("install", "--systemd", "--user", name)
    assert "enable-linger" in said
    state = account.until(service, lambda state: state["SubState"] == "running")
    status = config.parent / "state" / "status.json"
    until_s = time.monotonic() + 30
    while not status.exists():
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert json.loads(status.read_text())["rounds"] == 0
    account.call("kill", "-KILL", state["ExecMainPID"])
    account.until(service, lambda state: state["SubState"] == "auto-restart")
    account.edgeclient("uninstall", name)
    assert account.left() == []
    assert account.call("systemctl", "--user", "is-system-running").stdout == "running\n"


# A machine of its own: systemd as PID 1, with folders of the system over those that are there, and a network.

MACHINE = """
mount --make-rprivate / && umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 77
mount -t tmpfs none /run && mount -t tmpfs none $OVER || exit 77
for each in etc var opt; do
  mkdir -p $OVER/$each/upper $OVER/$each/work
  mount -t overlay none -o lowerdir=/$each,upperdir=$OVER/$each/upper,workdir=$OVER/$each/work /$each || exit 77
done
# Wherever they lie: services see no home and no /tmp.
mkdir /opt/ours /opt/theirs && mount --bind "$OURS" /opt/ours && mount --bind "$THEIRS" /opt/theirs || exit 77
ip link set lo up || exit 77
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
# It knows no unit of the machine: nothing that is there is started, mounted, cleaned up or set. Of what every service
# waits for only the names are left.
mount -t tmpfs none /etc/systemd && mkdir /etc/systemd/system || exit 77
for each in alone sysinit basic shutdown multi-user; do
  printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n' >/etc/systemd/system/$each.target
done
export SYSTEMD_UNIT_PATH=/etc/systemd/system
export container=test
exec $SYSTEMD --system --unit=alone.target --log-target=console --show-status=false --log-level=warning
"""
PROGRAM = "#!/opt/edgeclient/bin/python\nfrom {package}.cli import main\n\nmain()\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """With both commands in /opt/edgeclient, as the units have it."""
    python, ours = Path("/usr/bin/python3").resolve(), f"python3.{sys.version_info.minor}"
    why = possible() or ("" if SYSTEMD.exists() else "systemd is missing")
    why = why or ("" if python.name == ours else f"/usr/bin/python3 is not {ours}, for which this environment is")
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("machine")
    environment = {"PATH": os.environ["PATH"], "OVER": str(folder / "over"), "SYSTEMD": str(SYSTEMD)}
    environment |= {"OURS": str(Path(__file__).parents[2]), "THEIRS": sys.prefix}
    (folder / "over").mkdir()
    spaces = ("--mount", "--cgroup", "--pid", "--net", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child")
    command = ("unshare", *spaces, "sh", "-c", MACHINE)
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as running,
    ):
        try:
            made = Account(folder, child_of(running), environment, manager=())
            until_s = time.monotonic() + 20
            while made.state("alone.target").get("ActiveState") != "active":
                if running.poll() == 77:
                    pytest.skip(f"this machine allows no second one: {(folder / 'log').read_text()}")
                assert (running.poll(), time.monotonic() < until_s) == (None, True), (folder / "log").read_text()
                time.sleep(0.1)
            assert made.call(str(python), "-m", "venv", "--without-pip", "/opt/edgeclient").returncode == 0
            there = Path(f"/proc/{made.pid}/root/opt/edgeclient")
            (there / "lib" / ours / "site-packages" / "ours.pth").write_text(
                f"/opt/ours\n/opt/theirs/lib/{ours}/site-packages\n"
            )
            for name, package in (("edgeclient", "edgeclient"), ("edgebroker", "broker")):
                (there / "bin" / name).write_text(PROGRAM.format(package=package))
                (there / "bin" / name).chmod(0o755)
            # Compiling kernels takes longer than all of this.
            assert made.call("systemctl", "set-environment", "NUMBA_DISABLE_JIT=1").returncode == 0
            yield made
        finally:
            running.kill()


@pytest.mark.case("fleet 60")
@pytest.mark.timeout(200)
def test_both_services_of_a_machine_work_in_their_sandboxes(machine: Account) -> None:
    def run(name: str, *arguments: str) -> str:
        done = machine.call(f"/opt/edgeclient/bin/{name}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    root, config, device = Path(f"/proc/{machine.pid}/root"), "/etc/edgebroker/broker.toml", "/etc/edgeclient/mine.toml"
    for each in (config, device, "/var/lib/edgeclient/data"):
        (root / each[1:]).parent.mkdir(parents=True, exist_ok=True)
    run("edgebroker", "init", config, "--directory", "/var/lib/edgebroker/data", "--host", "127.0.0.1")
    (machine.folder / "mine.bundle").write_bytes(fleet.BUNDLE)
    (machine.folder / "task.toml").write_text("goal = 1\n")
    run("edgebroker", "task", "add", "mine", "mine.bundle", "--config", config, "--settings", "task.toml")
    assert "chown" not in run("edgebroker", "install", "--systemd", config)
    fleet.write_device(machine.folder, Endpoint("127.0.0.1", 1883), "pi", "mine")
    shutil.copy(machine.folder / "windows.npz", root / "var/lib/edgeclient")
    (root / device[1:]).write_text(
        (machine.folder / "d.toml").read_text().replace('"state"', '"/var/lib/edgeclient/mine"')
        .replace('"windows.npz"', '"/var/lib/edgeclient/windows.npz"')
    )  # fmt: skip
    run("edgeclient", "install", "--systemd", device)
    services = {"edgebroker": "edgebroker@broker.service", "edgeclient": "edgeclient@mine.service"}
    until_s = time.monotonic() + 90
    while not (told := json.loads(run("edgebroker", "status", config, "--json")))["tasks"][0]["devices"]:
        states = {each: machine.state(each) for each in services.values()}
        assert time.monotonic() < until_s, (told, states, (machine.folder / "log").read_text())
        time.sleep(1)  # a look takes half a second
    for account, service in services.items():
        state = machine.state(service)
        assert (state["SubState"], state["NRestarts"]) == ("running", "0")
        user = machine.call("ps", "-o", "user=", "-p", state["ExecMainPID"]).stdout.strip()
        assert account.startswith(user.rstrip("+"))
    assert machine.call("systemctl", "reload", services["edgebroker"]).returncode == 0
    assert machine.state(services["edgebroker"])["SubState"] == "running"
    run("edgeclient", "uninstall", device)
    run("edgebroker", "uninstall", config)
    assert machine.left() == []
    assert machine.call("systemctl", "--failed", "--plain", "--no-legend").stdout == ""
    assert json.loads(run("edgebroker", "status", config, "--json"))["tasks"][0]["devices"]["pi"]["applied"] >= 1
