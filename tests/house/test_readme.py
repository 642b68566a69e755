"""What the READMEs say is so: links lead somewhere, settings load, commands parse, and the worked examples run."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import attrs
import click
import fleet
import pytest
from links import free_port

import broker.cli
import edgeclient.cli
import tools.bench.__main__
import tools.compare.__main__
import tools.fuzz
from broker.processes import children
from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Device, structure
from edgeclient.wire import announcement, topics

ROOT: Final = Path(__file__).parents[2]
TEXTS: Final = sorted(
    ROOT / name
    for name in subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, text=True
    ).split()
    if (ROOT / name).exists()
)
# One screen and a half.
README_BYTES: Final = 8000
PROGRAMS: Final[dict[str, click.Command]] = {
    "edgeclient": edgeclient.cli.cli,
    "edgebroker": broker.cli.cli,
    "tools.bench": tools.bench.__main__.cli,
    "tools.compare": tools.compare.__main__.cli,
    "tools.fuzz": tools.fuzz.cli,
}
# What a board, a release or a benchmark runs, in tests of its own, and what a shell has.
OTHERS: Final = {"sudo", "apt", "pkg", "pip", "python", "python3", ".", "cd", "mv", "umask", "head", "base64",
    "docker", "cp", "mkdir", "printf",
}  # fmt: skip
KINDS: Final = {"broker.toml": Aggregator, "device.toml": Device, "mine.toml": Task, "task.toml": Task}
# What a fragment leaves out.
REST: Final[dict[type, dict[str, Any]]] = {
    Device: {"device": "d", "task": "t", "directory": "d", "data": {"source": "x.npz"}},
    Aggregator: {"directory": "d", "embedded": {}},
}


def blocks(text: Path, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text.read_text(), re.MULTILINE | re.DOTALL)
    return found


def block(name: str, language: str, beginning: str) -> str:
    """The one that begins so."""
    (found,) = [each for each in blocks(ROOT / name, language) if each.startswith(beginning)]
    return found


def commands(script: str) -> Iterator[list[str]]:
    """Each of its commands, as words."""
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        end = ""
        for is_end, group in groupby(words, lambda word: bool(re.fullmatch("[();<>|&]+", word))):
            if is_end:
                (*_, end) = group
            elif end != ">":  # what follows is a file
                yield list(group)


IDS: Final = [str(path.relative_to(ROOT)) for path in TEXTS]
every_text = pytest.mark.parametrize("text", TEXTS, ids=IDS)


def test_the_first_one_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


@every_text
def test_links_lead_somewhere(text: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", text.read_text())
    lost = [each for each in targets if "://" not in each and not (text.parent / each.partition("#")[0]).exists()]
    assert not lost


@every_text
def test_settings_load(text: Path, tmp_path: Path) -> None:
    for each in blocks(text, "toml"):
        told = tomllib.loads(each)
        named = re.match(r"# ([\w.]+)", each)
        fits = [kind for kind in REST if told.keys() <= {field.name for field in attrs.fields(kind)}]
        kind = KINDS[named[1]] if named else fits[0]
        rest = {} if named else REST[kind]
        structure({**rest, **told}, kind, where=each.partition("\n")[0], folder=tmp_path)


@every_text
def test_commands_parse(text: Path) -> None:
    for program, *arguments in (each for script in blocks(text, "sh") for each in commands(script)):
        if program in PROGRAMS:
            parse(PROGRAMS[program], arguments)
        elif arguments[:1] == ["-m"] and arguments[1] in PROGRAMS:
            parse(PROGRAMS[arguments[1]], arguments[2:])
        elif arguments[:2] == ["-m", "tools.chaos"]:
            assert [each for each in arguments if each.startswith("--") and each not in chaos_options()] == []
        else:
            assert program in OTHERS or os.access(ROOT / program, os.X_OK), program


def parse(command: click.Command, arguments: list[str]) -> None:
    """A subcommand, and arguments that it knows."""
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0])
        assert found, arguments
        return parse(found, arguments[1:])
    _, left_over, _ = command.make_parser(click.Context(command)).parse_args(list(arguments))
    assert not left_over, arguments
    return None


@cache
def chaos_options() -> str:
    return subprocess.check_output([sys.executable, "-m", "tools.chaos", "--help"], cwd=ROOT, text=True)


def test_the_export_from_pytorch_is_the_one_whose_file_a_test_compiles() -> None:
    """tests/native/test_field_models.py has the file; PyTorch is in no environment of ours."""
    said = block("edgeclient/compile/README.md", "python", "# from_torch.py")
    compile(said, "from_torch.py", "exec")
    assert 'dynamic_shapes=({0: "batch"},)' in said
    assert "optimize=False" in said


def test_nothing_else_is_called_a_script() -> None:
    languages = {each for text in TEXTS for each in re.findall(r"^```(\S+)$", text.read_text(), re.MULTILINE)}
    assert languages <= {"python", "sh", "text", "toml"}


# The worked examples, as they stand but for addresses: tests share one machine.


def run(script: str, folder: Path, python: str = sys.executable) -> str:
    """What it prints; each of its commands must succeed."""
    done = subprocess.run(
        ["sh", "-euc", script], cwd=folder, env=environment(python), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(python: str = sys.executable) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(python).parent}:{os.environ['PATH']}"}


@contextmanager
def serving(folder: Path, line: str) -> Iterator[None]:
    """A command that runs until the end of the block."""
    log = folder / "log"
    process = children.spawn(["sh", "-c", f'cd "$0" && exec {line}', str(folder)], log=log, env=environment())
    try:
        yield
    finally:
        children.end(process)
    assert "Traceback" not in log.read_text()


def await_version(port: int, task: str, version: int) -> None:
    with fleet.hand(Endpoint("127.0.0.1", port), topics.head(task)) as link:
        fleet.await_message(link, lambda heard: announcement.decode(heard.payload).version >= version, timeout_s=90)


def join(line: str, folder: Path, port: int, device: str) -> None:
    run(line.replace("//192.168.1.10/", f"//127.0.0.1:{port}/") + f" --device {device}", folder)
    with (folder / "device.toml").open("a") as file:
        file.write('[conditions]\npreset = "eager"\nmin_free_disk_bytes = 0\n')


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, native_python: str) -> Path:
    """A folder with what the examples begin with: a model, compiled, and a device's data."""
    folder = tmp_path_factory.mktemp("made")
    for name, title in (("edgeclient/compile/README.md", "make_model.py"), ("README.md", "make_data.py")):
        (folder / title).write_text(block(name, "python", f"# {title}"))
        run(f"python {title}", folder, native_python)
    run(block("README.md", "sh", "edgeclient compile"), folder, native_python)
    run(block("edgeclient/compile/README.md", "sh", "edgeclient compile"), folder, native_python)
    return folder


@pytest.mark.timeout(300)  # many commands, on a machine that may be busy
def test_two_machines(made: Path, tmp_path: Path) -> None:
    port = free_port()
    init, add, serve = block("README.md", "sh", "edgebroker init").splitlines()
    join_, run_, status = block("README.md", "sh", "edgeclient join").splitlines()
    owner = block("edgeclient/README.md", "sh", "edgeclient doctor")
    operator = block("broker/README.md", "sh", "edgebroker task list")
    result, answers = (
        block("README.md", "sh", "edgebroker export"),
        block("broker/README.md", "sh", "edgebroker export"),
    )
    _, *changes = block("broker/README.md", "sh", "edgebroker task add").splitlines()
    backup = block("broker/README.md", "sh", "edgebroker backup")
    restore = block("broker/README.md", "sh", "mv broker-data")
    server, device, other = (tmp_path / name for name in ("server", "device", "other"))
    server.mkdir()
    shutil.copy(made / "mine.bundle", server)
    asked = block("README.md", "toml", "# mine.toml").replace("min_interval_s = 5", "min_interval_s = 0")
    (server / "mine.toml").write_text(asked)
    run(f"{init.partition('#')[0]} --host 127.0.0.1 --port {port}\n{add}", server)
    with (server / "broker.toml").open("a") as file:
        file.write(fleet.NO_PAGE)
    for folder, name in ((device, "pi-7"), (other, "pi-8")):
        folder.mkdir()
        shutil.copy(made / "windows.npz", folder)
        join(join_, folder, port, name)
    before = run("edgeclient evaluate --bundle mine.bundle --data ../device/windows.npz --json", server)
    with serving(server, serve):
        with serving(device, run_):
            await_version(port, "mine", 15)
        assert "version" in run(status, device)
        after = run("edgeclient evaluate device.toml --json", device)
        assert json.loads(after)["loss"] < json.loads(before)["loss"]
        assert json.loads(run("edgeclient status device.toml --json", device))["applied"] >= 14
        run(owner, other)
        assert not list((other / "edge-data").glob("store*"))  # it left
        assert "pi-7" in run(operator, server)
        shutil.copy(made / "windows.npz", server)
        assert " as labelled" in run(result, server)
        assert json.loads(run(answers, server).splitlines()[-1])["accuracy"] > 0.5
        assert (server / "learnt.onnx").stat().st_size > 3000
        run("\n".join(changes), server)
        run(backup, server)
    run(restore, server)
    assert json.loads(run("edgebroker status broker.toml --json", server))["tasks"][0]["version"] >= 15


def test_a_project_that_trains_as_it_stands(tmp_path: Path) -> None:
    new, *others = block("README.md", "sh", "edgeclient new").splitlines()
    port = free_port()
    ours = f"sed -i s/1883/{port}/ broker.toml device.toml && echo min_free_disk_bytes = 0 >>device.toml"
    with (tmp_path / "log").open("w+") as log:
        # A group of its own, since the block leaves the aggregator behind.
        running = subprocess.Popen(
            ["sh", "-euc", "\n".join([new, ours, *others])],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=log, process_group=0,
        )  # fmt: skip
        assert running.stdout is not None
        try:
            await_version(port, "demo", 3)
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.communicate(timeout=30)  # until none of them has the pipe any more
        log.seek(0)
        assert "Traceback" not in log.read()


def test_an_operator_s_token(tmp_path: Path) -> None:
    run(block("broker/README.md", "sh", "(umask"), tmp_path)
    token = tmp_path / "operator.token"
    assert (token.stat().st_mode & 0o777, len(token.read_text())) == (0o600, 33)
