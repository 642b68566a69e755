"""A round's update as frames within a budget of bytes."""

import numpy as np
import pytest

from edgeclient.compress.feedback import Compressed, compress, fewer
from edgeclient.compress.pace import Limits, Pace, target
from edgeclient.compress.quantise import Quantiser
from edgeclient.wire import frame
from edgeclient.wire.frame import pack as module
from edgeclient.wire.frame.pack import pack

N = 100_000
ORIGIN = frame.Origin("t", "d", bytes(4), 0, 0, 1)


@pytest.mark.parametrize("budget", [150, 700, 3000])
@pytest.mark.parametrize("mode", ["step", "float32"])
def test_frames_keep_to_the_budget_whatever_was_expected(
    budget: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    delta = rng.standard_normal(N).astype(np.float32)
    pace = Pace(bits_per_entry=1.0)  # much too hopeful
    quantiser = Quantiser(16.0, mode)  # type: ignore[arg-type]
    aim = target(N, 0.1, pace, Limits(budget_bytes=budget))
    made = compress(delta, np.zeros(N, np.float32), aim.most, quantiser=quantiser)
    tries = 0

    def counted(made: Compressed, k: int, quantiser: Quantiser | None) -> Compressed:
        nonlocal tries
        tries += 1
        return fewer(made, k, quantiser)

    monkeypatch.setattr(module, "fewer", counted)
    packed = pack(made, ORIGIN, frame.Coding(), quantiser, budget)
    assert 0.7 * budget < packed.frame_bytes <= budget
    assert tries <= 3
    sent = [frame.decode(each).update for layer in packed.layers for each in layer]
    assert sum(each.indices.size for each in sent) == packed.entries > 0
    total = packed.compressed.residual.copy()
    for each in sent:
        each.add_to(total)
    assert np.allclose(total, delta, rtol=2**-22, atol=0)


def test_without_a_budget_everything_goes() -> None:
    delta = np.random.default_rng(3).standard_normal(N).astype(np.float32)
    made = compress(delta, np.zeros(N, np.float32), 20_000, quantiser=Quantiser(16.0, "float32"))
    packed = pack(made, ORIGIN, frame.Coding(4096))
    assert packed.layers == frame.encode_layers(made.update, ORIGIN, frame.Coding(4096))
    assert (packed.entries, packed.compressed, len(packed.layers)) == (20_000, made, 2)


def test_nothing_makes_no_frames() -> None:
    packed = pack(compress(np.zeros(9, np.float32), np.zeros(9, np.float32), 3), ORIGIN, frame.Coding(), None, 10)
    assert (packed.layers, packed.entries, packed.frame_bytes) == ([], 0, 0)
