"""`edgeclient new` writes a project, and its README's commands train it."""

import json
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path

import fleet
import numpy as np
import pytest
from links import free_port

from broker.processes import children
from edgeclient.bundle import archive
from edgeclient.commands.new.command import KINDS, commands, dry_run, write
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import ConfigError
from edgeclient.wire import announcement, topics

MODULES = {"edgeclient": "edgeclient.cli", "edgebroker": "broker.cli"}


def command(line: str) -> list[str]:
    program, *arguments = shlex.split(line, comments=True)
    return [sys.executable, "-m", MODULES[program], *arguments]


def call(line: str, folder: Path) -> str:
    done = subprocess.run(command(line), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    call("edgeclient new demo", tmp_path)
    return tmp_path / "demo"


def test_the_dry_run_that_it_ends_with_runs(project: Path) -> None:
    line = dry_run((project / "README.md").read_text()).replace("--option count=4800", "--option count=300")
    assert "task.toml, for edgebroker task add" in call(f"{line} --rounds 2 --no-search", project)


def loss(said: str) -> float:
    value: float = json.loads(said)["loss"]
    return value


def test_the_readme_trains(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name in ("broker.toml", "device.toml"):  # tests share one machine
        path = project / name
        path.write_text(path.read_text().replace("port = 1883", f"port = {port}"))
    with (project / "device.toml").open("a") as file:  # in [conditions]: a full disk of the test machine is no matter
        file.write("min_free_disk_bytes = 0\n")
    add, *serving = commands((project / "README.md").read_text())
    assert len(serving) == 2
    before = loss(call("edgeclient evaluate --bundle model.bundle --data my_data.py:examples --json", project))
    call(add, project)
    monkeypatch.chdir(project)
    running = [children.spawn(command(line), log=project / f"{at}.log") for at, line in enumerate(serving)]
    try:
        with fleet.hand(Endpoint("127.0.0.1", port), topics.head("demo")) as link:
            fleet.await_message(link, lambda message: announcement.decode(message.payload).version >= 10, timeout_s=90)
    finally:
        children.end_all(running)
    assert all("Traceback" not in (project / f"{at}.log").read_text() for at in range(2))
    said = call("edgeclient evaluate device.toml --json", project)
    assert loss(said) < 0.6 * before
    assert json.loads(said)["num_examples"] == 58  # the holdout
    gain = json.loads(call("edgeclient status device.toml --json", project))["gain"]
    assert gain["num_examples"] == 58
    assert gain["loss_after"] < before
    status = json.loads(call("edgebroker status broker.toml --json", project))
    assert status["tasks"][0]["version"] >= 10
    assert status["tasks"][0]["devices"]["demo-1"]["applied"] >= 10


def test_every_command_of_the_readme_exists(project: Path) -> None:
    lines = [line for line in (project / "README.md").read_text().splitlines() if line.startswith(tuple(MODULES))]
    assert len(lines) >= 7
    for line in lines:
        program, name, *_ = line.split()
        call(f"{program} {name} --help", project)


def test_nothing_is_overwritten(project: Path) -> None:
    content = {path: path.read_bytes() for path in project.iterdir()}
    done = subprocess.run(
        command("edgeclient new demo"), cwd=project.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == ("edgeclient: demo exists already, nothing was written: choose another name, or remove it\n")
    assert {path: path.read_bytes() for path in project.iterdir()} == content


@pytest.mark.parametrize(("name", "said"), [("a b", "cannot be the name"), ("x" * 61, "too long"), ("", "cannot be")])
def test_names_that_are_no_task(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        list(write(tmp_path / name if name else Path()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundle_is_what_the_export_script_makes(kind: str, tmp_path: Path, native_python: str) -> None:
    project = tmp_path / "again"
    list(write(project, kind))
    shipped = (project / "model.bundle").read_bytes()
    assert shipped == resources.files("edgeclient.commands.new").joinpath(kind, "model.bundle").read_bytes()
    subprocess.run([native_python, "export_model.py"], cwd=project, check=True)
    (line,) = [
        each for each in (project / "README.md").read_text().splitlines() if each.startswith("edgeclient compile")
    ]
    subprocess.run([native_python, "-m", "edgeclient.cli", *line.split()[1:]], cwd=project, check=True)
    made, ours = archive.decode((project / "model.bundle").read_bytes()), archive.decode(shipped)
    assert made.manifest.layout == ours.manifest.layout
    assert (made.manifest.inputs, made.manifest.labels, made.manifest.classes) == (
        ours.manifest.inputs,
        ours.manifest.labels,
        ours.manifest.classes,
    )
    assert np.array_equal(made.parameters, ours.parameters)
    assert made.files["training.onnx"] == ours.files["training.onnx"]
