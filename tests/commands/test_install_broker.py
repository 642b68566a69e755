"""The aggregator as a service: what is written, what systemd makes of it, and when it is refused."""

from dataclasses import replace
from pathlib import Path

import fleet
import pytest
from installed import NEEDS_ANALYZE, SERVICES, Home, analyze

from broker.commands import install
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.services import systemd
from edgeclient.settings import ConfigError, Mqtt

BROKER = "broker.cli"
UNIT = ".config/systemd/user/edgebroker@fleet.service"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with an aggregator's configuration and a task."""
    made = tmp_path_factory.mktemp("b")
    (made / "fleet.toml").write_text(
        'directory = "broker-data"\n[embedded]\n[monitor]\nhost = "0.0.0.0"\ntoken_file = "operator.token"\n'
    )
    add_task(Aggregator(made / "broker-data", mqtt=Mqtt()), "har", fleet.BUNDLE, Task())
    return made


@pytest.fixture
def home(folder: Path, tmp_path: Path) -> Home:
    made = Home(tmp_path, BROKER)
    (tmp_path / "fleet.toml").symlink_to(folder / "fleet.toml")
    (tmp_path / "broker-data").symlink_to(folder / "broker-data")
    return made


@pytest.mark.case("fleet 60")
def test_install_and_uninstall(home: Home) -> None:
    said = home.ok("install", "--systemd", "--user", "fleet.toml")
    config = home.folder / "fleet.toml"
    unit, drop_in = UNIT.replace("@fleet", "@"), f"{UNIT}.d/edgebroker.conf"
    assert home.files() == {unit, drop_in}
    assert home.called() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable edgebroker@fleet.service",
        "systemctl --user restart edgebroker@fleet.service",
    ]
    assert f'/edgebroker" serve "{config}"\n' in (home.folder / drop_in).read_text()
    assert f"let the service read {home.folder}/operator.token" not in said  # it is the caller's
    home.ok("logs", "fleet.toml")
    assert home.called() == ["journalctl -n 100 --user-unit=edgebroker@fleet.service"]
    assert "would remove" in home.ok("uninstall", "--dry-run", "fleet.toml")
    home.ok("uninstall", "fleet.toml")
    assert home.called() == [
        "systemctl --user disable --now edgebroker@fleet.service",
        "systemctl --user reset-failed edgebroker@fleet.*",
        "systemctl --user daemon-reload",
    ]
    assert home.files() == set()
    assert "is not installed as a service: there is nothing" in home.refused("uninstall", "fleet.toml")


@pytest.mark.case("fleet 60")
def test_what_cannot_run_is_refused(home: Home) -> None:
    assert " is hidden from a system service" in home.refused(
        "install", "--systemd", "--system", "--dry-run", "fleet.toml"
    )
    home.ok("install", "--systemd", "--user", "--dry-run", "fleet.toml")
    (home.folder / "empty.toml").write_text('directory = "empty"\n[embedded]\n')
    said = home.refused("install", "--systemd", "--user", "empty.toml")
    assert "empty.toml has no task yet, and so nothing to serve: edgebroker task add --help" in said
    assert home.called() == []


def test_a_service_of_the_machine_has_its_own_places(folder: Path) -> None:
    job = replace(
        install._job(folder / "fleet.toml"),
        program=Path("/opt/edgeclient/bin/edgebroker"),
        config=Path("/etc/edgebroker/fleet.toml"),
        interpreter=Path("/usr/bin/python3.11"),
    )
    assert job.secrets == (folder / "operator.token",)
    with pytest.raises(ConfigError, match=r'set directory = "/var/lib/edgebroker/fleet"'):
        systemd.service(job, of_machine=True)
    made = systemd.service(replace(job, directory=Path("/var/lib/edgebroker/fleet")), of_machine=True)
    assert made is not None
    assert made.notes == (f"let the service read {folder}/operator.token: chown edgebroker {folder}/operator.token",)
    with pytest.raises(ConfigError, match=r"/home/me/test.npz \(data\) is hidden"):
        systemd.service(replace(job, data=(Path("/home/me/test.npz"),)), of_machine=True)


@NEEDS_ANALYZE
@pytest.mark.case("fleet 60")
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_systemd_understands_what_is_installed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, *, user: bool
) -> None:
    place = tmp_path_factory.mktemp("u")
    job = install._job(folder / "fleet.toml")
    made = systemd.user(job, place) if user else systemd.system(job, place)
    for file in made.shared + made.files:
        file.write()
    units = place / "systemd" / ("user" if user else "system")
    said = analyze("verify", "--man=no", "edgebroker@fleet.service", units=units, user=user)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("kind", ["system", "user"])
def test_both_programs_have_one_sandbox(kind: str) -> None:
    both = [
        {
            line
            for line in (SERVICES / f"systemd-{kind}" / f"{name}@.service")
            .read_text()
            .split("\nNoNewPriv")[1]
            .splitlines()
            if not line.startswith(("#", "PrivateDevices", "DeviceAllow"))
        }
        for name in ("edgeclient", "edgebroker")
    ]
    assert both[0] == both[1]
