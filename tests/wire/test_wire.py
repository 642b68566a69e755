"""Wire formats: decode ∘ encode = id, and from any bytes comes a value or a WireError."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.quantise import quantise
from edgeclient.compress.update import FloatValues, SparseUpdate, StepValues
from edgeclient.wire import announcement, frame, messages, status, topics
from edgeclient.wire.announcement import Announcement, Blob, Policy
from edgeclient.wire.errors import REASONS, WireError
from edgeclient.wire.fields import of as keys_of
from edgeclient.wire.frame import Origin, header
from edgeclient.wire.limits import FRAME_VERSION, MAX_FRAME_BYTES, MAX_RECEIPT_LIST, MAX_SIZE, MAX_STATUS_BYTES
from edgeclient.wire.messages import Hello, Receipt, Refusal, Withdraw
from edgeclient.wire.reader import Reader, sealed, unsealed, varint
from edgeclient.wire.status import Status

ORIGIN = Origin("har", "pi-7", b"tag4", 3, 4, 320)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
EXTREME = [3.4e38, -3.4028235e38, 5e-41, -1e-45, 1.0, -2.0, 2.0**-110, 2.0**-111, 1e-30, 65504.0]
NON_ZERO = st.sampled_from(EXTREME) | st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool)


@st.composite
def updates(draw: st.DrawFn) -> SparseUpdate:
    """Random coordinates of a vector of up to 10^6 numbers, quantised as the device does it."""
    size = draw(st.integers(1, 1_000_000))
    k = draw(st.integers(1, min(size, 300)))
    rng = np.random.default_rng(draw(U32))
    indices = np.sort(rng.choice(size, k, replace=False)).astype(np.int64)
    if draw(st.booleans()):
        numbers = np.array(draw(st.lists(NON_ZERO, min_size=k, max_size=k)), np.float32)
    else:
        numbers = (rng.standard_normal(k) * 10.0 ** draw(st.integers(-44, 37))).astype(np.float32)
        numbers[numbers == 0] = np.float32(1e-45)
    limit = draw(st.sampled_from([float("inf"), 16.0, 1.0]))
    return SparseUpdate(size, indices, quantise(numbers, limit))


def small_frame(*, floats: bool = False) -> bytes:
    delta = np.zeros(400, np.float32)
    delta[3::7] = np.linspace(-4, 9, delta[3::7].size, dtype=np.float32)
    if floats:
        delta[10] = 1e-40
    k = 58 if floats else 20
    update, _ = compress_with_feedback(delta, np.zeros(400, np.float32), k=k)
    assert isinstance(update.values, FloatValues if floats else StepValues)
    (made,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    return frame.stamp(made, epoch=2**64 - 2, sequence=9)


RECEIPT = Receipt(7, 4, 20, (9, b"12345678"), (6, 7, 11), ((2, Refusal.STALE), (9, Refusal.CONFLICT)))
ANNOUNCED = Announcement(
    "har", 3, "0123456789abcdef", "1e" * 8, 2, Blob("ab" * 32, 400, 65536), Blob("cd" * 32, 999, 65536), "ef" * 32, 100
)
HEALTH = Status("online", "s-1", note="training", version=3, rounds=2)
MESSAGES: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "frame-step": (small_frame(), frame.decode),
    "frame-float": (small_frame(floats=True), frame.decode),
    "hello": (messages.encode_hello(Hello(7, 20, 4)), messages.decode_hello),
    "withdraw": (messages.encode_withdraw(Withdraw(7, ((3, bytes(8)), (4, bytes(8))))), messages.decode_withdraw),
    "receipt": (messages.encode_receipt(RECEIPT), messages.decode_receipt),
    "announcement": (announcement.encode(ANNOUNCED), announcement.decode),
    "status": (status.encode(HEALTH), status.decode),
}
each_message = pytest.mark.parametrize("name", MESSAGES)
SEALED = ["frame-step", "frame-float", "hello", "withdraw", "receipt"]
each_sealed = pytest.mark.parametrize("name", SEALED)


def decoded_or_refused(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """The value, or None for a WireError with a known reason; anything else fails the test."""
    try:
        return decode(data)
    except WireError as error:
        reason = error.reason
    assert reason in REASONS
    return None


def assert_sound(made: frame.Frame) -> None:
    """What every decoded frame promises to those who use it."""
    update = made.update
    k = update.indices.size
    assert 1 <= update.size <= MAX_SIZE
    assert 1 <= k <= update.size
    assert update.indices.dtype == np.int64
    assert update.indices[0] >= 0
    assert update.indices[-1] < update.size
    assert (np.diff(update.indices) > 0).all()
    decoded = update.values.decoded()
    assert decoded.shape == (k,)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert decoded.all()
    assert made.part < made.parts
    assert made.num_examples >= 1


# decode ∘ encode = id


@settings(max_examples=120, deadline=None)
@given(updates(), st.integers(0, 2**32 - 1), U64, U32, U32, st.integers(1, 2**32 - 1))
def test_frames_round_trip(
    update: SparseUpdate, number: int, epoch: int, sequence: int, base: int, examples: int
) -> None:
    origin = Origin("har", "pi-7", b"\x00\xff34", number, base, examples)
    (body,) = frame.encode_update(update, origin, MAX_FRAME_BYTES)
    data = frame.stamp(body, epoch=epoch, sequence=sequence)
    made = frame.decode(data)
    assert_sound(made)
    assert made.wire_version == FRAME_VERSION
    assert made.address == frame.address("har", "pi-7")
    assert made.layout_tag == b"\x00\xff34"
    assert (made.epoch, made.sequence, made.number) == (epoch, sequence, number)
    assert (made.part, made.parts, made.base_version, made.num_examples) == (0, 1, base, examples)
    assert made.update.size == update.size
    assert np.array_equal(made.update.indices, update.indices)
    assert type(made.update.values) is type(update.values)
    assert np.array_equal(bits(made.update.values.decoded()), bits(update.values.decoded()))
    (again,) = frame.encode_update(made.update, origin, MAX_FRAME_BYTES)
    assert frame.stamp(again, epoch=epoch, sequence=sequence) == data


def bits(values: F32) -> npt.NDArray[np.uint32]:
    return values.view(np.uint32)


@settings(max_examples=40, deadline=None)
@given(updates(), st.integers(150, 2000))
def test_split_updates_are_the_update(update: SparseUpdate, max_bytes: int) -> None:
    frames = frame.encode_update(update, ORIGIN, max_bytes)
    assert max(map(len, frames)) <= max_bytes
    made = [frame.decode(data, max_bytes=max_bytes) for data in frames]
    assert [each.part for each in made] == list(range(len(made)))
    assert {each.parts for each in made} == {len(made)}
    assert np.array_equal(np.concatenate([each.update.indices for each in made]), update.indices)
    values = np.concatenate([each.update.values.decoded() for each in made])
    assert np.array_equal(bits(values), bits(update.values.decoded()))


def test_a_million_numbers_fit_the_limit_in_several_frames() -> None:
    rng = np.random.default_rng(1)
    update, _ = compress_with_feedback(
        rng.standard_normal(1_000_000).astype(np.float32), np.zeros(1_000_000, np.float32), k=200_000, accel="numpy"
    )
    frames = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    assert len(frames) > 1
    assert min(map(len, frames[:-1])) > 0.85 * MAX_FRAME_BYTES
    assert max(map(len, frames)) <= MAX_FRAME_BYTES
    indices = np.concatenate([frame.decode(each).update.indices for each in frames])
    assert np.array_equal(indices, update.indices)


def test_an_update_without_entries_makes_no_frame() -> None:
    update, _ = compress_with_feedback(np.ones(4, np.float32), np.zeros(4, np.float32), k=0)
    assert frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES) == []


def test_frames_too_small_for_an_entry_are_refused() -> None:
    update, _ = compress_with_feedback(np.ones(4, np.float32), np.zeros(4, np.float32), k=2)
    with pytest.raises(WireError, match="too-large"):
        frame.encode_update(update, ORIGIN, 40)


def test_many_examples_are_capped_not_refused() -> None:
    update, _ = compress_with_feedback(np.ones(1, np.float32), np.zeros(1, np.float32), k=1)
    (made,) = frame.encode_update(update, Origin("t", "d", b"tag4", 0, 0, 2**40), MAX_FRAME_BYTES)
    assert frame.decode(made).num_examples == 2**32 - 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_varints(value: int, limit: int) -> None:
    try:
        assert Reader(varint(value)).varint(limit=limit) == value <= limit
    except WireError:
        assert value > limit


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 9 + b"\x01", b"\x80", b""])
def test_crooked_varints_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Reader(data).varint(limit=2**64)


@settings(max_examples=100, deadline=None)
@given(U64, U32, U32)
def test_hello_round_trips(epoch: int, first: int, second: int) -> None:
    hello = Hello(epoch, max(first, second), min(first, second))
    assert messages.decode_hello(messages.encode_hello(hello)) == hello
    if first != second:
        with pytest.raises(WireError, match="range"):
            messages.decode_hello(messages.encode_hello(Hello(epoch, min(first, second), max(first, second))))


@settings(max_examples=100, deadline=None)
@given(st.data(), U64, st.integers(1, 2**32 - 1), st.booleans())
def test_receipt_round_trips(data: st.DataObject, epoch: int, seen: int, conflict: bool) -> None:
    below = st.integers(0, seen - 1)
    receipt = Receipt(
        epoch,
        data.draw(st.integers(0, seen)),
        seen,
        (seen - 1, bytes(8)) if conflict and seen else None,
        tuple(data.draw(st.lists(below, max_size=20))),
        tuple(data.draw(st.lists(st.tuples(below, st.sampled_from(Refusal)), max_size=20))),
    )
    assert messages.decode_receipt(messages.encode_receipt(receipt)) == receipt


def test_a_long_receipt_never_lets_a_refusal_pass_for_applied() -> None:
    refused = tuple((2 * i, Refusal.STALE) for i in range(3000))
    receipt = Receipt(1, 9000, 9000, refused=refused, applied=tuple(range(9000, 9000)))
    told = messages.decode_receipt(messages.encode_receipt(receipt))
    assert len(told.refused) == MAX_RECEIPT_LIST
    listed = dict(told.refused)
    assert all(sequence in listed for sequence, _ in refused if sequence < told.watermark)
    assert told.watermark == refused[MAX_RECEIPT_LIST][0]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, MAX_SIZE), st.integers(0, 30), U32)
def test_announcement_round_trips(data: st.DataObject, size: int, exponent: int, version: int) -> None:
    policy = Policy(
        data.draw(st.floats(1e-9, 1.0)),
        data.draw(st.floats(0, 1e6)),
        data.draw(st.integers(1, 1000)),
        data.draw(st.integers(1, 1 << 20)),
        data.draw(U32),
        data.draw(st.integers(0, 1 << 30)),
        data.draw(st.floats(0, 1e6)),
    )
    bundle = Blob("cd" * 32, data.draw(st.integers(1, 1 << 42)), 1)
    announced = Announcement(
        task="t-1",
        version=version,
        service="00" * 8,
        ledger="1e" * 8,
        term=data.draw(st.integers(1, 2**32 - 1)),
        parameters=Blob("ab" * 32, 4 * size, 65536),
        bundle=bundle,
        layout="ef" * 32,
        size=size,
        scale_bits=30 - exponent,
        value_limit=2.0**exponent,
        wire=(1, 2),
        policy=policy,
    )
    assert announcement.decode(announcement.encode(announced)) == announced
    assert announcement.decode(announcement.encode(announced) + b"\nsignature") == announced


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_status_round_trips(data: st.DataObject) -> None:
    values = dict[str, Any]()
    for name, each in keys_of(Status).items():
        drawn: st.SearchStrategy[Any] = st.text(max_size=200)
        if each.rule.low is not None and each.rule.high is not None:
            low, high = each.rule.low, each.rule.high
            drawn = st.floats(low, high) if each.rule.kind == "number" else st.integers(int(low), int(high))
        values[name] = data.draw(drawn | st.none() if each.default is None else drawn)
    health = Status(**(values | {"state": data.draw(st.sampled_from(["online", "offline"]))}))
    assert status.decode(status.encode(health)) == health
    assert len(status.encode(health)) <= MAX_STATUS_BYTES


@pytest.mark.parametrize(
    ("key", "value"),
    [("queued", -1), ("sent", 10**6 + 1), ("up_bytes", 2**53 + 1), ("version", -2), ("battery_percent", 101),
     ("temperature_c", 1e300), ("temperature_c", -273.2), ("residual_norm", -1e-9)],
)  # fmt: skip
def test_a_status_of_what_cannot_be_is_refused(key: str, value: float) -> None:
    told = json.dumps({"state": "online", "session": "s", key: value}).encode()
    with pytest.raises(WireError, match=key) as caught:
        status.decode(told)
    assert caught.value.reason == "range"


# Bytes that are not what they should be


@each_message
def test_every_proper_prefix_is_refused(name: str) -> None:
    data, decode = MESSAGES[name]
    decode(data)
    for end in range(len(data)):
        with pytest.raises(WireError):
            decode(data[:end])


@each_message
def test_trailing_bytes_are_refused(name: str) -> None:
    data, decode = MESSAGES[name]
    with pytest.raises(WireError):
        decode(data + b"\x00")
    if name in SEALED:
        with pytest.raises(WireError):
            decode(sealed(unsealed(data) + b"\x00"))


@each_sealed
def test_every_flipped_bit_is_refused(name: str) -> None:
    data, decode = MESSAGES[name]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode(bytes(flipped))


@pytest.mark.parametrize("name", ["announcement", "status"])
def test_flipped_bits_of_json_give_a_value_or_a_wire_error(name: str) -> None:
    data, decode = MESSAGES[name]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        decoded_or_refused(decode, bytes(flipped))


@each_message
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_junk_never_raises_anything_else(name: str, junk: bytes) -> None:
    _, decode = MESSAGES[name]
    decoded_or_refused(decode, junk)
    decoded_or_refused(decode, sealed(b"EC\x01" + junk))
    decoded_or_refused(decode, sealed(b"EC\x01\x01" + junk))


@each_sealed
def test_every_byte_forged_with_a_right_checksum(name: str) -> None:
    """Well-checksummed lies: one byte forged, the checksum recomputed."""
    data, decode = MESSAGES[name]
    body = unsealed(data)
    for at in range(len(body)):
        for byte in {0, 1, 0x7F, 0x80, 0xFF, body[at] ^ 1, (body[at] + 1) % 256, (body[at] - 1) % 256}:
            forged = sealed(body[:at] + bytes([byte]) + body[at + 1 :])
            made = decoded_or_refused(decode, forged)
            if isinstance(made, frame.Frame):
                assert_sound(made)


FIXED = ["magic", "version", "kind", "flags", "address", "layout", "epoch", "sequence"]
VARINTS = ["number", "base", "examples", "size", "part", "parts", "first", "span"]


def forged_frame(data: bytes, **fields: Any) -> bytes:
    """Some fields of the header replaced; those of a part only stand there with their flag, or if they are given."""
    read = Reader(unsealed(data))
    values: dict[str, Any] = dict(zip(FIXED, read.unpack(header.HEADER.format), strict=True))
    values |= {name: read.varint(limit=2**63) for name in VARINTS[: 8 if values["flags"] & header.PART else 4]}
    rest = read.take(read.left)
    values |= fields
    told = [varint(values[name]) for name in VARINTS if name in values]
    return sealed(header.HEADER.pack(*(values[name] for name in FIXED)) + b"".join(told) + rest)


def part_frame(*, floats: bool = False) -> bytes:
    """The first of several frames of an update."""
    update = frame.decode(small_frame(floats=floats)).update
    return frame.encode_update(update, ORIGIN, 150 if floats else 58)[0]


@pytest.mark.parametrize("floats", [False, True])
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_forged_header_fields(floats: bool, data: st.DataObject) -> None:
    widths = dict(zip(FIXED, (0, 8, 8, 8, 32, 0, 64, 32), strict=True)) | dict.fromkeys(VARINTS, 63)
    part = data.draw(st.booleans())
    numeric = [name for name in FIXED + VARINTS[: 8 if part else 4] if widths[name]]
    fields = {}
    for name in data.draw(st.lists(st.sampled_from(numeric), min_size=1, max_size=3, unique=True)):
        top = 2 ** widths[name] - 1
        edge = st.sampled_from([0, 1, 2, 19, 20, 21, 57, 58, 59, 399, 400, 401, top // 2, top - 1, top])
        fields[name] = data.draw(edge.map(partial(min, top)) | st.integers(0, top))
    whole = part_frame(floats=floats) if part else small_frame(floats=floats)
    made = decoded_or_refused(frame.decode, forged_frame(whole, **fields))
    if made is not None:
        assert_sound(made)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"magic": b"ec"}, "magic"),
        ({"version": FRAME_VERSION + 1}, "version"),
        ({"version": 0}, "version"),
        ({"kind": 2}, "kind"),
        ({"kind": 3}, "kind"),
        ({"flags": 1}, "flags"),
        ({"flags": header.ABSOLUTE}, "truncated"),
        ({"flags": header.ABSOLUTE | header.SIGNED}, "flags"),
        ({"flags": 6 << 4}, "kind"),
        ({"flags": 15 << 4}, "kind"),
        ({"flags": header.TENSORS}, "layout"),
        ({"size": 0}, "range"),
        ({"size": MAX_SIZE + 1}, "range"),
        ({"size": 130}, "range"),
        ({"size": 10}, "range"),
        ({"number": 2**32}, "range"),
        ({"base": 2**32}, "range"),
        ({"examples": 2**32}, "range"),
        ({"examples": 0}, "range"),
    ],
)
def test_forged_headers_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        frame.decode(forged_frame(small_frame(), **fields))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "fields",
    [
        {"part": 2**16},
        {"part": 40},
        {"parts": 0},
        {"parts": 1},
        {"parts": 2**16},
        {"first": 400},
        {"first": 2**62},
        {"span": 0},
        {"span": 401},
        {"span": 2},
        {"size": 20},
    ],
)
def test_forged_parts_are_refused(fields: dict[str, Any]) -> None:
    assert frame.decode(part_frame()).parts > 1
    with pytest.raises(WireError, match="range"):
        frame.decode(forged_frame(part_frame(), **fields))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 0.0, -0.0])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    update = SparseUpdate(9, np.array([1, 2]), FloatValues(np.array([1.0, bad], np.float32)))
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    with pytest.raises(WireError, match="value"):
        frame.decode(data)


def one_entry(step: int, centroid: int) -> bytes:
    """A frame with an entry at coordinate 3 of 10, on a step grid."""
    begin = header.HEADER.pack(b"EC", FRAME_VERSION, 1, 1 << 4, 0, b"tag4", 0, 0)
    grid = struct.pack("<H", step) + b"\x00\x00"
    rest = b"\x02\x01" + grid + b"\x01\x03\x00" + b"\x00" + struct.pack("<H", centroid)
    return sealed(begin + varint(0) + varint(0) + varint(1) + varint(10) + rest)


@pytest.mark.parametrize("step", [0x0000, 0x8000, 0x7F80, 0x7FC0, 0xFF80, 0xBF80, 0x0480, 0x0001])
def test_steps_that_cannot_be_are_refused(step: int) -> None:
    with pytest.raises(WireError, match="value"):
        frame.decode(one_entry(step, 0x3F80))
    assert frame.decode(one_entry(0x3F80, 0x3F80)).update.values.decoded().tolist() == [1.0]


@pytest.mark.parametrize("centroid", [0x3F7F, 0xBF80, 0x7F80, 0x7FC0, 0x0000])
def test_centroids_that_cannot_be_are_refused(centroid: int) -> None:
    with pytest.raises(WireError, match="value"):
        frame.decode(one_entry(0x3F80, centroid))


@pytest.mark.parametrize("size", [400, MAX_SIZE])
@pytest.mark.parametrize("count", [2, 8 * 60, 2**32 - 1, MAX_SIZE])
@pytest.mark.parametrize("code", [0, 1, 31, 32, 63])
def test_a_small_frame_takes_little_memory(size: int, count: int, code: int) -> None:
    update = SparseUpdate(size, np.array([0, 9]), quantise(np.array([1, 2], np.float32), 16.0))
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    read = Reader(unsealed(data))
    header.read_header(read)
    begin = unsealed(data)[: -read.left]
    grid = b"\x80\x3f\x00\x00"
    lies = [
        sealed(begin + bytes([code]) + varint(count) + grid + varint(quotients) + bytes(16)) for quotients in (2**37, 8)
    ]
    assert max(map(len, lies)) <= 100
    tracemalloc.start()
    try:
        for lie in lies:
            with pytest.raises(WireError):
                frame.decode(lie)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_frame_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(WireError, match="too-large"):
        frame.decode(b"EC\x01\x01" + bytes(MAX_FRAME_BYTES))


# JSON messages


def changed(data: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(data) | fields).encode()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"format": 2}, "version"),
        ({"wire": [2]}, "version"),
        ({"wire": [1, "x"]}, "json"),
        ({"wire": 1}, "json"),
        ({"task": "a/b"}, "name"),
        ({"task": 7}, "json"),
        ({"version": -1}, "range"),
        ({"version": 2**32}, "range"),
        ({"version": 1.0}, "json"),
        ({"version": True}, "json"),
        ({"service": "0123"}, "range"),
        ({"service": "X" * 16}, "range"),
        ({"layout": "EF" * 32}, "range"),
        ({"size": 0}, "range"),
        ({"size": 101}, "layout"),
        ({"size": MAX_SIZE + 1}, "range"),
        ({"scale_bits": 61}, "range"),
        ({"scale_bits": 27}, "range"),
        ({"value_limit": 3.0}, "range"),
        ({"value_limit": 32.0}, "range"),
        ({"value_limit": "16"}, "json"),
        ({"value_limit": 10**400}, "range"),
        ({"parameters": None}, "json"),
        ({"parameters": {"digest": "ab" * 32, "size": 400, "chunk": 65537}}, "range"),
        ({"parameters": {"digest": "ab" * 32, "size": 400, "chunk": 0}}, "range"),
        ({"bundle": {"digest": "../../etc/passwd", "size": 1, "chunk": 1}}, "range"),
        ({"policy": {"density": 0}}, "range"),
        ({"policy": {"density": "1"}}, "json"),
        ({"policy": {"steady": 0}}, "json"),
        ({"policy": {"update_bytes": 2**40 + 1}}, "range"),
        ({"policy": []}, "json"),
    ],
)
def test_announcement_fields_outside_their_limits(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(WireError) as caught:
        announcement.decode(changed(announcement.encode(ANNOUNCED), **fields))
    assert caught.value.reason == reason


def test_unknown_keys_are_left_alone() -> None:
    assert announcement.decode(changed(announcement.encode(ANNOUNCED), later={"x": 1})) == ANNOUNCED
    assert status.decode(changed(status.encode(HEALTH), later=[1])) == HEALTH


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"a":1,"a":2}',
        b'{"format":NaN}',
        b"[" * 100_000,
        b'{"a":' * 3000,
        b'{"format":1e999}',
        b'{"format":' + b"9" * 5000 + b"}",
        b'{"task":"\\ud800"}',
    ],
)
@pytest.mark.parametrize("decode", [announcement.decode, status.decode])
def test_crooked_json_is_refused(decode: Callable[[bytes], Any], text: bytes) -> None:
    with pytest.raises(WireError):
        decode(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data(), JSON)
def test_any_json_in_any_key_gives_a_value_or_a_wire_error(data: st.DataObject, value: Any) -> None:
    for encoded, decode in (MESSAGES["announcement"], MESSAGES["status"]):
        key = data.draw(st.sampled_from(sorted(json.loads(encoded))))
        decoded_or_refused(decode, changed(encoded, **{key: value}))


@pytest.mark.parametrize(
    "fields",
    [
        *({"state": "away"}, {"state": None}, {"rounds": -2}, {"rounds": 2**63}, {"rounds": "1"}, {"sent": True}),
        *({"doing": None}, {"battery_percent": None}, {"battery_percent": 1.5}, {"temperature_c": "hot"}),
        *({"temperature_c": True}, {"residual_norm": 1e301}, {"residual_norm": 10**400}, {"time_s": 1.0}),
    ],
)
def test_status_fields_outside_their_limits(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"json|range"):
        status.decode(changed(status.encode(HEALTH), **fields))


# Receipts that lie, with a right checksum


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (20, 2, "flags"),
        (20, 0x81, "flags"),
        (12, 21, "range"),
        (16, 11, "range"),
        (21, 0xFF, "truncated"),
        (23, 0xFF, "truncated"),
        (23, 1, "trailing"),
        (25, 20, "range"),
        (37, 20, "range"),
        (53, 0, "range"),
        (53, 10, "range"),
    ],
)
def test_forged_receipts_are_refused(at: int, value: int, reason: str) -> None:
    body = bytearray(unsealed(messages.encode_receipt(RECEIPT)))
    body[at] = value
    with pytest.raises(WireError) as caught:
        messages.decode_receipt(sealed(bytes(body)))
    assert caught.value.reason == reason


# Topics

BAD_NAMES = ["", "a/b", "+", "#", "a+", "a" * 65, "ü", "a b", "a\n", "\0", "ٱ", "$SYS", "a.b", "٣"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_stand_in_no_topic(name: str) -> None:
    builders: list[Callable[[], str]] = [
        partial(topics.head, name),
        partial(topics.blob, name, "ab" * 32, 0),
        partial(topics.everyone, name, "up"),
    ]
    for build in (topics.up, topics.down, topics.status):
        builders += [partial(build, name, "d"), partial(build, "t", name)]
    for builder in builders:
        with pytest.raises(WireError) as caught:
            builder()
        assert caught.value.reason == "name"
    for topic in (f"edge/v1/{name}/up/d", f"edge/v1/t/up/{name}", f"edge/v1/{name}/head"):
        with pytest.raises(WireError):
            topics.parse(topic)


@settings(max_examples=50, deadline=None)
@given(
    st.from_regex(topics.NAME, fullmatch=True), st.from_regex(topics.NAME, fullmatch=True), st.integers(0, 10**9 - 1)
)
def test_topics_round_trip(task: str, device: str, chunk: int) -> None:
    assert topics.parse(topics.head(task)) == topics.Topic(task, "head", ())
    assert topics.parse(topics.blob(task, "0f" * 32, chunk)) == topics.Topic(task, "blob", ("0f" * 32, str(chunk)))
    for kind, build in (("up", topics.up), ("down", topics.down), ("status", topics.status)):
        assert topics.parse(build(task, device)) == topics.Topic(task, kind, (device,))


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["edge", "v1", "v2", "t", "up", "head", "blob", "", "0f" * 32, "1"]), max_size=7).map(
        "/".join
    )
)
def test_any_topic_parses_or_is_refused(topic: str) -> None:
    made = decoded_or_refused(topics.parse, topic)  # type: ignore[arg-type]
    if made is not None:
        assert topics.NAME.fullmatch(made.task)


@pytest.mark.parametrize(
    "topic",
    [
        "edge/v1/t/blob/" + "0f" * 32 + "/-1",
        "edge/v1/t/blob/" + "0f" * 32 + "/²",
        "edge/v1/t/blob/" + "0F" * 32 + "/1",
        "edge/v1/t/blob/" + "0f" * 32 + "/1234567890",
        "edge/v1/t/blob/" + "0f" * 32,
        "edge/v2/t/head",
        "/edge/v1/t/head",
        "edge/v1/t/head/",
        "edge/v1/t/up",
        "edge/v1/t/sideways/d",
    ],
)
def test_topics_of_others_are_refused(topic: str) -> None:
    with pytest.raises(WireError):
        topics.parse(topic)
