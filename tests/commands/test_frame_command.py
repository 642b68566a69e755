"""`edgeclient frame`: every byte has a name, and every bit is accounted for."""

import json
from pathlib import Path
from typing import Any

import fleet
import numpy as np
import pytest
from click.testing import CliRunner

from edgeclient.cli import cli
from edgeclient.compress.quantise import quantise
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import frame, reader
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_FRAME_BYTES

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
        assert made["positions"] == meaning["indices"]
        assert [value.hex() for value in made["values"]] == meaning["values"]
        carried = made["absolute"] and [made["absolute"][0], [value.hex() for value in made["absolute"][1]]]
        assert carried == meaning.get("absolute")
        meant = {field["name"]: field["meaning"] for field in made["fields"]}
        assert int(meant["epoch"], 16) == meaning["epoch"]
        assert int(meant["number"]) == meaning["number"]
        assert int(meant["base version"]) == meaning["base_version"]


def test_absolute_values_are_shown() -> None:
    lines = said("dump", str(GOLDEN / "v1-frame-absolute.hex")).splitlines()
    assert "5 absolute values from number 0 on: 0, 0, 0.300781, -2.5, 6.87195e+10" in lines
    assert any("absolute: values" in line for line in lines)


def test_a_frame_as_a_device_sends_it(tmp_path: Path, bundle_file: str) -> None:
    path = tmp_path / "frame"
    path.write_bytes(fleet.make_frame("har", "pi", epoch=7, sequence=3))
    text = said("dump", str(path), "--bundle", bundle_file)
    assert "checksum" in text
    assert "50 of " in text
    assert len(text.splitlines()) > 12
    (made,) = told("dump", str(path), "--bundle", bundle_file)["frames"]
    entries = [line.split()[1:] for line in text.splitlines() if line.split()[:1] == ["entry"]]
    assert [int(position) for position, _ in entries] == made["positions"][:12]
    assert [float(value) for _, value in entries] == pytest.approx(made["values"][:12])
    assert "and 38 more" in text


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


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_that_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "up.hex").write_bytes(content)
    with pytest.raises(WireError, match=r"up\.hex is empty: it holds no frame"):
        said("dump", str(tmp_path / "up.hex"))


def test_a_frame_of_another_layout_is_told_even_where_it_could_be_read(tmp_path: Path, bundle_file: str) -> None:
    path = tmp_path / "frame"
    made = bytearray(reader.unsealed(fleet.make_frame("har", "pi", epoch=7, sequence=3)))
    made[9] ^= 1  # the layout tag
    path.write_bytes(reader.sealed(bytes(made)))
    assert "entries in" in said("dump", str(path))
    with pytest.raises(WireError, match="layout: a frame of another layout"):
        said("dump", str(path), "--bundle", bundle_file)


def test_what_no_aggregator_would_read_is_not_shown(tmp_path: Path) -> None:
    n = MAX_FRAME_BYTES // 4
    update = SparseUpdate(n, np.arange(n), quantise(np.linspace(1, 2, n, dtype=np.float32), 16.0, "float32"))
    origin = frame.Origin("har", "pi", b"tag4", 1, 0, 1)
    (made,) = frame.encode_update(update, origin, 2 * MAX_FRAME_BYTES)
    (tmp_path / "large").write_bytes(made)
    for command in (["dump", str(tmp_path / "large")], ["stats", str(tmp_path)]):
        with pytest.raises(WireError, match="too-large"):
            said(*command)


@pytest.mark.parametrize("content", [b"", b"junk", b"EC", b"4543zz", b"\xff\xfe"])
def test_what_is_no_frame(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(WireError):
        said("stats", str(tmp_path))
