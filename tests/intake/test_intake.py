"""Intake: any message becomes a value, and every refusal has its reason."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.intake.decode import FrameIn, HelloIn, Rejected, WithdrawIn, decode, refusal
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.errors import REASONS, WireError
from edgeclient.wire.limits import FRAME_VERSION
from edgeclient.wire.messages import Hello, Receipt, Refusal, Withdraw
from edgeclient.wire.reader import sealed

LAYOUT = Layout((Parameter("w", (4, 2)), Parameter("b", (2,))))
LAYOUTS = {"t": LAYOUT}
TAG = LAYOUT.tag
TERMS = (LAYOUT, 20, 5)  # version, max_staleness
TOPIC = topics.up("t", "d")
HELLO = messages.encode_hello(Hello(7, 3, 1))
DIGEST = b"12345678"
WITHDRAW = messages.encode_withdraw(Withdraw(7, ((0, DIGEST), (0xFFFFFFFE, DIGEST))))


def body(*, base: int = 20, tag: bytes = TAG, size: int = 10, device: str = "d", value: float = 2.0) -> bytes:
    delta = np.zeros(size, np.float32)
    delta[3] = value
    update, _ = compress_with_feedback(delta, np.zeros(size, np.float32), k=1)
    (made,) = frame.encode_update(update, frame.Origin("t", device, tag, 0, base, 5), 65536)
    return frame.stamp(made, epoch=7, sequence=0)


def judged(data: bytes, terms: tuple[Layout, int, int] = TERMS) -> Refusal | None:
    return refusal(frame.decode(data), *terms)


def test_a_frame_a_hello_and_a_withdrawal() -> None:
    data = body()
    said = decode(TOPIC, data, LAYOUTS)
    assert isinstance(said, FrameIn)
    assert (said.task, said.device, said.body, said.frame.epoch) == ("t", "d", data, 7)
    assert decode(TOPIC, HELLO, {}) == HelloIn("t", "d", Hello(7, 3, 1))
    assert decode(TOPIC, WITHDRAW, {}) == WithdrawIn("t", "d", messages.decode_withdraw(WITHDRAW))


@pytest.mark.parametrize(
    ("topic", "payload", "device", "reason"),
    [
        (TOPIC, b"", "d", "truncated"),
        (TOPIC, b"xx\x01\x01", "d", "magic"),
        (TOPIC, bytes([*b"EC", FRAME_VERSION + 1, 1]), "d", "version"),
        (TOPIC, b"EC\x02\x02", "d", "version"),
        (TOPIC, b"EC\x01\x05" + bytes(20), "d", "kind"),
        (TOPIC, b"EC\x01\x03" + bytes(20), "d", "checksum"),
        (TOPIC, WITHDRAW[:-1], "d", "checksum"),
        (TOPIC, messages.encode_withdraw(Withdraw(7, ((0xFFFFFFFF, DIGEST),))), "d", "range"),
        (TOPIC, frame.stamp(body(), epoch=7, sequence=0xFFFFFFFF), "d", "range"),
        (TOPIC, messages.encode_receipt(Receipt(1, 0, 0)), "d", "kind"),
        (TOPIC, HELLO[:-1], "d", "checksum"),
        (TOPIC, sealed(HELLO[:-4] + b"\0"), "d", "trailing"),
        (TOPIC, body()[:4] + bytes(70_000), "d", "too-large"),
        (topics.down("t", "d"), HELLO, "", "topic"),
        (topics.head("t"), HELLO, "", "topic"),
        ("edge/v1/t/up/a b", HELLO, "", "name"),
        ("elsewhere", HELLO, "", "topic"),
    ],
)
def test_what_is_dropped_and_why(topic: str, payload: bytes, device: str, reason: str) -> None:
    said = decode(topic, payload, LAYOUTS)
    assert isinstance(said, Rejected)
    assert (said.device, said.reason) == (device, reason)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=40) | st.just(TOPIC),
    st.binary(max_size=120) | st.binary(max_size=99).map(lambda junk: sealed(b"EC\x01\x01" + junk)),
)
def test_decode_never_raises(topic: str, payload: bytes) -> None:
    said = decode(topic, payload, LAYOUTS)
    if isinstance(said, Rejected):
        assert said.reason in REASONS


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_forged_byte_never_raises_through_judgement(at: int, byte: int) -> None:
    forged = bytearray(body()[:-4])
    forged[at % len(forged)] = byte
    said = decode(TOPIC, sealed(bytes(forged)), LAYOUTS)
    if isinstance(said, FrameIn):
        refusal(said.frame, *TERMS)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (body(), None),
        (body(tag=b"another8"), Refusal.LAYOUT),
        (body(size=11), Refusal.LAYOUT),
        (body(base=21), Refusal.FUTURE),
        (body(base=15), None),
        (body(base=14), Refusal.STALE),
        (body(value=16.0), None),
        (body(value=-16.0), None),
        (body(value=16.25), Refusal.VALUE_LIMIT),
        (body(value=-3e38), Refusal.VALUE_LIMIT),
    ],
)
def test_refusals(data: bytes, wanted: Refusal | None) -> None:
    assert judged(data) is wanted


BOUNDED = Layout((Parameter("w", (8,)), Parameter("var", (2,), Bounds(low=0.0))))


def carrying(*values: float, entry: int = 3) -> bytes:
    update = SparseUpdate(10, np.array([entry]), FloatValues(np.ones(1, np.float32)))
    origin, absolute = frame.Origin("t", "d", BOUNDED.tag, 0, 20, 5), np.array(values, np.float32)
    ((made,),) = frame.encode_layers(update, origin, frame.Coding(), absolute)
    return made


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (carrying(), None),
        (carrying(0.0, 7.5), None),
        (carrying(0.0, -0.5), Refusal.DOMAIN),
        (carrying(0.0, 2.0**37), Refusal.DOMAIN),
        (carrying(1.0, 1.0, 1.0), Refusal.DOMAIN),  # more than there are
        (carrying(1.0, 1.0, entry=8), Refusal.DOMAIN),  # an entry where values are absolute
    ],
)
def test_numbers_outside_their_domain_are_refused(data: bytes, wanted: Refusal | None) -> None:
    assert judged(data, (BOUNDED, 20, 5)) is wanted


def by_tensor(*, tag: bytes = TAG) -> bytes:
    """A frame that only the layout makes readable: tensors as they are in it, and half of its entries in the second."""
    values = np.ones(8, np.float32)
    update = SparseUpdate(4096, np.array([7, *range(4000, 4007)]), FloatValues(values))
    (made,) = frame.encode_update(update, frame.Origin("t", "d", tag, 0, 20, 5), 65536, tensors=[(40, 100), (1, 96)])
    with pytest.raises(WireError, match="layout"):
        frame.decode(made)
    return made


def test_a_frame_of_another_layout_is_answered_though_it_cannot_be_read() -> None:
    said = decode(TOPIC, by_tensor(tag=b"another8"), LAYOUTS)
    assert isinstance(said, FrameIn)
    assert refusal(said.frame, *TERMS) is Refusal.LAYOUT
    lied = decode(TOPIC, by_tensor(), LAYOUTS)
    assert isinstance(lied, Rejected)
    assert lied.reason == "layout"
    known = Layout((Parameter("w", (40, 100)), Parameter("b", (96,))))
    read = decode(TOPIC, by_tensor(tag=known.tag), {"t": known})
    assert isinstance(read, FrameIn)
    assert read.frame.update.indices.size == 8


def test_one_entry_over_the_limit_refuses_the_frame() -> None:
    made = frame.decode(body())
    update = SparseUpdate(10, np.array([0, 9]), FloatValues(np.array([1.0, 16.001], np.float32)))
    assert refusal(replace(made, update=update), *TERMS) is Refusal.VALUE_LIMIT


def test_no_staleness_at_all() -> None:
    strict = (LAYOUT, 20, 0)
    assert judged(body(base=20), strict) is None
    assert judged(body(base=19), strict) is Refusal.STALE
