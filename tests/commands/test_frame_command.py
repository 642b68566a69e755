"""`edgeclient frame`: every byte has a name, and every bit is accounted for."""

import json
from pathlib import Path
from typing import Any

import fleet
import pytest
from click.testing import CliRunner

from edgeclient.cli import cli
from edgeclient.wire.errors import WireError

GOLDEN = Path(__file__).parents[1] / "golden"
READABLE = [
    path
    for path in sorted(GOLDEN.glob("*frame*.hex"))
    if "tensors" not in json.loads(path.with_suffix(".json").read_text())[0]
]


def said(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["frame", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def told(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


@pytest.fixture
def bundle_file(tmp_path: Path) -> str:
    path = tmp_path / "task.bundle"
    path.write_bytes(fleet.BUNDLE)
    return str(path)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_every_byte_of_a_frame_has_a_name(path: Path) -> None:
    lines, meanings = path.read_text().split(), json.loads(path.with_suffix(".json").read_text())
    frames = told("dump", str(path))["frames"]
    for line, meaning, made in zip(lines, meanings, frames, strict=True):
        assert "".join(field["hex"] for field in made["fields"]) == line
        assert made["entries"] == len(meaning["indices"])
        meant = {field["name"]: field["meaning"] for field in made["fields"]}
        assert int(meant["epoch"], 16) == meaning["epoch"]
        assert int(meant["number"]) == meaning["number"]
        assert int(meant["base version"]) == meaning["base_version"]


def test_a_frame_as_a_device_sends_it(tmp_path: Path, bundle_file: str) -> None:
    path = tmp_path / "frame"
    path.write_bytes(fleet.make_frame("har", "pi", epoch=7, sequence=3))
    text = said("dump", str(path), "--bundle", bundle_file)
    assert "checksum" in text
    assert "50 of " in text
    assert len(text.splitlines()) > 12


@pytest.mark.parametrize("as_json", [False, True])
def test_the_bits_add_up(tmp_path: Path, *, as_json: bool) -> None:
    for path in READABLE:
        (tmp_path / path.name).write_text(path.read_text())
    if not as_json:
        assert "floor bits" in said("stats", str(tmp_path))
        return
    rows = told("stats", str(tmp_path))["rows"]
    assert {"step v1", "float32 v1", "int4 v1"} <= {row["values"] for row in rows}
    assert sum(row["frames"] for row in rows) == sum(len(path.read_text().split()) for path in READABLE)
    for row in rows:
        parts = [row[f"{name}_bits"] for name in ("header", "positions", "values", "context")]
        assert sum(parts) == pytest.approx(row["bits"])
        assert row["bits"] == pytest.approx(8 * row["bytes"] / row["entries"])
        assert 0 < row["floor_bits"] < row["bits"]


def test_frames_by_tensor_ask_for_their_bundle(tmp_path: Path, bundle_file: str) -> None:
    path = tmp_path / "a.hex"
    path.write_text((GOLDEN / "v1-frame-tensors.hex").read_text())
    with pytest.raises(WireError, match="--bundle"):
        said("dump", str(path))
    with pytest.raises(WireError, match="another layout"):
        said("dump", str(path), "--bundle", bundle_file)


@pytest.mark.parametrize("content", [b"", b"junk", b"EC", b"4543zz", b"\xff\xfe"])
def test_what_is_no_frame(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(WireError):
        said("stats", str(tmp_path))
