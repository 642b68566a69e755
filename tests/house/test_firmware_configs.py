"""Every shipped configuration is one that its program takes; brokers are in test_secured, services in test_install."""

import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import attrs
import pytest

from edgeclient.settings import Conditions, Device, Training, Upload, load

ROOT = Path(str(files("firmware_configs")))
BOARDS = sorted(ROOT.glob("boards/*.toml"))
# Those that every board decides; what is missing here has one right value everywhere.
KNOBS = {
    Training: {"threads", "max_seconds", "max_batch", "max_density", "accel"},
    Upload: {"window", "retry_after_s", "max_frame_bytes", "max_outbox_bytes"},
    Conditions: {"preset", "max_written_bytes_per_day"},
}


def board(name: str) -> Device:
    return load(ROOT / "boards" / f"{name}.toml", Device)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_board_loads(path: Path) -> None:
    settings = load(path, Device)
    assert settings.task == "my-task"
    assert not settings.mqtt.tls


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_board_loads_with_its_tls_lines(path: Path, tmp_path: Path) -> None:
    text, count = re.subn(r"(?m)^# (\w+ = )", r"\1", path.read_text())
    assert count == 4
    (tmp_path / "device.toml").write_text(text)
    mqtt = load(tmp_path / "device.toml", Device).mqtt
    assert (mqtt.tls, mqtt.port) == (True, 8883)
    # The broker's rules know a device by its id.
    assert mqtt.username == load(path, Device).device


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_board_decides_every_knob_and_says_why(path: Path) -> None:
    text = path.read_text()
    for kind, names in KNOBS.items():
        assert names <= {field.name for field in attrs.fields(kind)}
        section = text.split(f"[{kind.__name__.lower()}]\n")[1].split("\n\n")[0]
        assert names <= set(re.findall(r"(?m)^(\w+) =", section))
        unexplained = [line for line in section.splitlines() if " # " not in line]
        # Two say all in their names.
        assert {line.split(" =")[0] for line in unexplained} <= {"retry_after_s", "max_frame_bytes"}


def test_there_are_boards() -> None:
    assert {path.stem for path in BOARDS} == {
        "jetson",
        "raspberry-pi-3",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2-w",
        "termux",
        "x86-gateway",
    }


def test_smaller_boards_ask_less() -> None:
    sizes = [board(f"raspberry-pi-{name}") for name in ("zero-2-w", "3", "4", "5")]
    for smaller, larger in pairwise(sizes):
        for section, names in (
            ("training", ("threads", "max_batch", "max_density", "max_seconds")),
            ("upload", ("window", "max_frame_bytes", "max_outbox_bytes")),
            ("conditions", ("max_written_bytes_per_day",)),
        ):
            for name in names:
                less, more = (getattr(getattr(each, section), name) for each in (smaller, larger))
                assert less <= more, name
    # 70 MiB of numba are too much for 512 MB.
    assert sizes[0].training.accel == board("termux").training.accel == "numpy"


def test_all_of_it_is_package_data() -> None:
    """What another test or command looks for is there under its name."""
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    services = {"edgeclient@.service", "edgeclient-once@.service", "edgeclient-once@.timer"}
    assert found - {f"boards/{path.name}" for path in BOARDS} == {
        "README.md",
        "__init__.py",
        "container/Containerfile",
        "container/aggregator/broker.toml",
        "container/compose.yaml",
        "container/mosquitto/mosquitto.conf",
        "grafana/dashboard.json",
        "mosquitto/acl",
        "mosquitto/mosquitto.conf",
        "nats/nats-server.conf",
        "nats/users.conf",
        "prometheus/alerts.yml",
        "services/systemd-system/edgebroker.sysusers",
        "services/systemd-system/edgeclient.sysusers",
        "services/systemd-system/edgebroker@.service",
        "services/systemd-user/edgebroker@.service",
        "services/termux/boot",
        "services/termux/job",
        *(f"services/systemd-{kind}/{name}" for kind in ("system", "user") for name in services),
    }
