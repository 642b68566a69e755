"""Absolute values in frames: in the first one, within its room, and none where that is too small."""

import numpy as np
import pytest

from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress
from edgeclient.compress.quantise import Quantiser
from edgeclient.wire import frame
from edgeclient.wire.frame.absolute import SMALL_BYTES
from edgeclient.wire.frame.pack import pack

N = 50_000
ORIGIN = frame.Origin("t", "pi-7", bytes(4), 6, 0, 1)


def frames(k: int, absolute: F32, max_bytes: int = 65_536, budget: int = 0) -> list[list[frame.Frame]]:
    delta = np.random.default_rng(k).standard_normal(N).astype(np.float32)
    made = compress(delta, np.zeros(N, np.float32), k, quantiser=(quantiser := Quantiser(16.0, bounds=(0, 999, N))))
    packed = pack(made, ORIGIN, frame.Coding(max_bytes), quantiser, budget, absolute)
    assert all(len(body) <= max_bytes for layer in packed.layers for body in layer)
    assert not budget or packed.frame_bytes <= budget
    total = packed.residual.copy()
    found = [[frame.decode(body) for body in layer] for layer in packed.layers]
    for layer in found:
        for each in layer:
            each.update.add_to(total)
    assert np.allclose(total, delta, rtol=2**-22, atol=0)  # the law knows nothing of absolute values
    return found


@pytest.mark.parametrize(
    ("k", "a", "max_bytes", "carried"),
    [
        (30, 5, 65_536, 5),
        (30, 192, 65_536, 32),  # the least
        (3000, 192, 65_536, 62),  # a twentieth of 2.5 kB
        (3000, 9600, 65_536, 62),
        (3000, 9600, 1024, 32),
        (3000, 9600, 256, 32),
    ],
)
def test_a_slice_in_the_first_frame(k: int, a: int, max_bytes: int, carried: int) -> None:
    values = np.linspace(0, 5, a, dtype=np.float32)
    (first, *others), *rest = frames(k, values, max_bytes)
    assert first.absolute is not None
    assert first.absolute.values.size == pytest.approx(carried, rel=0.1)
    assert np.allclose(first.absolute.values, values[first.absolute.places(a)], rtol=2**-8)
    assert all(
        each.absolute is None for layer in ([others], *[[each] for each in rest]) for part in layer for each in part
    )
    assert (first.part, first.number) == (0, 6)


def test_without_room_entries_come_first() -> None:
    values = np.ones(192, np.float32)
    for max_bytes, budget in [(SMALL_BYTES - 1, 0), (65_536, SMALL_BYTES - 1)]:
        layers = frames(40, values, max_bytes, budget)
        assert all(each.absolute is None for layer in layers for each in layer)
    ((only,),) = frames(400, values, 65_536, SMALL_BYTES)
    assert only.absolute is not None
    assert only.update.indices.size > 8


def test_an_update_without_entries_or_a_model_without_absolute_values() -> None:
    zeros = compress(np.zeros(N, np.float32), np.zeros(N, np.float32), 9)
    assert pack(zeros, ORIGIN, frame.Coding(), absolute=np.ones(3, np.float32)).layers == []
    ((only,),) = frames(40, np.empty(0, np.float32))
    assert only.absolute is None
