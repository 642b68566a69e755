"""One exam for every scheme of the comparison; whoever joins the table writes no new test."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from broker.simulate.scheme import Scheme, Turn
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.arrays import F32, F64
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.announcement import Announcement, Blob
from edgeclient.wire.errors import WireError
from tools.compare.schemes import SCHEMES
from tools.compare.schemes.random_k import RandomK

LIMIT = 16.0
ODD = Layout((Parameter("w", (61, 71)), Parameter("b", (71,)), Parameter("c", (3, 5, 7)), Parameter("s", ())))
ONE = Layout((Parameter("w", (1,)),))
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))


@dataclass
class Sender:
    """A device that sends by a scheme."""

    scheme: Scheme
    layout: Layout = ODD
    device: str = "pi-7"
    seed: int = 3
    number: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    residual: F32 = field(init=False)

    def __post_init__(self) -> None:
        self.residual = np.zeros(self.layout.size, np.float32)

    def send(self, delta: F32) -> tuple[list[bytes], F64]:
        """The messages of a round, and what is read from them, float64 (n,); the law is checked on the way."""
        size, blob = self.layout.size, Blob("0" * 64, 4 * self.layout.size, 4096)
        announced = Announcement(
            "t", self.number + 20, "0" * 16, "0" * 16, 1, blob, blob, self.layout.digest, size, value_limit=LIMIT
        )
        before, made = delta.copy(), LocalRound(delta, 32, 4, 1.0, 1.0, np.empty(0, np.float32))
        out = np.full(size, np.nan, np.float32)
        bodies = self.scheme.send(
            made, self.residual, out, Turn(announced, self.layout, self.device, self.number, self.seed, self.memory)
        )
        assert np.array_equal(delta, before)
        decoded = np.zeros(size)
        for body in bodies:
            frame = self.scheme.read(body, self.layout)
            assert (frame.base_version, frame.number, frame.num_examples) == (self.number + 20, self.number, 32)
            assert frame.update.size == size
            assert (np.diff(frame.update.indices) > 0).all()
            frame.update.add_to(decoded)
        if self.scheme.feedback:
            decay = getattr(self.scheme, "decay", 1.0)
            left = before.astype(np.float64) + self.residual
            scale = np.abs(before) + np.abs(self.residual) + np.abs(decoded)
            assert (np.abs(left - decoded - out.astype(np.float64) / decay) <= 2.0**-22 * scale + 1e-44).all()
        else:
            assert not out.any()
        assert (np.abs(decoded) <= LIMIT).all()
        self.residual, self.number = out, self.number + 1
        return bodies, decoded


def heavy(seed: int, layout: Layout = ODD) -> F32:
    """As deltas are: most of it near zero, a few entries large, some exactly zero."""
    rng = np.random.default_rng(seed)
    delta = (rng.standard_t(3, layout.size) * 0.003).astype(np.float32)
    delta[rng.random(layout.size) < 0.05] = 0
    return delta


@every_scheme
def test_the_law_holds_and_what_is_kept_stays_bounded(scheme: Scheme) -> None:
    """Over many rounds what arrives follows what was trained."""
    sender, trained, arrived, norms = Sender(scheme), np.zeros(ODD.size), np.zeros(ODD.size), []
    for number in range(12):
        delta = heavy(number)
        trained += delta
        arrived += sender.send(delta)[1]
        norms.append(float(np.linalg.norm(sender.residual)))
    if not scheme.feedback:
        assert norms[-1] == 0
        return
    # Independent deltas of one norm: with a decay or without, no residual grows as fast as if nothing were sent.
    assert norms[-1] < 0.98 * np.linalg.norm(trained)
    if getattr(scheme, "decay", 1.0) == 1.0:
        assert np.allclose(trained, arrived + sender.residual, atol=1e-5)


@every_scheme
def test_a_constant_delta_arrives(scheme: Scheme) -> None:
    """Error feedback brings the mean of what is sent nearer to the delta than a single round does."""
    if not scheme.feedback:
        return
    sender, delta, arrived = Sender(scheme), heavy(1), np.zeros(ODD.size)
    errors = []
    for number in range(1, 16):
        arrived += sender.send(delta)[1]
        errors.append(float(np.linalg.norm(arrived / number - delta) / np.linalg.norm(delta)))
    assert errors[-1] < max(0.02, 0.97 * errors[0])


@every_scheme
def test_a_scheme_contracts_or_is_unbiased(scheme: Scheme) -> None:
    delta = heavy(2)
    size = np.linalg.norm(delta)
    if not isinstance(scheme, RandomK):
        decoded = Sender(scheme).send(delta)[1]
        assert np.linalg.norm(delta - decoded) <= size * (1 + 1e-6)
        return
    decoded = np.array([Sender(scheme, seed=seed).send(delta)[1] for seed in range(200)])
    factor = 1.0 if not scheme.feedback else scheme.density
    error = np.linalg.norm(decoded.mean(axis=0) - factor * delta) / (factor * size)
    assert error < 1.3 * np.sqrt(1 / scheme.density / len(decoded))
    if scheme.feedback:  # in the mean over seeds
        assert ((decoded - delta) ** 2).sum(axis=1).mean() <= (1 - 0.8 * scheme.density) * size**2


@every_scheme
def test_bytes_are_the_same_for_a_seed(scheme: Scheme) -> None:
    one, two = (
        [body for number in range(3) for body in sender.send(heavy(number))[0]]
        for sender in (Sender(scheme), Sender(scheme))
    )
    assert one == two
    assert all(isinstance(body, bytes) for body in one)


@every_scheme
@pytest.mark.parametrize("layout", [ODD, ONE], ids=["odd", "one"])
def test_extreme_deltas_arrive_or_stay(scheme: Scheme, layout: Layout) -> None:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal(layout.size).astype(np.float32)
    single = np.zeros(layout.size, np.float32)
    single[layout.size // 2] = -0.25
    for delta in (np.zeros_like(single), single, normal * np.float32(1e-30), normal * np.float32(1e6)):
        sender = Sender(scheme, layout)
        _, decoded = sender.send(delta)
        assert np.isfinite(sender.residual).all()
        if not delta.any():
            assert not decoded.any()
        sender.send(np.zeros_like(delta))


@every_scheme
def test_damaged_messages_are_refused(scheme: Scheme) -> None:
    bodies, _ = Sender(scheme).send(heavy(7))
    for body in bodies[:2]:
        for damaged in (*(body[:size] for size in range(0, len(body), max(1, len(body) // 12))), body + b"\0"):
            with pytest.raises(WireError):
                scheme.read(damaged, ODD)
        flipped = bytearray(body)
        flipped[len(body) // 2] ^= 8
        with pytest.raises(WireError):
            scheme.read(bytes(flipped), ODD)


@pytest.mark.parametrize("scheme", [each for each in SCHEMES.values() if isinstance(each, RandomK)], ids=str)
def test_devices_share_a_seed(scheme: RandomK) -> None:
    def positions(device: str, seed: int) -> list[int]:
        (body,), _ = Sender(scheme, device=device, seed=seed).send(heavy(len(device)))
        found: list[int] = scheme.read(body, ODD).update.indices.tolist()
        return found

    assert positions("a", 1) == positions("bcd", 1) != positions("a", 2)
