"""Services under a real systemd, in namespaces of their own: what runs, what is restarted, what is left afterwards."""

import json
import os
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
# A systemd of an account, with all that it looks for and nothing that is there already.
SCRIPT = f"""
mount --make-rprivate / && umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 77
mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 $XDG_RUNTIME_DIR || exit 77
{SYSTEMD} --user &
wait
"""


@dataclass
class Account:
    """One with a systemd of its own."""

    folder: Path
    pid: int
    environment: dict[str, str]

    def call(self, *command: str) -> "subprocess.CompletedProcess[str]":
        inside = ("nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", f"--wdns={self.folder}")
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
        told = self.call("systemctl", "--user", "show", unit, f"--property={names}").stdout
        return dict(line.split("=", 1) for line in told.splitlines())

    def until(self, unit: str, accept: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        until_s = time.monotonic() + 60
        while not accept(state := self.state(unit)):
            assert time.monotonic() < until_s, state
            time.sleep(0.1)
        return state

    def left(self) -> list[str]:
        """Units of ours that systemd knows, failed ones and "not-found" ones included."""
        told = self.call("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "edgeclient*").stdout
        return told.splitlines()


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
