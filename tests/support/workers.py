"""How tests are shared out when several processes run them (pytest-xdist, -n)."""

from typing import Any, Final

import pytest
from native_session import FOLDER

# What takes longest begins first, so that no worker is left alone with it.
LONG: Final = (
    "tests/chaos/test_crashes.py",
    "tests/demo/test_demo.py",
    "tests/system/test_degrades.py",
    "tests/chaos/test_chaos_fleet.py",
    "tests/compile/test_zoo_training.py",
    "tests/system/test_rivals.py",
    "tests/house/test_readme.py",
    "tests/house/test_native_session.py",
    "tests/chaos/test_powerloss.py",
    "tests/commands/test_warmup.py",
    "tests/system/test_disasters.py",
    "tests/system/test_short_spells.py",
    "tests/system/test_service.py",
    "tests/house/test_footprint.py",
    "tests/house/test_release.py",
    "tests/commands/test_systemd.py",
    "tests/system/test_links.py",
    "tests/system/test_interruptions.py",
    "tests/page/test_browser.py",
    "tests/compress/test_select.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONG.index(file) if (file := _file(item.nodeid)) in LONG else len(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """A file stays with one worker, for its fixtures; what the other environment runs counts as one."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 (boards have no xdist)

    class Files(LoadScopeScheduling):  # type: ignore[misc]  # nothing is known of its type
        def _split_scope(self, nodeid: str) -> str:
            return _file(nodeid)

    return Files(config, log)


def _file(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return FOLDER if file.startswith(f"{FOLDER}/") else file
