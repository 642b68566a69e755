"""Trying it as a new user would: every command explains itself, every mistake is one readable line."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import forked
import pytest

import broker.cli
import edgeclient.cli
from edgeclient import __version__
from edgeclient.logs.group import named

DEVICE = 'device = "pi-7"\ntask = "har"\ndirectory = "state"\n[data]\nsource = "windows.npz"\n'
AGGREGATOR = 'directory = "data"\n[mqtt]\nport = 1\n'


def _commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found, context = [prefix], click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found += _commands(command, (*prefix, name)) if isinstance(command, click.Group) else [(*prefix, name)]
    return found


COMMANDS = [("edgeclient.cli", *path) for path in _commands(edgeclient.cli.cli)]
COMMANDS += [("broker.cli", *path) for path in _commands(broker.cli.cli)]


def _call(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return forked.run(arguments, cwd=folder)


@pytest.mark.parametrize("line", [edgeclient.cli, broker.cli], ids=lambda line: str(line.__name__))
def test_what_a_command_line_names_is_there(line: ModuleType) -> None:
    for name, place in line.cli.places.items():
        assert named(place).name == name
    for place in line.EXPECTED:
        assert issubclass(named(place), Exception)


@pytest.mark.parametrize("command", [["-m", "edgeclient.cli", "status"], ["-m", "broker.cli", "status"]])
def test_a_command_imports_what_it_needs(command: list[str]) -> None:
    """Half a second of a board's start were commands that nobody had asked for."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"edgeclient.agent", "broker.service", "edgeclient.commands.compile", "onnxruntime"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command: tuple[str, ...], tmp_path: Path) -> None:
    answered = _call(*command, "--help", folder=tmp_path)
    assert answered.returncode == 0
    name = "edgeclient" if command[0] == "edgeclient.cli" else "edgebroker"
    assert "Example" in answered.stdout
    assert "\\b" not in answered.stdout  # click keeps the lines of an example where it finds that character itself
    assert f"  {name} " in answered.stdout.split("Example", 1)[1]


@pytest.mark.parametrize(
    ("files", "command", "said"),
    [
        ({}, "edgeclient.cli run device.toml", "device.toml: No such file"),
        ({"device.toml": DEVICE + "shuffle = 1\n"}, "edgeclient.cli run device.toml", "unknown key data.shuffle"),
        ({"device.toml": DEVICE.replace("pi-7", "pi/7")}, "edgeclient.cli run device.toml", "'pi/7' is not a device"),
        ({"device.toml": DEVICE.replace("har", "+")}, "edgeclient.cli run device.toml", "'+' is not a device or task"),
        ({"device.toml": DEVICE}, "edgeclient.cli run device.toml", "windows.npz"),
        ({"device.toml": DEVICE}, "edgeclient.cli status device.toml", "has not run yet"),
        ({"device.toml": DEVICE}, "edgeclient.cli evaluate device.toml", "no model yet"),
        ({"device.toml": DEVICE}, "edgeclient.cli evaluate", "either a device's CONFIG or --bundle"),
        ({"device.toml": DEVICE}, "edgeclient.cli audit device.toml --out a.npz", "audit = true"),
        ({"b": "junk"}, "edgeclient.cli evaluate --bundle b --data windows.npz", "edgeclient: "),
        ({}, "broker.cli serve broker.toml", "broker.toml: No such file"),
        ({"b.toml": AGGREGATOR}, "broker.cli serve b.toml", "add a task first"),
        ({"b.toml": AGGREGATOR}, "broker.cli status b.toml", "add a task first"),
        ({"b.toml": 'directory = "d"\n'}, "broker.cli status b.toml", "[embedded] broker to start or an [mqtt]"),
        ({"b.toml": AGGREGATOR, "x": "junk"}, "broker.cli task add har x --config b.toml", "edgebroker: "),
        ({"b.toml": AGGREGATOR, "x": "junk"}, "broker.cli task add a/b x --config b.toml", "'a/b' is not a device"),
        ({"out/precious": "mine"}, "broker.cli demo --out out", "not an earlier demo's"),
        ({}, "broker.cli demo --devices 17", "17 is not in the range"),
    ],
)
def test_a_mistake_is_one_line(files: dict[str, str], command: str, said: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    answered = _call(*command.split(), folder=tmp_path)
    assert answered.returncode in {1, 2}
    assert said in answered.stderr
    assert "Traceback" not in answered.stderr
    if answered.returncode == 1:
        assert len(answered.stderr.strip().splitlines()) == 1
    if "out/precious" in files:
        assert (tmp_path / "out/precious").read_text() == "mine"


def test_version(tmp_path: Path) -> None:
    for module in ("edgeclient.cli", "broker.cli"):
        assert __version__ in _call(module, "--version", folder=tmp_path).stdout


def test_task_list_is_json(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(AGGREGATOR)
    bundle = Path(broker.cli.__file__).parent / "demo" / "data" / "watch-har.bundle"
    added = _call("broker.cli", "task", "add", "har", str(bundle), "--config", "b.toml", folder=tmp_path)
    assert added.returncode == 0, added.stderr
    again = _call("broker.cli", "task", "add", "har", str(bundle), "--config", "b.toml", folder=tmp_path)
    assert again.returncode == 1
    assert "already there" in again.stderr
    listed = json.loads(_call("broker.cli", "task", "list", "--config", "b.toml", "--json", folder=tmp_path).stdout)
    assert [(each["task"], each["version"]) for each in listed["tasks"]] == [("har", 0)]


@pytest.mark.case("fleet 50")
def test_a_lack_of_memory_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "b").open("wb") as file:
        file.truncate(4 << 30)  # takes no room
    done = subprocess.run(
        [sys.executable, "-m", "edgeclient.cli", "evaluate", "--bundle", "b", "--data", "x.npz"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "edgeclient: there is no more memory\n")


@pytest.mark.parametrize("seconds", ["-1", "inf", "1e12"])
def test_a_time_that_no_clock_knows_is_refused(seconds: str, tmp_path: Path) -> None:
    """A timer of so long fails in its own thread, and `once` would go on without an end."""
    (tmp_path / "device.toml").write_text(DEVICE)
    done = _call("edgeclient.cli", "once", "device.toml", "--timeout", seconds, folder=tmp_path)
    assert done.returncode == 2
    assert "is not in the range" in done.stderr
