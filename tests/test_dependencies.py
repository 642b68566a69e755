"""What a device must install is pure Python, but for what Termux packages itself."""

from importlib.metadata import Distribution, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGED_BY_TERMUX = {"numpy", "cryptography", "cffi", "pycparser"}
BOARDS = [
    {
        "sys_platform": platform,
        "platform_system": system,
        "python_version": python,
        "python_full_version": f"{python}.1",
    }
    for platform, system in (("linux", "Linux"), ("android", "Android"))
    for python in ("3.11", "3.12", "3.13")
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
    heavy = {"numba", "llvmlite", "onnx", "onnxruntime", "onnxruntime-training-cpu", "matplotlib", "rich", "aiohttp"}
    assert not heavy & found.keys()
