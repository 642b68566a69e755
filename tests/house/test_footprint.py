"""What the bench `footprint` measures stays under its bars; what is timed is not held here, machines differ."""

from pathlib import Path

import pytest

from tools.bench import footprint
from tools.bench.code_lines import code_lines
from tools.bench.footprint import BARS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return footprint.build_wheel(tmp_path_factory.mktemp("dist"))


def test_the_wheel(wheel: Path) -> None:
    assert wheel.stat().st_size / 1000 <= BARS["wheel_kb"]


def test_the_device_without_extras(wheel: Path, tmp_path: Path) -> None:
    python = footprint.install(tmp_path / "core", str(wheel))
    assert footprint.idle_rss_mib(python, tmp_path / "device", trained=False) <= BARS["idle_rss_mib"]
    bytecode = footprint.size(footprint.site(python), "*.pyc")
    assert len(list(footprint.site(python).glob("edgeclient/**/*.pyc"))) > 50  # what ran is what was installed
    board = footprint.install_for_board(tmp_path / "board", wheel)
    assert "aarch64" in (next(board.glob("numpy-*.dist-info")) / "WHEEL").read_text()
    assert footprint.size(board) + bytecode <= 1e6 * BARS["board_mb"]


@pytest.mark.timeout(300)
def test_the_device_that_trained(wheel: Path, tmp_path: Path) -> None:
    python = footprint.install(tmp_path / "onnx", f"{wheel}[onnx]")
    rss_mib = footprint.idle_rss_mib(python, tmp_path / "device", trained=True)
    assert BARS["idle_rss_mib"] < rss_mib <= BARS["idle_rss_onnx_mib"]  # less would be no session at all


def test_lines_are_counted() -> None:
    source = '"""Two\n\nlines."""\n\nx = (\n    1,  # one\n)\n\n\ndef f():\n    """Text."""\n    # why\n    return 2\n'
    assert code_lines(source) == 5
