"""The README's worked example runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import fleet
import pytest

from broker.processes import children
from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Device, load
from edgeclient.wire import announcement, topics

README = (Path(__file__).parents[2] / "README.md").read_text()


def _block(language: str, title: str) -> str:
    found = re.search(rf"```{language}\n(# {re.escape(title)}.*?)```", README, re.DOTALL)
    assert found, title
    return found[1]


@pytest.fixture
def files(tmp_path: Path, endpoint: Endpoint, native_python: str) -> Path:
    for title in ("make_model.py", "make_data.py"):
        (tmp_path / title).write_text(_block("python", title))
        subprocess.run([native_python, title], cwd=tmp_path, check=True)
    (compile_,) = re.findall(r"^edgeclient (compile mine\.onnx .*)$", README, re.MULTILINE)
    subprocess.run([native_python, "-m", "edgeclient.cli", *compile_.split()], cwd=tmp_path, check=True)
    for title in ("broker.toml", "mine.toml", "device.toml"):
        (tmp_path / title).write_text(_block("toml", title))
    load(tmp_path / "broker.toml", Aggregator)
    load(tmp_path / "mine.toml", Task)
    load(tmp_path / "device.toml", Device)
    # Not the README's port: tests share one machine.
    (tmp_path / "broker.toml").write_text(f'directory = "broker-data"\n[mqtt]\nport = {endpoint.port}\n{fleet.NO_PAGE}')
    device = (tmp_path / "device.toml").read_text().replace('host = "192.168.1.10"', f"port = {endpoint.port}")
    (tmp_path / "device.toml").write_text(device + '[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n')
    (tmp_path / "mine.toml").write_text("goal = 1\nmin_interval_s = 0\n")
    return tmp_path


def test_your_own_model_and_data(files: Path, endpoint: Endpoint) -> None:
    def call(module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=files, capture_output=True, text=True, check=True).stdout

    before = json.loads(
        call("edgeclient.cli", "evaluate", "--bundle", "mine.bundle", "--data", "windows.npz", "--json")
    )
    call("broker.cli", "task", "add", "mine", "mine.bundle", "--config", "broker.toml", "--settings", "mine.toml")
    running = [
        children.spawn([sys.executable, "-m", *command], log=files / f"{command[0]}.log")
        for command in (
            ("broker.cli", "serve", str(files / "broker.toml")),
            ("edgeclient.cli", "run", str(files / "device.toml")),
        )
    ]
    try:
        with fleet.hand(endpoint, topics.head("mine")) as link:
            fleet.await_message(link, lambda message: announcement.decode(message.payload).version >= 15, timeout_s=90)
    finally:
        children.end_all(running)
    after = json.loads(call("edgeclient.cli", "evaluate", "device.toml", "--json"))
    assert after["loss"] < before["loss"]
    assert json.loads(call("edgeclient.cli", "status", "device.toml", "--json"))["applied"] >= 15
    assert "pi-7: " in call("broker.cli", "status", "broker.toml")


def test_the_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"^(edge(?:client|broker) [a-z]+)", README, re.MULTILINE))
    assert len(named) >= 5
    for command in named:
        program, name = command.split()
        module = "edgeclient.cli" if program == "edgeclient" else "broker.cli"
        subprocess.run([sys.executable, "-m", module, name, "--help"], check=True, capture_output=True)
