"""What a device must install is pure Python, but for what Termux packages itself."""

import json
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Termux's own packages, and their versions, at commit 58b520594c of termux/termux-packages. Each is the only one there.
TERMUX_PYTHON = "3.14"
TERMUX = {
    "cryptography": "50.0.0",
    "grpcio": "1.83.0",
    "llvmlite": "0.48.0",
    "msgpack": "1.2.1",
    "numpy": "2.4.4",
    "onnxruntime": "1.29.0",
    "psutil": "7.2.2",
    "scipy": "1.18.1",
    "torch": "2.11.0",
}
PACKAGED_BY_TERMUX = TERMUX.keys() | {"cffi", "pycparser"}
ROOT = Path(__file__).parents[2]
BOARDS = [
    {
        "sys_platform": platform,
        "platform_system": system,
        "python_version": python,
        "python_full_version": f"{python}.1",
    }
    for platform, system in (("linux", "Linux"), ("android", "Android"))
    for python in ("3.11", "3.12", "3.13", "3.14")
]


def closure(name: str, board: dict[str, str]) -> dict[str, Distribution]:
    """Everything that `pip install name` brings to an aarch64 board, without extras of the first."""
    environment = {**board, "platform_machine": "aarch64", "os_name": "posix", "implementation_name": "cpython"}
    found: dict[str, Distribution] = {}
    open_ = [(canonicalize_name(name), frozenset[str]())]
    seen = set(open_)
    while open_:
        each, extras = open_.pop()
        found[each] = distribution(each)
        for text in found[each].requires or ():
            requirement = Requirement(text)
            wanted = [{**environment, "extra": extra} for extra in ("", *extras)]
            if requirement.marker is None or any(requirement.marker.evaluate(each_) for each_ in wanted):
                next_ = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if next_ not in seen:
                    seen.add(next_)
                    open_.append(next_)
    return found


def is_pure(made: Distribution) -> bool:
    wheel = made.read_text("WHEEL") or ""
    fields = [line.partition(": ")[::2] for line in wheel.splitlines()]
    tags = [value for key, value in fields if key == "Tag"]
    portable = bool(tags) and all(tag.endswith("-none-any") for tag in tags)
    return ("Root-Is-Purelib", "true") in fields and portable


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: f"{board['sys_platform']}-{board['python_version']}")
def test_the_device_needs_no_compiled_wheel(board: dict[str, str]) -> None:
    found = closure("edgeclient", board)
    assert {"attrs", "cattrs", "click", "numpy", "paho-mqtt"} <= found.keys()
    assert [name for name, made in found.items() if not is_pure(made) and name not in PACKAGED_BY_TERMUX] == []


def test_the_check_can_fail() -> None:
    assert not is_pure(distribution("numpy"))
    assert not is_pure(distribution("numba"))
    assert is_pure(distribution("attrs"))
    assert "llvmlite" in closure("numba", BOARDS[0])


def test_what_costs_much_stays_in_extras() -> None:
    found = closure("edgeclient", BOARDS[0])
    heavy = {"numba", "llvmlite", "onnx", "onnxruntime", "onnxruntime-training-cpu", "matplotlib"}
    assert not (heavy | {"rich", "aiohttp", "prometheus-client"}) & found.keys()


def resolve_in_termux(wheel: Path, extras: str, folder: Path) -> dict[str, str]:
    """Every wheel that pip would fetch in Termux, by name; "" when there is no solution.

    pip may take pure wheels only, and Termux's packages, which stand there as empty wheels of their versions.
    """
    for name, version in TERMUX.items():
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as packaged:
            info = f"{name}-{version}.dist-info"
            packaged.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            packaged.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            packaged.writestr(f"{info}/RECORD", "")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--dry-run"]
    command += ["--ignore-installed", "--target", str(folder / "nowhere"), "--report", str(folder / "report.json")]
    command += ["--only-binary=:all:", f"--python-version={TERMUX_PYTHON}", "--implementation=py", "--abi=none"]
    command += ["--platform=any", "--find-links", str(folder), f"{wheel}{extras}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        assert "No matching distribution found" in done.stderr, done.stderr
        return {}
    report = json.loads((folder / "report.json").read_text())
    return {
        canonicalize_name(each["metadata"]["name"]): each["download_info"]["url"].rpartition("/")[2]
        for each in report["install"]
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    command = [str(ROOT / "tools" / "release"), "--work-tree", "--out", str(dist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (made,) = dist.glob("edgeclient-*.whl")
    return made


@pytest.mark.parametrize("extras", ["", "[onnx]"])
def test_termux_needs_no_compiled_wheel_but_its_own(wheel: Path, tmp_path: Path, extras: str) -> None:
    found = resolve_in_termux(wheel, extras, tmp_path)
    assert {"attrs", "cattrs", "click", "edgeclient", "numpy", "paho-mqtt"} <= found.keys()
    assert ("onnxruntime" in found) == bool(extras)
    assert all(name.endswith("-none-any.whl") for name in found.values())
    own = {name: TERMUX[name] for name in found.keys() & TERMUX.keys()}
    assert {name: found[name] for name in own} == {n: f"{n}-{v}-py3-none-any.whl" for n, v in own.items()}


def test_what_termux_lacks_is_noticed(wheel: Path, tmp_path: Path) -> None:
    assert resolve_in_termux(wheel, "[accel]", tmp_path) == {}  # numba: a compiled wheel that nobody has for Android
