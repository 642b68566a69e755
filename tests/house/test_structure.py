"""The measures of the house. Who needs more raises one here, and says what for."""

from pathlib import Path
from statistics import median
from typing import Final

import pytest

from tools.bench.code_lines import device_code_lines
from tools.emulation import suite

ROOT: Final = Path(__file__).parents[2]
# The two roots read as the map, in two minutes.
ROOTS: Final = ("edgeclient/agent.py", "broker/service.py")
ROOT_LINES: Final = 200
# A module is read in one sitting ...
MODULE_LINES: Final = 300
# ... but for these: every trap of paho in one file, and one coder that is one loop.
LARGER: Final = {"edgeclient/link/mqtt.py", "edgeclient/wire/frame/context_model.py"}
# Most do one thing.
MEDIAN_LINES: Final = 110
# What is not a stage's stays few: the root, the command line, settings, and what every stage stands on.
LOOSE_MODULES: Final = {"edgeclient": 7, "broker": 4}

# All that a device's root imports, lazily or not. Lightweight is a feature: a higher bound names here what for.
# 7,000 the house; 1,900 what people met: statistics in their domain, tables as boards write them, windows over rows,
# rows mixed, short spells, links that refuse and brokers with limits, whose aggregator is followed.
DEVICE_CODE_LINES: Final = 9000

LINES: Final = {
    str(path.relative_to(ROOT)): len(path.read_text().splitlines())
    for package in LOOSE_MODULES
    for path in (ROOT / package).rglob("*.py")
}


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_is_a_map(root: str) -> None:
    assert LINES[root] <= ROOT_LINES


def test_modules_are_short() -> None:
    assert {name for name, lines in LINES.items() if lines > MODULE_LINES} <= LARGER
    assert median(LINES.values()) <= MEDIAN_LINES


def test_a_device_carries_little_code() -> None:
    assert device_code_lines() <= DEVICE_CODE_LINES


@pytest.mark.parametrize("package", LOOSE_MODULES)
def test_stages_are_folders(package: str) -> None:
    loose = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    assert len(loose) <= LOOSE_MODULES[package], loose


@pytest.mark.parametrize(
    "name", sorted({*suite.WITH_NUMBA, *suite.WITHOUT_NUMBA, *suite.SHORT, *suite.ELSEWHERE, *suite.NEED_NUMBA})
)
def test_what_boards_test_is_there(name: str) -> None:
    file, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}" in (ROOT / "tests" / file).read_text()


def test_every_file_of_tests_has_a_name_of_its_own() -> None:
    """By which pytest imports it: of two with one name it collects neither, unless it is given one alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
