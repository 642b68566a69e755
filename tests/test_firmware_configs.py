from importlib.resources import files
from pathlib import Path

import pytest

from edgeclient.settings import Device, load

BOARDS = sorted(Path(str(files("firmware_configs"))).glob("boards/*.toml"))


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_board_loads(path: Path) -> None:
    settings = load(path, Device)
    assert settings.task == "my-task"


def test_there_are_boards() -> None:
    assert {path.stem for path in BOARDS} >= {"raspberry-pi-4", "x86-gateway"}
