"""How many entries an update keeps: budgets, a steady threshold, warm-up, slow boards, little memory."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclient.compress.feedback import compress, fewer
from edgeclient.compress.pace import Limits, Pace, Target, chosen, learnt, target
from edgeclient.compress.quantise import Mode, Quantiser
from edgeclient.compress.select import top_k
from edgeclient.train.rounds import micro_batch

N = 100_000


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({}, (1000, 1000, 1000)),
        ({"warm_up": True}, (4000, 4000, 4000)),
        ({"warm_up": True, "max_density": 0.02}, (2000, 2000, 2000)),
        ({"share": 0.5}, (500, 500, 500)),
        ({"share": 0.01}, (250, 250, 250)),
        ({"budget_bytes": 596, "pace": Pace(8.0)}, (548, 548, 548)),
        ({"budget_bytes": 596}, (337, 337, 337)),  # 13 bits before anything was measured
        ({"budget_bytes": 10}, (1, 1, 1)),
        ({"free_bytes": 16_000}, (100, 100, 100)),
        ({"steady": True}, (1000, 1000, 1000)),  # no threshold yet
        ({"steady": True, "pace": Pace(8.0, 0.5)}, (1000, 250, 4000)),
        ({"steady": True, "pace": Pace(8.0, 0.5), "budget_bytes": 2096}, (1000, 250, 2048)),
        ({"steady": True, "pace": Pace(8.0, 0.5), "max_density": 0.005}, (500, 125, 500)),
    ],
)
def test_targets(given_: dict[str, object], wanted: tuple[int, int, int]) -> None:
    of_limits = {key: value for key, value in given_.items() if key in Limits.__slots__}
    rest = {key: value for key, value in given_.items() if key not in Limits.__slots__}
    made = target(N, 0.01, **{"pace": Pace(), "limits": Limits(**of_limits), **rest})  # type: ignore[arg-type]
    assert (made.entries, made.least, made.most) == wanted


LIMITS = st.builds(
    Limits,
    max_density=st.floats(1e-9, 1),
    budget_bytes=st.integers(0, 1 << 40),
    share=st.floats(0, 1),
    free_bytes=st.none() | st.integers(0, 1 << 40),
)
PACES = st.builds(Pace, st.floats(0, 100), st.floats(0, 1e38))


@given(st.integers(1, 1 << 40), st.floats(1e-9, 1), PACES, LIMITS, st.booleans(), st.booleans())
def test_a_target_is_never_empty_and_within_every_limit(
    n: int, density: float, pace: Pace, limits: Limits, steady: bool, warm_up: bool
) -> None:
    made = target(n, density, pace, limits, steady=steady, warm_up=warm_up)
    assert 1 <= made.least <= made.entries <= made.most <= n
    assert made.most <= max(1, n * limits.max_density)
    if limits.budget_bytes and pace.bits_per_entry:
        assert made.most == 1 or made.most * pace.bits_per_entry <= 8 * limits.budget_bytes
    if limits.free_bytes is not None:
        assert made.most == 1 or made.most * 100 <= limits.free_bytes


@given(
    values=st.lists(st.floats(0.125, 8, width=32), min_size=1, max_size=60),
    threshold=st.floats(0, 8, width=32),
    bounds=st.lists(st.integers(1, 60), min_size=2, max_size=2),
)
def test_the_threshold_decides_between_its_bounds(values: list[float], threshold: float, bounds: list[int]) -> None:
    numbers = np.array(values, np.float32)
    least, most = min(bounds), len(values)
    kept = chosen(numbers, Target(least, least, most, threshold))
    if not threshold:
        assert kept.tolist() == top_k(numbers, least).tolist()
        return
    above = int((numbers >= np.float32(threshold)).sum())
    assert kept.size == max(above, min(least, len(values)))
    assert kept.size == len(values) or numbers[kept].min() >= np.delete(numbers, kept).max()


def test_the_threshold_and_the_cost_follow_what_was_sent() -> None:
    aim = Target(2, 1, 8, 4.0)
    after = learnt(Pace(10.0, 4.0), aim, np.array([9, -6, 5, 1], np.float32), entries=3, frame_bytes=6)
    assert after == Pace(10.0 + 0.3 * 6, 4.0 + 0.2 * 2)
    assert learnt(after, aim, np.array([], np.float32), entries=0, frame_bytes=0) == after


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_a_budget_cuts_off_stays_in_the_residual(mode: Mode) -> None:
    rng = np.random.default_rng(1)
    delta = rng.standard_normal(5000).astype(np.float32)
    residual = rng.standard_normal(5000).astype(np.float32)
    quantiser = Quantiser(16.0, mode)
    whole = compress(delta, residual, 500, quantiser=quantiser)
    less = fewer(whole, 200, quantiser)
    direct = compress(delta, residual, 200, quantiser=quantiser)
    assert less.update.indices.tolist() == direct.update.indices.tolist()
    assert less.update.values.decoded().tobytes() == direct.update.values.decoded().tobytes()
    assert less.residual.tobytes() == direct.residual.tobytes()


def test_less_memory_makes_smaller_micro_batches() -> None:
    assert [micro_batch(64, 1 << 20, free << 20) for free in (1024, 64, 3, 0)] == [64, 32, 1, 1]
    assert micro_batch(64, 1 << 20, None) == 64
