"""Golden vectors of every kind of message: they decode to what they say, and encode to the same bytes.

Tests never write them: tools/make_golden.py does.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import MANIFEST
from edgeclient.compress.accel import Accel
from edgeclient.wire import announcement, frame, messages, status
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import absolute, context, positions, write_values
from edgeclient.wire.frame.body import encode_body
from edgeclient.wire.frame.header import ABSOLUTE, PART, TENSORS, Header, encode_header, read_header
from edgeclient.wire.frame.positions import Segment, Tensors
from edgeclient.wire.limits import FRAME_VERSION, MAX_FRAME_BYTES, WIRE_VERSION
from edgeclient.wire.reader import Field, Reader, sealed, unsealed
from tools import golden_edges

FOLDER = Path(__file__).parents[1] / "golden"
FRAMES = [
    "absolute", "absolute-parts",
    "activity", "bfloat16", "context", "context-bfloat16", "context-float32", "context-int4", "context-int8",
    "context-sign", "dense", "float", "int4", "int8", "mixed-float32", "mixed-row", "mixed-sign", "mixed-step",
    "part-tensors", "parts", "range-dense", "range-runs", "row", "runs", "runs-parts", "sign", "step", "tensors",
]  # fmt: skip
OTHERS = [
    "hello",
    "withdraw",
    "receipt",
    "announcement",
    "status",
    "bundle",
    "context",
    "context-long",
    "odd",
    "refused",
]
ALL = [f"v{FRAME_VERSION}-frame-{name}" for name in FRAMES] + [f"v{WIRE_VERSION}-{name}" for name in OTHERS]


def load(name: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    path = FOLDER / f"{name}.hex"
    data = [bytes.fromhex(line) for line in path.read_text().splitlines()]
    meanings = json.loads(path.with_suffix(".json").read_text())
    assert len(data) == len(meanings) > 0
    return data, meanings


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=bytes.hex))


def test_no_vector_is_forgotten() -> None:
    assert sorted(path.name for path in FOLDER.glob("v*")) == sorted(f"{n}.{e}" for n in ALL for e in ("hex", "json"))


@pytest.mark.parametrize("accel", ["numpy", "numba"])
@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str, accel: Accel) -> None:
    for data, meaning in zip(*load(f"v1-frame-{name}"), strict=True):
        tensors = meaning.get("tensors")
        made = frame.decode(data, tensors, accel=accel)
        for field in ("address", "epoch", "sequence", "number", "part", "parts", "base_version", "num_examples"):
            assert getattr(made, field) == meaning[field], field
        assert made.layout_tag.hex() == meaning["layout_tag"]
        assert made.update.size == meaning["size"]
        assert made.update.indices.tolist() == meaning["indices"]
        assert [float(value).hex() for value in made.update.values.decoded()] == meaning["values"]
        carried = made.absolute and [made.absolute.first, [float(value).hex() for value in made.absolute.values]]
        assert carried == meaning.get("absolute")
        origin = frame.Origin("har", "pi-7", made.layout_tag, made.number, made.base_version, made.num_examples)
        assert frame.address("har", "pi-7") == made.address
        again = encoded(made, origin, tensors, accel)
        assert frame.stamp(again, epoch=made.epoch, sequence=made.sequence) == data


def encoded(made: frame.Frame, origin: frame.Origin, tensors: Tensors | None, accel: Accel) -> bytes:
    """One part, written again."""
    first, last = int(made.update.indices[0]), int(made.update.indices[-1])
    first, span = (first, last - first + 1) if made.parts > 1 else (0, made.update.size)
    body = encode_body(made.update, first, span, tensors, accel)
    part = (made.part, made.parts, first, span) if made.parts > 1 else None
    flags = body.flags | (ABSOLUTE if made.absolute else 0)
    head = encode_header(Header.of(origin, made.update.size, flags, part=part))
    return sealed(head + absolute.encode(made.absolute) + body.content)


def test_the_vectors_use_what_they_are_named_after() -> None:
    flags = {name: {data[4] for data in load(f"v1-frame-{name}")[0]} for name in FRAMES}
    by_tensor = {name for name, each in flags.items() if all(one & TENSORS for one in each)}
    assert by_tensor == {
        "activity", "context", "context-bfloat16", "context-float32", "context-int4", "context-int8", "context-sign",
        "dense", "mixed-float32", "mixed-row", "mixed-sign", "mixed-step", "part-tensors", "runs", "tensors",
    }  # fmt: skip
    assert {name for name, each in flags.items() if min(each) & PART} == {
        "parts", "part-tensors", "runs-parts", "absolute-parts",
    }  # fmt: skip
    assert [bool(data[4] & ABSOLUTE) for data in load("v1-frame-absolute-parts")[0]] == [True, False]
    assert flags["absolute"] == {ABSOLUTE | 1 << 4}
    assert {one >> 4 for each in flags.values() for one in each} == set(range(6))
    rice, mixing, dense = positions.RICE, positions.CONTEXT, positions.DENSE
    assert {name: [each.mode for each in segments(name)] for name in by_tensor} == {
        "activity": [mixing, mixing],
        "context": [mixing],
        **{f"context-{mode}": [mixing] for mode in ("bfloat16", "float32", "int4", "int8", "sign")},
        "dense": [dense, dense],
        **{f"mixed-{mode}": [mixing, rice, dense, mixing] for mode in ("float32", "sign", "step")},
        "mixed-row": [mixing, rice],
        "part-tensors": [dense, mixing],
        "runs": [mixing, mixing],
        "tensors": [rice, rice],
    }
    assert [each.mode for each in segments("range-dense")] == [dense]
    for name, form in [
        ("row", write_values.ROW),
        ("mixed-row", write_values.ROW),
        ("runs", write_values.RUNS),
        ("range-runs", 1),
        ("step", 0),
    ]:
        trace: list[Field] = []
        (data,), (meaning,) = load(f"v1-frame-{name}")
        frame.decode(data, meaning.get("tensors"), trace=trace)
        (grid,) = [field for field in trace if field.name == "values: grid"]
        assert data[grid.end - 1] == form
    assert any(segment.code.thirds for segment in segments("tensors"))
    assert [segment.range.turned for segment in segments("activity")] == [True, False]


def segments(name: str) -> list[Segment]:
    """Of the last frame of a vector."""
    data, meanings = load(f"v1-frame-{name}")
    reader = Reader(unsealed(data[-1]))
    header = read_header(reader)
    tensors = meanings[-1].get("tensors")
    ranges = [positions.Range(header.first, header.span)]
    if tensors:
        ranges = positions.touched(header.first, header.span, tensors)
    return positions.read_head(reader, ranges, 10**6)


@pytest.mark.parametrize(("name", "entries"), [("parts", 600), ("part-tensors", 169)])
def test_the_parts_make_one_update_that_splits_the_same_way_again(name: str, entries: int) -> None:
    data, meanings = load(f"v1-frame-{name}")
    made = [frame.decode(each, meaning.get("tensors")) for each, meaning in zip(data, meanings, strict=True)]
    assert [each.part for each in made] == list(range(len(data)))
    assert {each.parts for each in made} == {len(data)}
    assert len(data) > 2
    indices = np.concatenate([each.update.indices for each in made])
    assert (np.diff(indices) > 0).all()
    assert indices.size == entries


def test_the_step_vector_holds_every_level() -> None:
    (data,), _ = load("v1-frame-step")
    assert np.unique(frame.decode(data).update.values.levels).tolist() == list(range(13))  # type: ignore[union-attr]
    assert len(data) < MAX_FRAME_BYTES


def test_withdraw() -> None:
    (data,), (meaning,) = load("v1-withdraw")
    withdraw = messages.decode_withdraw(data)
    frames = [[s, d.hex()] for s, d in withdraw.frames]
    assert {"epoch": withdraw.epoch, "frames": frames, "ledger": withdraw.ledger} == meaning
    assert messages.encode_withdraw(withdraw) == data


def test_hello() -> None:
    (data,), (meaning,) = load("v1-hello")
    hello = messages.decode_hello(data)
    assert asdict(hello) == meaning
    assert messages.encode_hello(hello) == data


def test_receipt() -> None:
    (data,), (meaning,) = load("v1-receipt")
    receipt = messages.decode_receipt(data)
    assert as_json(asdict(receipt)) == meaning
    assert messages.encode_receipt(receipt) == data


def test_announcement() -> None:
    (data,), (meaning,) = load("v1-announcement")
    announced = announcement.decode(data)
    assert as_json(asdict(announced)) == meaning
    assert announcement.encode(announced) == data


def test_status() -> None:
    (data,), (meaning,) = load("v1-status")
    health = status.decode(data)
    assert health == status.Status(**meaning)
    assert status.encode(health) == data


def test_bundle() -> None:
    (data,), (meaning,) = load("v1-bundle")
    opened = archive.decode(data)
    described = {**as_json(asdict(opened.manifest)), "layout": opened.manifest.layout.as_json()}
    assert described == meaning["manifest"]
    assert opened.manifest.layout.digest == meaning["layout"]
    assert opened.parameters.tolist() == meaning["parameters"]
    assert {name: content.hex() for name, content in opened.files.items()} == meaning["files"]
    files = {name: content for name, content in opened.files.items() if name != MANIFEST}
    assert archive.encode(opened.manifest, files) == data


@pytest.mark.parametrize("accel", ["numpy", "numba"])
@pytest.mark.parametrize("name", ["context", "context-long"])
def test_bare_streams(name: str, accel: Accel) -> None:
    for data, meaning in zip(*load(f"v1-{name}"), strict=True):
        shape = meaning["rows"], meaning["columns"]
        activity = meaning["activity"] and tuple(np.array(each, np.uint8) for each in meaning["activity"])
        indices, negative, levels = context.decode(data, *shape, len(meaning["indices"]), activity, accel=accel)
        assert (indices.tolist(), negative.tolist()) == (meaning["indices"], meaning["negative"])
        assert levels.tolist() == meaning["levels"]
        assert context.encode(*shape, indices, negative, levels, activity, accel=accel) == data


def test_what_is_taken_though_no_writer_makes_it() -> None:
    for data, meaning in zip(*load("v1-odd"), strict=True):
        assert golden_edges.meaning(meaning["of"], data, meaning["tensors"]) == meaning["says"], meaning["about"]


def test_what_is_refused() -> None:
    for data, meaning in zip(*load("v1-refused"), strict=True):
        with pytest.raises(WireError) as caught:
            golden_edges.meaning(meaning["of"], data, meaning["tensors"])
        assert caught.value.reason == meaning["reason"], meaning["about"]
