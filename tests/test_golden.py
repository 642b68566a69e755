"""Golden vectors of every published wire version: they decode to what they say, and encode to the same bytes.

Tests never write them: tools/make_golden.py does.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeclient.wire import announcement, frame, messages, status
from edgeclient.wire.limits import MAX_FRAME_BYTES

FOLDER = Path(__file__).parent / "golden"
ALL = ["frame-float", "frame-step", "frame-parts", "hello", "receipt", "announcement", "status"]


def load(name: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    path = FOLDER / f"v1-{name}.hex"
    data = [bytes.fromhex(line) for line in path.read_text().splitlines()]
    meanings = json.loads(path.with_suffix(".json").read_text())
    assert len(data) == len(meanings) > 0
    return data, meanings


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_no_vector_is_forgotten() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"v1-{n}.{e}" for n in ALL for e in ("hex", "json"))


@pytest.mark.parametrize("name", ["frame-float", "frame-step", "frame-parts"])
def test_frames(name: str) -> None:
    for data, meaning in zip(*load(name), strict=True):
        made = frame.decode(data)
        for field in ("address", "epoch", "sequence", "number", "part", "parts", "base_version", "num_examples"):
            assert getattr(made, field) == meaning[field], field
        assert made.layout_tag.hex() == meaning["layout_tag"]
        assert made.update.size == meaning["size"]
        assert made.update.indices.tolist() == meaning["indices"]
        assert [float(value).hex() for value in made.update.values.decoded()] == meaning["values"]
        origin = frame.Origin("har", "pi-7", made.layout_tag, made.number, made.base_version, made.num_examples)
        assert frame.address("har", "pi-7") == made.address
        again = frame._encode_part(made.update, origin, made.part, made.parts)
        assert frame.stamp(again, epoch=made.epoch, sequence=made.sequence) == data


def test_the_parts_make_one_update_that_splits_the_same_way_again() -> None:
    data, _ = load("frame-parts")
    made = [frame.decode(each) for each in data]
    assert [each.part for each in made] == list(range(len(data)))
    assert {each.parts for each in made} == {len(data)}
    assert len(data) > 2
    indices = np.concatenate([each.update.indices for each in made])
    assert (np.diff(indices) > 0).all()
    assert indices.size == 600


def test_the_step_vector_holds_every_level() -> None:
    (data,), _ = load("frame-step")
    assert np.unique(frame.decode(data).update.values.levels).tolist() == list(range(13))  # type: ignore[union-attr]
    assert len(data) < MAX_FRAME_BYTES


def test_hello() -> None:
    (data,), (meaning,) = load("hello")
    hello = messages.decode_hello(data)
    assert asdict(hello) == meaning
    assert messages.encode_hello(hello) == data


def test_receipt() -> None:
    (data,), (meaning,) = load("receipt")
    receipt = messages.decode_receipt(data)
    assert as_json(asdict(receipt)) == meaning
    assert messages.encode_receipt(receipt) == data


def test_announcement() -> None:
    (data,), (meaning,) = load("announcement")
    announced = announcement.decode(data)
    meaning["policy"] |= {"local_steps": 0, "clip_norm": 0.0}  # came later, with these defaults
    assert as_json(asdict(announced)) == meaning
    assert announcement.encode(announced) == data


def test_status() -> None:
    (data,), (meaning,) = load("status")
    health = status.decode(data)
    assert asdict(health) == meaning
    assert status.encode(health) == data
