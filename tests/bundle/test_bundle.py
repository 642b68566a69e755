"""Bundles: equal content gives equal bytes, and nothing hostile gets past the door."""

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.demo import data as demo_data
from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.archive import EVAL, PARAMETERS, TRAINING
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import MANIFEST, Buffer, Manifest, Optimiser, Tensor, decode_manifest
from edgeclient.wire.errors import WireError

LAYOUT = Layout((Parameter("w", (2, 3)), Parameter("b", (3,))))
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(3, -1, np.float32)}
SAID = Manifest(
    LAYOUT,
    (Tensor("x", "float32", (-1, 2)),),
    Tensor("labels", "int64", (-1,)),
    3,
    loss="cross_entropy",
    optimiser=Optimiser("adamw", weight_decay=0.5),
    licence="CC0-1.0",
    provenance="made by a test",
)
FILES = {PARAMETERS: safetensors.encode(WEIGHTS), TRAINING: b"graph", EVAL: b"graph", "native/checkpoint": b""}
DATA = archive.encode(SAID, FILES)
OPTIMISER = asdict(SAID.optimiser)
UNPACKED = dict(archive.decode(DATA).files)


def zipped(files: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return packed.getvalue()


def with_manifest(**changes: Any) -> bytes:
    manifest = {**json.loads(UNPACKED[MANIFEST]), **changes}
    return zipped({**UNPACKED, MANIFEST: json.dumps(manifest).encode()}.items())


def reason(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        archive.decode(data)
    return caught.value.reason


def test_round_trip() -> None:
    opened = archive.decode(DATA)
    assert opened.files == {**FILES, MANIFEST: opened.files[MANIFEST]}
    assert replace(opened.manifest, files={}) == SAID
    assert opened.manifest == decode_manifest(opened.files[MANIFEST])
    assert opened.parameters.dtype == np.float32
    assert opened.parameters.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    assert archive.encode(opened.manifest, {name: opened.files[name] for name in reversed(FILES)}) == DATA


def test_the_layout_cuts_and_joins() -> None:
    flat = LAYOUT.flatten(WEIGHTS)
    parts = LAYOUT.split(flat)
    assert {name: part.tolist() for name, part in parts.items()} == {n: a.tolist() for n, a in WEIGHTS.items()}
    assert (LAYOUT.size, LAYOUT.slices) == (9, {"w": slice(0, 6), "b": slice(6, 9)})
    assert LAYOUT.digest != Layout(LAYOUT.parameters[::-1]).digest
    for wrong in ({}, {**WEIGHTS, "more": WEIGHTS["b"]}, {**WEIGHTS, "w": WEIGHTS["w"].T}):
        with pytest.raises(WireError, match=r"^layout"):
            LAYOUT.flatten(wrong)


@pytest.mark.parametrize(
    "parameters",
    [
        (),
        (Parameter("w", (1,)), Parameter("w", (2,))),
        (Parameter("w", (2, 0)),),
        (Parameter("w", (-1, -1)),),
        (Parameter("w", (1 << 40, 2)),),
        (Parameter("v", (1 << 40,)), Parameter("w", (1,))),
    ],
)
def test_impossible_layouts(parameters: tuple[Parameter, ...]) -> None:
    with pytest.raises(WireError, match=r"^layout"):
        Layout(parameters)


def test_every_proper_prefix_is_refused() -> None:
    assert {reason(DATA[:length]) for length in range(len(DATA))} == {"magic"}


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_flipped_byte_changes_nothing_or_is_refused(at: int, mask: int) -> None:
    data = bytearray(DATA)
    data[at] ^= mask
    try:
        opened = archive.decode(bytes(data))
    except WireError:
        return
    assert opened.files == UNPACKED  # a time stamp, an attribute


@given(st.binary(max_size=300))
def test_junk(junk: bytes) -> None:
    reason(junk)
    reason(zipped([(MANIFEST, junk)]))


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/x", "a/../b", "./x", "a//b", "a/", "A", "a\\b", "c:x", ".hidden", "x" * 101, "ü", "a b", "x\n"),
        # A folder and a file of one name cannot both be unpacked.
        *("native", f"{MANIFEST}/x"),
    ],
)
def test_names_that_would_leave_the_folder(name: str) -> None:
    assert reason(zipped([*UNPACKED.items(), (name, b"")])) == "name"


def test_a_file_twice() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped([*UNPACKED.items(), ("native/checkpoint", b"")])
    assert reason(twice) == "range"


def test_too_many_files() -> None:
    assert reason(zipped((f"f{number}", b"") for number in range(archive.MAX_FILES + 1))) == "range"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("claimed", [None, 100])
def test_zip_bombs_are_not_unpacked(method: int, claimed: int | None) -> None:
    data = bytearray(zipped([(MANIFEST, bytes(1 << 24))], method))
    if claimed is not None:
        struct.pack_into("<I", data, data.rfind(b"PK\1\2") + 24, claimed)
    tracemalloc.start()
    try:
        assert reason(bytes(data)) == "range"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_entries_that_share_their_bytes() -> None:
    """Five names for the one stored megabyte: the sum of the sizes is over that of the bundle."""
    data = zipped([(MANIFEST, bytes(1 << 20))])
    begin = data.rfind(b"PK\1\2")
    end = data.rfind(b"PK\5\6")
    entry = data[begin:end]
    entries = b"".join(entry[:-1] + letter for letter in (b"n", b"m", b"l", b"k", b"j"))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 5, 5, len(entries), begin, 0)
    assert reason(data[:begin] + entries + tail) == "too-large"


@pytest.mark.parametrize("offset", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_offsets_beyond_every_file(offset: int) -> None:
    """Only a 64-bit extra field can hold them; seek raises OverflowError."""
    name = MANIFEST.encode()
    extra = struct.pack("<HHQQQ", 1, 24, 0, 0, offset)
    numbers = (45, 3, 45, 0, 0, 0, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *numbers) + name + extra
    assert reason(entry + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), 0, 0)) == "magic"


@pytest.mark.parametrize("name", FILES)
def test_content_that_is_not_the_manifests(name: str) -> None:
    assert reason(zipped({**UNPACKED, name: UNPACKED[name] + b"x"}.items())) == "digest"
    if UNPACKED[name]:
        changed = UNPACKED[name][:-1] + b"\x01"
        assert reason(zipped({**UNPACKED, name: changed}.items())) == "digest"


def test_missing_and_unnamed_files() -> None:
    assert reason(zipped([*UNPACKED.items(), ("more", b"")])) == "json"
    for name in UNPACKED:
        assert reason(zipped((n, content) for n, content in UNPACKED.items() if n != name)) == "json"
    for needed in (PARAMETERS, TRAINING, EVAL):
        without = {name: content for name, content in FILES.items() if name != needed}
        assert reason(archive.encode(SAID, without)) == "layout"


@pytest.mark.parametrize(
    "arrays",
    [{"w": WEIGHTS["w"]}, {**WEIGHTS, "c": WEIGHTS["b"]}, {**WEIGHTS, "w": WEIGHTS["w"].T}],
)
def test_parameters_that_do_not_fit_the_layout(arrays: dict[str, Any]) -> None:
    assert reason(archive.encode(SAID, {**FILES, PARAMETERS: safetensors.encode(arrays)})) == "layout"


def test_parameters_that_are_not_finite() -> None:
    arrays = {**WEIGHTS, "b": np.array([0, np.nan, 0], np.float32)}
    assert reason(archive.encode(SAID, {**FILES, PARAMETERS: safetensors.encode(arrays)})) == "value"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": 0}, "version"),
        ({"format": 2}, "version"),
        ({"format": True}, "version"),
        ({"format": None}, "version"),
        ({"layout": "00" * 32}, "layout"),
        ({"layout": None}, "json"),
        ({"parameters": []}, "layout"),
        ({"parameters": [["w", [2, 3]], ["w", [3]]]}, "layout"),
        ({"parameters": [["b", [3]], ["w", [2, 3]]]}, "layout"),
        ({"parameters": [["w", [1 << 41]]]}, "layout"),
        ({"parameters": [["w", [0]]]}, "range"),
        ({"parameters": [["w", [True]]]}, "json"),
        ({"parameters": [["w"]]}, "range"),
        ({"parameters": 5}, "json"),
        ({"inputs": []}, "json"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}] * 2}, "json"),
        ({"inputs": [{"name": "labels", "dtype": "float32", "shape": [-1]}]}, "json"),
        ({"inputs": [{"name": "x", "dtype": "float16", "shape": [-1]}]}, "range"),
        ({"inputs": [{"name": "x", "dtype": ["float32"], "shape": [-1]}]}, "json"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [5]}]}, "range"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [-1, -1]}]}, "range"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": {"0": -1}}]}, "json"),
        ({"labels": None}, "json"),
        ({"labels": {"name": "labels", "dtype": "float32", "shape": [-1]}}, "json"),
        ({"classes": 0}, "range"),
        ({"classes": True}, "json"),
        ({"loss": 3}, "json"),
        ({"ignored": "no"}, "json"),
        ({"ignored": 1 << 60}, "range"),
        ({"buffers": None}, "json"),
        ({"buffers": [{"name": "m", "shape": [2], "policy": "secret"}]}, "range"),
        ({"buffers": [{"name": "m", "shape": [0], "policy": "local"}]}, "range"),
        ({"buffers": [{"name": "m", "shape": [3], "policy": "shared"}]}, "layout"),
        ({"buffers": [{"name": "b", "shape": [3], "policy": "local"}]}, "layout"),
        ({"buffers": [{"name": "m", "shape": [3], "policy": "local"}]}, "layout"),
        ({"buffers": [{"name": "m", "shape": [3], "policy": "local"}] * 2}, "layout"),
        (
            {
                "buffers": [
                    {"name": each, "shape": shape, "policy": "shared"} for each, shape in [("w", [2, 3]), ("b", [3])]
                ]
            },
            "layout",
        ),
        ({"optimiser": "sgd"}, "json"),
        ({"optimiser": {}}, "json"),
        ({"optimiser": {"name": "sgd"}}, "json"),
        ({"optimiser": OPTIMISER | {"name": "lion"}}, "range"),
        ({"optimiser": OPTIMISER | {"nesterov": True}}, "json"),
        ({"optimiser": OPTIMISER | {"beta1": True}}, "json"),
        ({"optimiser": OPTIMISER | {"beta1": 1.5}}, "range"),
        ({"optimiser": OPTIMISER | {"decay_first": 1}}, "json"),
        ({"licence": "x" * 1001}, "range"),
        ({"files": []}, "json"),
        ({"files": {"a": {"size": -1, "sha256": ""}}}, "range"),
        ({"files": {"a": {"size": "1", "sha256": ""}}}, "json"),
        ({"files": {"a": {"size": 1.0, "sha256": ""}}}, "json"),
    ],
)
def test_forged_manifests(changes: dict[str, Any], why: str) -> None:
    assert reason(with_manifest(**changes)) == why


def test_numbers_that_json_makes_infinite() -> None:
    text = UNPACKED[MANIFEST].replace(b'"size": 0', b'"size": 1e999')
    assert text != UNPACKED[MANIFEST]
    with pytest.raises(WireError, match=r"^json"):
        decode_manifest(text)


def test_labels_without_classes_may_be_numbers() -> None:
    regression = replace(SAID, classes=None, labels=Tensor("y", "float32", (-1, 2)))
    assert archive.decode(archive.encode(regression, FILES)).manifest.labels == regression.labels


def test_running_statistics() -> None:
    statistics = {"mean": np.zeros(3, np.float32), "var": np.ones(3, np.float32)}
    files = {**FILES, PARAMETERS: safetensors.encode({**WEIGHTS, **statistics})}
    local = replace(SAID, buffers=tuple(Buffer(name, (3,), "local") for name in statistics))
    opened = archive.decode(archive.encode(local, files))
    assert opened.parameters.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    assert (opened.manifest.trained_size, opened.manifest.local_buffers) == (9, local.buffers)
    bounded = Parameter("mean", (3,), Bounds()), Parameter("var", (3,), Bounds(low=0.0))
    layout = Layout((*LAYOUT.parameters, *bounded))
    shared = replace(SAID, layout=layout, buffers=tuple(Buffer(name, (3,), "shared") for name in statistics))
    opened = archive.decode(archive.encode(shared, files))
    assert opened.parameters.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, 0, 0, 0, 1, 1, 1]
    assert (opened.manifest.trained_size, opened.manifest.local_buffers) == (9, ())
    assert opened.manifest.layout == layout
    assert layout.as_json()[2:] == [["mean", [3], [None, None]], ["var", [3], [0.0, None]]]
    assert layout.digest != Layout((*LAYOUT.parameters, *(Parameter(name, (3,)) for name in statistics))).digest
    assert layout.domain.places.tolist() == [9, 10, 11, 12, 13, 14]
    below = {**files, PARAMETERS: safetensors.encode({**WEIGHTS, **statistics, "var": np.full(3, -1, np.float32)})}
    with pytest.raises(WireError, match=r"value: .*var has -1\.0, outside 0\.0 to 2\^36"):
        archive.decode(archive.encode(shared, below))


def test_the_demo_bundle() -> None:
    data = demo_data.bundle_bytes()
    opened = archive.decode(data)
    assert archive.encode(opened.manifest, {n: c for n, c in opened.files.items() if n != MANIFEST}) == data
    assert opened.manifest.layout.as_json() == [
        ["hidden.weight", [600, 64]],
        ["hidden.bias", [64]],
        ["output.weight", [64, 7]],
        ["output.bias", [7]],
    ]
    assert opened.manifest.inputs == (Tensor("x", "float32", (-1, 600)),)
    assert opened.manifest.labels == Tensor("labels", "int64", (-1,))
