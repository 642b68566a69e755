"""Frames: every value mode with every position mode, by both kernels; and what no device sends."""

import math
import time
import tracemalloc
from dataclasses import replace
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.quantise import Mode, Quantiser, quantise
from edgeclient.compress.update import SparseUpdate, StepValues
from edgeclient.wire import frame
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import Origin, codes, context, matrix, positions, rice, split, write_values
from edgeclient.wire.frame.body import ENTRIES_PER_BYTE, Body, encode_body
from edgeclient.wire.frame.header import HEADER, PART, TENSORS, Header, encode_header, read_header
from edgeclient.wire.frame.positions import Range, Tensors
from edgeclient.wire.limits import FRAME_VERSION, MAX_CONTEXT_POSITIONS, MAX_FRAME_BYTES, MAX_SIZE
from edgeclient.wire.reader import Field, Reader, sealed, unsealed, varint
from tools import fuzz, masks

ORIGIN = Origin("har", "pi-7", b"tag4", 3, 4, 320)
MODES = get_args(Mode)
EXTREME = [1e38, -1e38, 3.4e38, -3.4028235e38, 5e-41, -1e-45, 1.0, -2.0, 2.0**-110, 2.0**-111, 65504.0]
each_mode = pytest.mark.parametrize("mode", MODES)
each_accel = pytest.mark.parametrize("accel", ["numpy", "numba"])


@st.composite
def layouts(draw: st.DrawFn) -> Tensors:
    return draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=5))


@st.composite
def updates(draw: st.DrawFn) -> tuple[SparseUpdate, Tensors]:
    """Some tensors nearly full, some nearly empty, some in between; values as a device quantises them."""
    tensors = draw(layouts())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    densities = [draw(st.sampled_from([0.0, 0.02, 0.3, 0.95, 1.0])) for _ in tensors]
    chosen = np.concatenate([rng.random(r * c) < density for (r, c), density in zip(tensors, densities, strict=True)])
    chosen[draw(st.integers(0, chosen.size - 1))] = True
    indices = np.flatnonzero(chosen)
    spread = draw(st.sampled_from([0.01, 1.0, 10.0]))
    numbers = ((1 + rng.exponential(spread, indices.size)) * rng.choice([-1, 1], indices.size)).astype(np.float32)
    if draw(st.booleans()):
        numbers[rng.integers(indices.size)] = draw(st.sampled_from(EXTREME))
    bounds = np.cumsum([0, *(r * c for r, c in tensors)]).tolist()
    quantiser = Quantiser(draw(st.sampled_from([math.inf, 16.0])), draw(st.sampled_from(MODES)), bounds=bounds)
    return SparseUpdate(chosen.size, indices, quantiser(indices, numbers)), tensors


def assert_same(made: SparseUpdate, wanted: SparseUpdate) -> None:
    assert made.size == wanted.size
    assert made.indices.dtype == np.int64
    assert np.array_equal(made.indices, wanted.indices)
    assert type(made.values) is type(wanted.values)
    assert np.array_equal(made.values.decoded().view(np.uint32), wanted.values.decoded().view(np.uint32))


# decode ∘ encode = id


@settings(max_examples=150, deadline=None)
@given(updates(), st.booleans(), st.sampled_from([MAX_FRAME_BYTES, 250]))
def test_frames_round_trip_by_both_kernels(case: tuple[SparseUpdate, Tensors], known: bool, room: int) -> None:
    update, tensors = case
    shown = tensors if known else None
    made = frame.encode_update(update, ORIGIN, room, tensors=shown, accel="numba")
    assert made == frame.encode_update(update, ORIGIN, room, tensors=shown, accel="numpy")
    assert max(map(len, made)) <= room
    accels: list[Accel] = ["numpy", "numba"]
    for accel in accels:
        parts = [frame.decode(data, tensors, accel=accel) for data in made]
        assert [part.part for part in parts] == list(range(len(made)))
        assert {part.parts for part in parts} == {len(made)}
        indices = np.concatenate([part.update.indices for part in parts])
        decoded = np.concatenate([part.update.values.decoded() for part in parts])
        assert np.array_equal(indices, update.indices)
        assert np.array_equal(decoded.view(np.uint32), update.values.decoded().view(np.uint32))
    if len(made) == 1:
        assert_same(parts[0].update, update)


def test_a_frame_by_tensor_is_never_larger() -> None:
    rng = np.random.default_rng(1)
    tensors = [(100, 50), (1, 50), (50, 20)]
    chosen = rng.random(6050) < np.repeat([0.01, 0.9, 0.3], [5000, 50, 1000])
    indices = np.flatnonzero(chosen)
    for mode in MODES:
        numbers = (rng.uniform(1, 3, indices.size) * rng.choice([-1, 1], indices.size)).astype(np.float32)
        update = SparseUpdate(6050, indices, quantise(numbers, 16.0, mode))
        (plain,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
        (known,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=tensors)
        assert len(known) < len(plain)
        assert_same(frame.decode(known, tensors).update, update)


def test_a_typical_header_takes_forty_bytes() -> None:
    update = SparseUpdate(10**6, np.array([7]), quantise(np.ones(1, np.float32), 16.0))
    header = Header.of(Origin("t", "d", bytes(4), 100, 100, 500), update.size, write_values.STEP << 4)
    assert len(encode_header(header)) + 4 <= 36


def test_traced_fields_are_the_documented_ones() -> None:
    indices = np.arange(0, 4000, 3)
    update = SparseUpdate(4000, indices, quantise(np.ones(indices.size, np.float32), 16.0, "int8"))
    data = frame.encode_update(update, ORIGIN, 500)[1]
    trace: list[Field] = []
    frame.decode(data, trace=trace)
    assert [field.name for field in trace][8:16] == [
        "number", "base version", "examples", "size", "part", "parts", "first", "span",
    ]  # fmt: skip
    assert [field.start for field in trace[1:]] == [field.end for field in trace[:-1]]
    assert trace[-1].end == len(data) - 4


@pytest.mark.parametrize(("size", "k"), [(10**12, 1), (MAX_SIZE, 2), (100, 100), (1, 1), (5, 4)])
@each_mode
def test_the_ends_of_the_range(mode: Mode, size: int, k: int) -> None:
    indices = np.unique(np.linspace(0, size - 1, k).astype(np.int64))
    indices[-1] = size - 1
    update = SparseUpdate(size, indices, quantise(np.full(indices.size, -1.5, np.float32), 16.0, mode))
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    assert_same(frame.decode(data).update, update)


def test_seven_billion_parameters_in_one_frame() -> None:
    """Seven million entries, positions included, in less than half of 28 MB."""
    n, rng = 7_000_000_000, np.random.default_rng(0)
    drawn = np.sort(rng.integers(0, n, 7_010_000))  # np.unique takes half a minute
    drawn = drawn[np.diff(drawn, prepend=-1) > 0]
    indices = drawn[np.sort(rng.permutation(drawn.size)[:7_000_000])]
    numbers = (rng.uniform(1, 1.2, indices.size) * rng.choice([-1, 1], indices.size)).astype(np.float32)
    update = SparseUpdate(n, indices, quantise(numbers, 16.0))
    (data,) = frame.encode_update(update, ORIGIN, 1 << 30)
    assert len(data) <= 11_100_000
    assert_same(frame.decode(data, max_bytes=1 << 30).update, update)


def test_a_large_update_is_split_in_linear_time() -> None:
    """Entries are encoded twice at most, however many frames there are."""
    n, rng = 10_000_000, np.random.default_rng(0)
    indices = np.flatnonzero(rng.random(n) < 0.05)
    update = SparseUpdate(n, indices, quantise(np.ones(indices.size, np.float32), 16.0))
    encoded = 0

    def counted(piece: SparseUpdate, *rest: Any) -> Body:
        nonlocal encoded
        encoded += piece.indices.size
        return encode_body(piece, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "encode_body", counted)
        made = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
    assert len(made) >= 5
    assert encoded <= 2 * indices.size
    assert min(map(len, made[:-1])) >= 0.9 * MAX_FRAME_BYTES


# The pool of Rice codes


@st.composite
def pools(draw: st.DrawFn) -> list[tuple[I64, int, codes.Code]]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        span = draw(st.integers(1, 300) | st.integers(1, MAX_SIZE))
        members = draw(st.sets(st.integers(0, span - 1), min_size=1, max_size=40))
        least = max(0, span.bit_length() - 10)
        code = codes.Code(draw(st.integers(min(least, 31), 31)), draw(st.booleans()))
        made.append((np.array(sorted(members), np.int64), span, code))
    return made


@settings(max_examples=200, deadline=None)
@given(pools())
@example([(np.array([MAX_SIZE - 1]), MAX_SIZE, codes.Code(31, thirds=True))])
def test_pools_round_trip_by_both_kernels(pool: list[tuple[I64, int, codes.Code]]) -> None:
    sets = [(wanted, code) for wanted, _, code in pool]
    data = rice.encode(sets, accel="numpy")
    assert rice.encode(sets, accel="numba") == data
    accels: list[Accel] = ["numpy", "numba"]
    for accel in accels:
        reader = Reader(data)
        made = rice.decode(reader, [codes.Set(w.size, span, code) for w, span, code in pool], accel=accel)
        reader.finish()
        assert all(np.array_equal(one, wanted) for one, (wanted, _, _) in zip(made, pool, strict=True))
        # The last position lies just outside a smaller span.
        if int(pool[-1][0][-1]) > 0:
            short = [codes.Set(w.size, span if w is not pool[-1][0] else int(w[-1]), c) for w, span, c in pool]
            with pytest.raises(WireError):
                rice.decode(Reader(data), short, accel=accel)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 40), st.integers(1, 2000), st.integers(0, 31), st.booleans())
def test_both_kernels_refuse_the_same_pools(data: bytes, count: int, span: int, bits: int, thirds: bool) -> None:
    accels: list[Accel] = ["numpy", "numba"]
    found: list[Any] = []
    for accel in accels:
        try:
            (made,) = rice.decode(Reader(data), [codes.Set(count, span, codes.Code(bits, thirds))], accel=accel)
            found.append(made.tolist())
        except WireError as error:
            found.append(error.reason)
    assert found[0] == found[1]


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05])
def test_positions_of_uniform_masks_are_near_the_floor(density: float) -> None:
    n, rng = 1_000_000, np.random.default_rng(3)
    indices = np.sort(rng.permutation(n)[: round(n * density)])
    k = indices.size
    floor = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
    code, bits = codes.best(indices)
    data = rice.encode([(indices, code)])
    assert 8 * len(data) <= 1.01 * floor
    assert abs(bits - 8 * len(data)) <= 0.01 * bits


# Bytes that are not what they should be


def test_a_frame_by_tensor_needs_its_layout() -> None:
    update, tensors = by_tensor()
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=tensors)
    for wrong in (None, [(30, 40)], [*tensors, (1, 1)]):
        with pytest.raises(WireError) as caught:
            frame.decode(data, wrong)
        assert caught.value.reason == "layout"
    seen = frame.Opened(data).bare()
    assert (seen.number, seen.update.size, seen.update.indices.size) == (3, 1300, 0)


def by_tensor() -> tuple[SparseUpdate, Tensors]:
    """A context stream, a dense tensor, an empty one, a Rice set."""
    tensors = [(30, 20), (1, 100), (20, 10), (1, 400)]
    columns = np.flatnonzero(np.arange(600) % 20 == 3)
    indices = np.concatenate([columns, 600 + np.delete(np.arange(100), [5, 50]), [910, 1003, 1290]])
    return SparseUpdate(1300, indices, quantise(np.ones(indices.size, np.float32), 16.0, "int4")), tensors


def test_that_frame_uses_every_position_mode() -> None:
    update, tensors = by_tensor()
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=tensors)
    reader = Reader(unsealed(data))
    read_header(reader)
    segments = positions.read_head(reader, positions.touched(0, 1300, tensors), 10**4)
    assert [each.mode for each in segments] == [positions.CONTEXT, positions.DENSE, positions.RICE]


@each_accel
def test_every_prefix_flip_and_forged_byte_gives_a_sound_frame_or_a_wire_error(accel: Accel) -> None:
    update, tensors = by_tensor()
    (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=tensors)
    body = unsealed(data)
    frame.decode(data, tensors, accel=accel)
    for end in range(len(body)):
        with pytest.raises(WireError):
            frame.decode(sealed(body[:end]), tensors, accel=accel)
    with pytest.raises(WireError):
        frame.decode(sealed(body + b"\0"), tensors, accel=accel)
    for at in range(len(body)):
        for byte in {0, 1, 0x7F, 0x80, 0xFF, body[at] ^ 1, (body[at] + 1) % 256}:
            forged = sealed(body[:at] + bytes([byte]) + body[at + 1 :])
            try:
                made = frame.decode(forged, tensors, accel=accel).update
            except WireError:
                continue
            assert (np.diff(made.indices) > 0).all()
            assert np.isfinite(made.values.decoded()).all()


def forged(flags: int, body: bytes, *, size: int = 10, part: bytes = b"") -> bytes:
    header = HEADER.pack(b"EC", FRAME_VERSION, 1, flags, 0, b"tag4", 0, 0)
    return sealed(header + varint(1) + varint(1) + varint(1) + varint(size) + part + body)


ONE = b"\x02\x01" + b"\x01\x03\x00" + b"\x00\x00\x80\x3f"  # position 3, float32 1.0


def test_a_frame_by_hand() -> None:
    made = frame.decode(forged(0, ONE))
    assert (made.update.indices.tolist(), made.update.values.decoded().tolist()) == ([3], [1.0])


STEP = write_values.STEP << 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (forged(1, ONE), "flags"),
        (forged(8, b"\x00\x01\x80\x7f" + ONE), "value"),  # an absolute value that is infinite
        (forged(8, b"\x00\x00" + ONE), "range"),  # none
        (forged(8, b"\x00\xff\xff\xff\x7f" + ONE), "range"),  # more than there are
        (forged(8, b"\x00\xff\x07" + ONE, size=1 << 20), "truncated"),  # more than the bytes hold
        (forged(6 << 4, ONE), "kind"),
        (forged(15 << 4, ONE), "kind"),
        (forged(0, ONE, size=0), "range"),
        (forged(0, ONE, size=MAX_SIZE + 1), "range"),
        (forged(0, ONE, size=3), "range"),
        (forged(PART, ONE, part=b"\x00\x01\x03\x01"), "range"),  # a part of one
        (forged(PART, ONE, part=b"\x02\x02\x03\x01"), "range"),  # the third of two
        (forged(PART, ONE, part=b"\x00\x02\x03\x00"), "range"),  # no coordinates
        (forged(PART, ONE, part=b"\x00\x02\x0a\x01"), "range"),  # begins at the end
        (forged(PART, ONE, part=b"\x00\x02\x00\x05"), "range"),  # the range begins before the first entry
        (forged(0, b"\xc2" + ONE[1:]), "kind"),  # position mode 3
        (forged(0, b"\x40\x01\x01\x00"), "kind"),  # a stream without tensors
        (forged(0, b"\x02\x00" + ONE[2:]), "range"),  # no entries
        (forged(0, b"\x02\x0b" + ONE[2:]), "range"),  # more entries than parameters
        (forged(0, b"\x80\x0a"), "range"),  # ten of ten absent
        (forged(0, b"\x81\x00" + b"\x00\x00\x80\x3f" * 10), "flags"),  # a code for no absent coordinates
        (forged(0, b"\x02\x01" + b"\x00" + ONE[3:]), "range"),  # no quotients
        (forged(0, b"\x02\x01" + b"\x02" + ONE[3:]), "range"),  # too many of them
        (forged(0, b"\x02\x01" + b"\x01\x07\x00" + ONE[5:]), "trailing"),  # padding behind the remainders
        (forged(0, b"\x02\x01" + b"\x01\x03\x02" + ONE[5:]), "trailing"),  # padding behind the quotients
        (forged(0, b"\x02\x01" + b"\x01\x03\x07" + ONE[5:]), "range"),  # position 15
        (forged(0, b"\x02\x01" + b"\x01\x03\xff" + ONE[5:]), "range"),  # a quotient without end
        (forged(0, b"\x02\x81\x00" + ONE[2:]), "range"),  # a varint in a longer form
        (forged(0, ONE[:5] + bytes(4)), "value"),
        (forged(0, ONE[:5] + b"\x00\x00\x80\x7f"), "value"),
        (forged(0, ONE + b"\0"), "trailing"),
        (forged(TENSORS, ONE), "layout"),
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x04\x00" + b"\x01\x03\x00\x00\x80\x3f"), "flags"),  # form 4
        (forged(STEP, b"\x02\x01" + b"\x00\x04\x00\x00" + b"\x01\x03\x00\x00\x80\x3f"), "value"),  # a step of 2^-119
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x00\x02" + b"\x01\x03\x00\x00\x80\x3f"), "range"),  # two of one
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x00\x00" + b"\x01\x03\x00\x00\x7f\x3f"), "value"),  # centroid < step
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x00\x00" + b"\x01\x03\x00\x02\x80\x3f"), "trailing"),  # two signs
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x01\x00" + b"\x01\x03\x00\x00\x00\x80\x3f"), "range"),  # no run
        (forged(STEP, b"\x02\x01" + b"\x80\x3f\x01\x00" + b"\x01\x03\x00\x00\x02\x80\x3f"), "range"),  # two runs of one
        (
            forged(write_values.INT8 << 4, b"\x02\x01" + b"\x80\x3f\x80\xbf" + b"\x01\x03\x00\x00"),
            "value",
        ),  # a step of -1
        (forged(write_values.INT8 << 4, b"\x02\x01" + b"\x80\x3f\x80\x7f" + b"\x01\x03\x00\x00"), "value"),  # infinite
        (
            forged(write_values.INT4 << 4, b"\x02\x01" + b"\x80\x3f\x80\x3f" + b"\x01\x03\x00\x10"),
            "trailing",
        ),  # half a byte
        (
            forged(write_values.SIGN << 4, b"\x02\x01" + b"\x80\xbf" + b"\x01\x03\x00\x00"),
            "value",
        ),  # a negative magnitude
        (forged(write_values.BFLOAT16 << 4, b"\x02\x01" + b"\x01\x03\x00\x00\x80"), "value"),  # minus zero
    ],
)
@each_accel
def test_forged_frames_are_refused(data: bytes, reason: str, accel: Accel) -> None:
    with pytest.raises(WireError) as caught:
        frame.decode(data, accel=accel)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x00", "range"),  # no tensor
        (b"\x04", "trailing"),  # a third of two tensors
        (b"\x01\x41\x01\x01\x00", "flags"),  # a stream with a code
        (b"\x01\x40\x01\x06\x00", "range"),  # six rows of five
        (b"\x01\x40\x03\x01\x00", "range"),  # three entries in a row of two
        (b"\x01\x40\x01\x01\x7f", "range"),  # a stream longer than the frame
        (b"\x01\x40\x01\x01\x04\xff\xff\xff\xff", "range"),
    ],
)
def test_forged_segments_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        frame.decode(forged(TENSORS, body, size=12), [(2, 5), (1, 2)])
    assert caught.value.reason == reason


@pytest.mark.parametrize("mode", ["float32", "int8", "sign"])
def test_streams_hold_no_values_that_have_their_place_elsewhere(mode: Mode) -> None:
    tensors = [(40, 20)]
    indices = np.flatnonzero(np.arange(800) % 20 == 3)
    update = SparseUpdate(800, indices, quantise(np.ones(40, np.float32), 16.0, mode))
    signs, levels = np.arange(40) % 3 == 0, (np.arange(40) % 5 == 0).astype(np.uint8)
    nothing = np.zeros(40, np.uint8), np.zeros(20, np.uint8)
    stream = context.encode(40, 20, indices, signs, levels, nothing)
    head = b"\x01\x40\x28\x28" + varint(len(stream))
    coded = write_values.encode(update.values, np.zeros(40, np.bool_), lambda *_: None)
    data = forged(TENSORS | coded.mode << 4, head + coded.head + stream + coded.tail, size=800)
    with pytest.raises(WireError, match="stream holds"):
        frame.decode(data, tensors)


def test_work_is_bounded_before_it_begins() -> None:
    many = MAX_CONTEXT_POSITIONS + 1
    data = forged(TENSORS, b"\x01\x40\x02" + varint(many) + b"\x01\x00", size=many)
    began = time.perf_counter()
    with pytest.raises(WireError, match="too-large"):
        frame.decode(data, [(many, 1)])
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" + varint(8 * 60_000) + varint(60_000) + bytes(60_000),  # all there is, in one code bit each
        b"\x80" + varint(8 * 50_000) + varint(50_000) + bytes(50_000),  # absent ones
        b"\x1f" + varint(15_000) + varint(2_000) + bytes(60_000),
        b"\x3f" + varint(14_000) + varint(2_000) + bytes(60_000),
        b"\x00" + varint(1) + varint(60_000) + b"\xff" * 60_000,
    ],
)
@pytest.mark.parametrize("size", [600_000, MAX_SIZE])
@each_accel
def test_hostile_frames_of_full_size_stay_bounded(accel: Accel, body: bytes, size: int) -> None:
    data = forged(write_values.SIGN << 4, body[:1] + body[1:4] + b"\x80\x3f" + body[4:] + bytes(100), size=size)
    data = data[:MAX_FRAME_BYTES]
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            frame.decode(sealed(data[:-4]), accel=accel)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < fuzz.MEMORY


@pytest.mark.parametrize("mode", range(6))
def test_what_a_frame_claims_to_hold_stays_bounded(mode: int) -> None:
    """As many entries as are allowed, and not a bit for the position of each."""
    grid = [b"", b"\x80\x3f\x00\x00", b"", b"\x80\x3f\x00\x00", b"\x80\x3f\x00\x00", b"\x80\x3f"][mode]
    data = forged(mode << 4, b"\x80\x00" + grid + bytes(MAX_FRAME_BYTES - 600), size=ENTRIES_PER_BYTE * 64_000)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            frame.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 16 * 2**20 < peak < fuzz.MEMORY


def test_the_fuzzer_finds_nothing() -> None:
    report = fuzz.run(4000, seed=11)
    assert report["outcomes"]["decoded"] > 100
    assert len(report["outcomes"]) >= 9


def test_the_fuzzer_notices() -> None:
    random, corpus, right = Random(1), fuzz.seeds(), rice.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rice, "decode", lambda *args, **named: [each[::-1] for each in right(*args, **named)])
        with pytest.raises(AssertionError):
            list(map(fuzz.outcome, (fuzz.mutated(random, corpus) for _ in range(2000))))


# Conservation: what is decoded and what stays are the entry


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(EXTREME) | st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=60),
    st.sampled_from(MODES),
    st.sampled_from([math.inf, 16.0, 2.0**-20]),
    st.booleans(),
)
def test_every_mode_conserves(numbers: list[float], mode: Mode, limit: float, stochastic: bool) -> None:
    x = np.array([number for number in numbers if number], np.float32)
    rng = np.random.default_rng(len(numbers)) if stochastic else None
    made = quantise(x, limit, mode, rng)
    decoded = made.decoded()
    with np.errstate(over="raise", invalid="raise"):
        residual = x - decoded
    assert np.isfinite(decoded).all()
    assert np.isfinite(residual).all()
    assert decoded.all()
    assert (np.abs(decoded) <= limit).all()
    assert np.array_equal(np.signbit(decoded), np.signbit(x))
    total = decoded.astype(np.float64) + residual.astype(np.float64)
    larger = np.maximum(np.abs(decoded), np.abs(residual))
    assert (np.abs(total - x) <= 2.0**-23 * np.maximum(np.abs(x), larger)).all()
    if mode == "float32":
        assert np.array_equal(total, np.where(np.abs(x) <= limit, x, total))
    if rng is None and mode != "sign":  # no entry is off by more than itself
        assert (np.abs(residual) <= np.abs(x)).all()
    if rng is None:  # what stays is less than what came: error feedback does not run away
        stays, came = (np.linalg.norm(each.astype(np.float64)) for each in (residual, x))
        assert stays <= came * (1 + 2.0**-20)
    if x.size:
        update = SparseUpdate(x.size, np.arange(x.size), made)
        (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES)
        assert_same(frame.decode(data).update, update)


@pytest.mark.parametrize("mode", ["bfloat16", "int8", "int4"])
def test_stochastic_rounding_is_unbiased_and_seeded(mode: Mode) -> None:
    x = np.concatenate([np.linspace(1, 3, 50), [1.0, 3.001]]).astype(np.float32) * np.float32(-0.37)
    rng = np.random.default_rng(5)
    turns = 4000
    sums = np.zeros(x.size)
    for _ in range(turns):
        sums += quantise(x, math.inf, mode, rng).decoded()
    mean, step = sums / turns, {"bfloat16": 2.0**-7, "int8": 0.006, "int4": 0.11}[mode]
    assert (np.abs(mean - x) < 4 * step / 2 / math.sqrt(turns) + 1e-7).all()
    # Rounding to the nearest is not: every entry has its own error.
    assert np.abs(quantise(x, math.inf, mode).decoded() - x).max() > 4 * step / math.sqrt(turns)
    once = [quantise(x, math.inf, mode, np.random.default_rng(9)).decoded() for _ in range(2)]
    assert np.array_equal(once[0], once[1])


def test_tensors_get_centroids_of_their_own_where_it_pays() -> None:
    x = np.repeat(np.array([1.05, 1.9], np.float32), 500)
    made = quantise(x, 16.0, runs=(500, 500))
    assert isinstance(made, StepValues)
    assert [count for count, _ in made.runs] == [500, 500]
    assert np.abs(made.decoded() - x).max() < 0.01
    assert np.abs(quantise(x, 16.0).decoded() - x).max() > 0.4
    same = quantise(np.full(1000, 1.05, np.float32), 16.0, runs=(500, 500))
    assert isinstance(same, StepValues)
    assert same.runs == ()
    part = made.subset(slice(400, 600))
    assert [count for count, _ in part.runs] == [100, 100]
    assert np.array_equal(part.decoded(), made.decoded()[400:600])


def test_a_range_knows_its_rows() -> None:
    tensors = [(4, 5), (1, 7), (3, 2)]
    found = [Range(7, 13, 0, (4, 5)), Range(20, 7, 20, (1, 7)), Range(27, 2, 27, (3, 2))]
    assert positions.touched(7, 22, tensors) == found
    assert [each.row for each in found] == [5, 20, 27]
    assert [each.columns for each in found] == [5, 7, 2]


# Streams know the tensors before, and lie with their short side


def test_wide_matrices_are_turned_as_a_whole() -> None:
    whole, vector, tall = positions.touched(0, 33, [(4, 5), (1, 7), (3, 2)])
    assert (whole.turned, whole.columns, vector.turned, tall.turned) == (True, 4, False, False)
    assert not any(each.turned for each in positions.touched(1, 32, [(4, 5), (1, 7), (3, 2)]))  # a part stays as it is


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 50), st.data())
def test_a_matrix_is_laid_out_and_read_back(rows: int, columns: int, begins: int, data: st.DataObject) -> None:
    (within,) = positions.touched(0, rows * columns, [(rows, columns)])
    within = replace(within, first=begins, begins=begins)
    chosen = data.draw(st.sets(st.integers(0, rows * columns - 1), min_size=1))
    indices = np.array(sorted(chosen)) + begins
    offsets, order = matrix.laid_out(indices, within)
    dense = np.zeros((rows, columns), np.int64)
    dense.ravel()[indices - begins] = np.arange(indices.size) + 1
    seen = (dense.T if within.turned else dense).ravel()
    assert np.array_equal(offsets, np.flatnonzero(seen))
    assert np.array_equal(order, seen[seen > 0] - 1)
    again, back = matrix.coordinates(offsets, within)
    assert np.array_equal(again, indices)
    assert np.array_equal(order[back], np.arange(indices.size))


def test_activity_counts_along_equal_lengths() -> None:
    tensors = [(6, 3), (1, 3), (3, 6), (1, 9)]
    embedding, bias, softmax, other = positions.touched(0, 48, tensors)
    before = matrix.Entries()
    assert not any(each.any() for each in before.activity(embedding, 6))
    before.add(np.array([0, 1, 2, 15, 16]), embedding)  # three in row 0, two in row 5
    before.add(np.array([18]), bias)
    rows, columns = before.activity(softmax, 4)  # it is turned: 6 x 3, here up to its fourth row
    assert (rows.tolist(), columns.tolist()) == ([2, 0, 0, 0], [2, 2, 1])  # bit lengths of 3, 0, 0, 0 and of 3, 2, 1
    assert [each.tolist() for each in before.activity(other, 1)] == [[0], [0] * 9]
    (part,) = positions.touched(26, 4, tensors)  # of rows 0 and 1 of the softmax, which is not turned
    rows, columns = before.activity(part, 2)
    assert (rows.tolist(), columns.tolist()) == ([2, 2], [2, 0, 0, 0, 0, 2])
    (last,) = positions.touched(34, 4, tensors)  # row 2
    assert before.activity(last, 1)[0].tolist() == [1]


def test_lengths_are_counted_in_their_order_while_there_is_room() -> None:
    half = MAX_CONTEXT_POSITIONS // 2
    before = matrix.Entries()
    tracemalloc.start()
    lengths = [2 * half + 1, half + 1, half, 9, *range(half - 200, half - 10)]  # too long, fits, too long, fits, fits …
    for length in lengths:
        before.add(np.array([5]), Range(0, length, 0, (1, length)))
    counted = [length for length in lengths if seen(before, length)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counted == [half + 1, 9, half - 200]
    assert peak < 8 * 2 * half + (1 << 20)


def seen(before: matrix.Entries, length: int) -> bool:
    """Whether the entry in column 5 of vectors of this length was counted."""
    rows, columns = before.activity(Range(0, 6, 0, (length, 1)), 6)
    assert columns.tolist() == [0]
    return bool(rows[5])


def test_real_updates_take_few_bits() -> None:
    """Next-word updates at density 1 %: 5.65 bits an entry would do without activity and ties."""
    tensors, captured = masks.load(masks.COMMITTED / "next-word-0.01.npz")
    spent, entries = 0, 0
    for each in captured[::10]:
        update = each.update(tensors)
        (data,) = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=tensors)
        assert_same(frame.decode(data, tensors).update, update)
        spent, entries = spent + 8 * len(data), entries + each.indices.size
    assert spent / entries < 5.5


def dense_numbers(size: int) -> F32:
    return np.linspace(1, 2, size, dtype=np.float32)


@each_mode
def test_all_of_a_vector(mode: Mode) -> None:
    """k = n: positions cost next to nothing."""
    update = SparseUpdate(20_000, np.arange(20_000), quantise(dense_numbers(20_000), 16.0, mode))
    frames = frame.encode_update(update, ORIGIN, MAX_FRAME_BYTES, tensors=[(100, 200)])
    assert np.array_equal(
        np.concatenate([frame.decode(data, [(100, 200)]).update.values.decoded() for data in frames]),
        update.values.decoded(),
    )
    bits = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4, "sign": 1, "step": 1}[mode]
    assert 8 * sum(map(len, frames)) <= (bits + 0.1) * 20_000
