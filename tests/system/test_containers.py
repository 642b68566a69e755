"""The shipped containers, set up as firmware_configs/README.md says and run by Linux' own namespaces, with a device."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import containers
import fleet
import pytest
import yaml
from containers import ACCOUNT, FOLDER, ROOT, Container, Host

from broker.demo.files import write_windows
from broker.ledger.opening import open_ledger
from broker.settings import Aggregator
from edgeclient.settings import load

pytestmark = pytest.mark.skipif(bool(containers.possible()), reason=f"no namespaces: {containers.possible()}")
README = (FOLDER.parent / "README.md").read_text()
SET_UP = README.split("```sh\n")[1].split("```")[0]
# Compiling kernels takes longer than all of this.
QUICK = {"NUMBA_DISABLE_JIT": "1"}


@dataclass
class Fleet:
    """Everything, up."""

    host: Host
    folder: Path
    running: "dict[str, subprocess.Popen[bytes]]"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        until_s = time.monotonic() + timeout_s
        while not condition():
            told = {name: self.log(name)[-2000:] for name in self.running}
            assert time.monotonic() < until_s, told
            assert all(each.poll() is None for each in self.running.values()), told
            time.sleep(0.05)

    def once(self, container: Container) -> str:
        """What it prints."""
        log = self.folder / "once.log"
        log.unlink(missing_ok=True)
        code = self.host.start(quick(container), log).wait(60)
        assert code == 0, log.read_text()
        return log.read_text()


def quick(container: Container) -> Container:
    return replace(container, environment={**container.environment, **QUICK})


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("home")
    (home / "mine.bundle").write_bytes(fleet.BUNDLE)
    tools = home / "tools"
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\nexec {sys.executable} {containers.__file__} "$@"\n')
    (tools / "id").write_text(f"#!/bin/sh\necho {ACCOUNT}\n")
    for each in tools.iterdir():
        each.chmod(0o700)
    with ExitStack() as stack:
        host = stack.enter_context(containers.host(home, ["mosquitto", "aggregator"]))
        given = json.dumps({"folder": str(home), "keeper": host.keeper})
        env = {**os.environ, "HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "EDGECLIENT_HOST": given}
        done = subprocess.run(["sh", "-euc", SET_UP], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        folder, device = home / "fleet", home / "device"
        device.mkdir()
        write_windows(device, 1, 0)
        (device / "mqtt.password").write_text("a-password-of-its-own\n")
        (device / "mqtt.password").chmod(0o600)
        (device / "device.toml").write_text(
            'device = "pi-7"\ntask = "mine"\ndirectory = "/device/state"\n[data]\nsource = "windows.npz"\n'
            '[mqtt]\nhost = "mosquitto"\nusername = "pi-7"\npassword_file = "mqtt.password"\n'
            '[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n[training]\nmax_seconds = 2\naccel = "numpy"\n'
        )
        containers.own(device)
        wanted = {name: quick(containers.container(folder, name)) for name in ("mosquitto", "aggregator")}
        wanted["device"] = Container(["edgeclient", "run", "/device/device.toml"], [(device, "/device", True)], QUICK)
        made = Fleet(host, folder, {})
        for name, asked in wanted.items():
            made.running[name] = host.start(asked, folder / f"{name}.log")
            stack.callback(made.running[name].kill)
        yield made


@pytest.mark.case("fleet 60")
@pytest.mark.case("fleet 29")
@pytest.mark.timeout(200)
def test_a_fleet_of_containers_learns_and_ends_well(up: Fleet) -> None:
    """Root read-only, account without a home, no capabilities: PID 1 of each ends well when it is asked to."""
    settings = Aggregator(up.folder / "data" / "broker-data", embedded=None, mqtt=load_broker(up.folder).mqtt)

    def counted() -> int:
        with open_ledger(settings.ledger, read_only=True) as ledger:
            return sum(applied for applied, _, _ in ledger.frame_counts("mine").values())

    up.until(lambda: counted() >= 1, timeout_s=120)
    probe = containers.container(up.folder, "aggregator")
    check = containers.composed(up.folder)["aggregator"]["healthcheck"]["test"]
    assert check[0] == "CMD"
    assert up.once(replace(probe, command=check[1:])) == ""
    # As Prometheus calls it, by the container's name (fleet 32): it is known, and wants the token.
    asked = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9464); c.request('GET', '/metrics',"
    asked += " headers={'Host': 'aggregator:9464'}); print(c.getresponse().status)"
    assert up.once(replace(probe, command=["python", "-c", asked])) == "401\n"
    # Without a place for compiled kernels those of NumPy do.
    nowhere = up.folder / "warmup.log"
    assert up.host.start(Container(["edgeclient", "warmup"]), nowhere).wait(60) == 0
    assert "NumPy kernels: numba cannot be used (RuntimeError: cannot cache" in nowhere.read_text()
    for name in ("device", "aggregator", "mosquitto"):
        process = up.running.pop(name)
        pid = containers.child_of(process)
        told = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"(?m)^NSpid:\t\d+\t1$", told)
        assert re.search(r"(?m)^CapEff:\t0+$", told)
        assert re.search(rf"(?m)^Uid:\t{ACCOUNT}\t", told)
        assert " / / ro," in Path(f"/proc/{pid}/mountinfo").read_text()
        assert b"HOME=" not in Path(f"/proc/{pid}/environ").read_bytes()
        os.kill(pid, signal.SIGTERM)
        began_s = time.monotonic()
        assert process.wait(30) == 0, up.log(name)
        assert time.monotonic() - began_s < 20  # of 45 that compose.yaml gives
        assert "Traceback" not in up.log(name)


def load_broker(folder: Path) -> Aggregator:
    return load(folder / "aggregator" / "broker.toml", Aggregator)


@pytest.mark.case("fleet 60")
def test_what_the_files_name_is_there() -> None:
    assert load(FOLDER / "aggregator" / "broker.toml", Aggregator).monitor is not None
    composed = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert composed["services"].keys() == {"mosquitto", "aggregator"}
    for service in composed["services"].values():
        # A container's log is the only one that nobody bounds by default.
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert service["stop_grace_period"] == "45s"
        for each in service["volumes"]:
            source = FOLDER / each.split(":")[0]
            assert source.is_dir() or f" {source.name}" in SET_UP
    made = containers.image((FOLDER / "Containerfile").read_text())
    sources = [source for each in made["COPY"] for source in each.split()[:-1]]
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    packaged = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {*packaged, "pyproject.toml", project["project"]["readme"], "LICENSE"} == set(sources)
    (extras,) = re.findall(r"/build\[([\w,]+)\]", " ".join(made["RUN"]))
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()
    assert shutil.which(made["ENTRYPOINT"][0], path=str(Path(sys.executable).parent))
    assert [made["CMD"], made["USER"], made["STOPSIGNAL"]] == [["serve", "/config/broker.toml"], "1000:1000", "SIGTERM"]


def test_mosquitto_is_that_of_production_but_for_tls() -> None:
    contained = (FOLDER / "mosquitto" / "mosquitto.conf").read_text()
    ours = (FOLDER.parent / "mosquitto" / "mosquitto.conf").read_text()
    ours = re.sub(r"(?m)^(certfile|keyfile|tls_version) .*\n", "", ours).replace("listener 8883", "listener 1883")
    ours = ours.replace("/etc/mosquitto/", "/mosquitto/config/").replace("/var/lib/mosquitto/", "/mosquitto/data/")
    assert contained.partition("\nlistener")[2] == ours.partition("\nlistener")[2]
