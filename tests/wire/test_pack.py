"""A round's update as frames within a budget of bytes."""

import numpy as np
import pytest

from edgeclient.compress.feedback import Compressed, compress, fewer
from edgeclient.compress.pace import Limits, Pace, target
from edgeclient.compress.quantise import Mode, Quantiser
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


@pytest.mark.parametrize(("mode", "most"), [("float32", 4.02), ("int8", 1.02), ("int4", 0.52), ("sign", 0.14)])
@pytest.mark.parametrize("missing", [0, 3])
def test_all_of_a_vector_costs_its_numbers_and_error_feedback_stays_bounded(
    mode: Mode, most: float, missing: int
) -> None:
    rng = np.random.default_rng(4)
    tensors, residual, quantiser, pace = [(25, 200)], np.zeros(5_000, np.float32), Quantiser(16.0, mode), Pace()
    delta = rng.standard_t(3, residual.size).astype(np.float32) * np.float32(0.003)  # a few entries stand alone
    delta[:missing] = 0
    for _ in range(25):
        aim = target(delta.size, 1.0, pace, warm_up=True)
        packed = pack(compress(delta, residual, aim, quantiser=quantiser), ORIGIN, frame.Coding(tensors=tensors))
        assert 0 <= delta.size - missing - packed.entries < 20  # a residual may have been all of an entry
        assert packed.frame_bytes <= most * delta.size
        pace, residual = packed.pace(pace, aim), packed.residual
    sent = sum(frame.decode(each, tensors).update.indices.size for layer in packed.layers for each in layer)
    assert sent == packed.entries
    kept = float(np.linalg.norm(residual) / np.linalg.norm(delta))
    assert kept <= {"float32": 0, "int8": 0.3, "int4": 1.2, "sign": 12}[mode]


def test_nothing_makes_no_frames() -> None:
    packed = pack(compress(np.zeros(9, np.float32), np.zeros(9, np.float32), 3), ORIGIN, frame.Coding(), None, 10)
    assert (packed.layers, packed.entries, packed.frame_bytes) == ([], 0, 0)
