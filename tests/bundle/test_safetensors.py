"""The safetensors format: what goes in comes out, and no header can lie."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclient.bundle import safetensors
from edgeclient.wire.errors import WireError

ARRAYS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(-1.5, np.float32),
    "ünicode": np.full((1, 1, 2), np.float32(3e38)),
}
DATA = safetensors.encode(ARRAYS)


def forged(header: Any, body: bytes = bytes(4)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(shape: Any, *offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def test_round_trip() -> None:
    again = safetensors.decode(DATA)
    assert list(again) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert again[name].dtype == np.float32
        assert again[name].shape == array.shape
        assert np.array_equal(again[name], array)
    assert safetensors.encode(again) == DATA


def test_bytes_are_those_of_the_format() -> None:
    header = b'{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    assert len(header) % 8 == 0
    numbers = bytes.fromhex("0000803f000000c0")  # 1, -2
    made = safetensors.encode({"w": np.array([[1, -2]], np.float32)})
    assert made == len(header).to_bytes(8, "little") + header + numbers


def test_views_and_big_endian_arrays_are_written_as_values() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (matrix.T, matrix[:, ::2], matrix.astype(">f4")):
        assert np.array_equal(safetensors.decode(safetensors.encode({"w": array}))["w"], array)


def test_metadata_are_left_alone() -> None:
    found = safetensors.decode(forged({"__metadata__": {"made": "by hand"}, "w": entry([1], 0, 4)}))
    assert list(found) == ["w"]


def test_every_proper_prefix_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(WireError):
            safetensors.decode(DATA[:length])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(WireError, match=r"^trailing"):
        safetensors.decode(DATA + b"\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff" * 8, "too-large"),
        ((1000).to_bytes(8, "little") + b"{}", "truncated"),
        (forged(b"[]", b""), "json"),
        (forged(b"[" * 100_000, b""), "json"),
        (forged(b'{"w":' + b"9" * 5000 + b"}", b""), "json"),
        (forged(b'{"w":1,"w":1}', b""), "json"),
        (forged({"w": 5}), "json"),
        (forged({"w": {"dtype": "F32", "shape": [1]}}), "json"),
        (forged({"w": entry([1], 0)}), "json"),
        (forged({"w": entry([1], False, 4)}), "json"),
        (forged({"w": entry([1], 0.0, 4)}), "json"),
        (forged({"w": entry([True], 0, 4)}), "json"),
        (forged({"w": entry(1, 0, 4)}), "json"),
        (forged({"w": entry([1] * 17, 0, 4)}), "json"),
        (forged({"w": entry([-1, -1], 0, 4)}), "json"),
        (forged({"w": entry([0], 0, 0)}, b""), "json"),
        # numpy refuses such shapes by ValueError, though they hold no numbers.
        (forged({"w": entry([0, 2**62], 0, 0)}, b""), "json"),
        (forged({"w": entry([2], 0, 4, dtype="F16")}), "json"),
        (forged({"w": entry([1], 0, 4, dtype=[])}), "json"),
        (forged({"w": entry([2**62, 4], 0, 4)}), "range"),
        (forged({"w": entry([10**300] * 16, 0, 4)}), "range"),
        (forged({"w": entry([1], -4, 0)}), "range"),
        (forged({"w": entry([1], 4, 8)}, bytes(8)), "range"),
        (forged({"w": entry([2], 0, 4)}), "range"),
        (forged({"w": entry([2], 0, 8)}), "range"),
        (forged({"v": entry([1], 0, 4), "w": entry([1], 0, 4)}), "range"),
        (forged({"v": entry([2], 0, 8), "w": entry([1], 4, 8)}, bytes(8)), "range"),
        (forged({"v": entry([1], 0, 4), "w": entry([1], 8, 12)}, bytes(12)), "range"),
        (forged({"w": entry([1], 0, 4)}, bytes(8)), "trailing"),
        (forged({"w": entry([1], 0, 4)}, np.float32(np.nan).tobytes()), "value"),
        (forged({"w": entry([1], 0, 4)}, np.float32(-np.inf).tobytes()), "value"),
    ],
)
def test_forged_headers_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        safetensors.decode(data)
    assert caught.value.reason == reason


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_flipped_byte_gives_arrays_or_a_wire_error(at: int, mask: int) -> None:
    data = bytearray(DATA)
    data[at] ^= mask
    try:
        arrays = safetensors.decode(bytes(data))
    except WireError:
        return
    assert sum(array.size for array in arrays.values()) == sum(array.size for array in ARRAYS.values())


@given(st.binary(max_size=200))
def test_junk_gives_a_wire_error(junk: bytes) -> None:
    header = forged(junk, b"")
    for data in (junk, header):
        try:
            safetensors.decode(data)
        except WireError:
            continue
        assert data == header  # only an empty object, by chance
