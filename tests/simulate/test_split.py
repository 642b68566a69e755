"""Whatever the split, each example has one device, and each device an example."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.simulate.split import Split, deal, halves
from edgeclient.settings import ConfigError

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


@settings(max_examples=30, deadline=None)
@given(
    how=st.sampled_from(["even", "dirichlet=0.05", "dirichlet=0.3", "dirichlet=100", "classes=1", "classes=2"]),
    devices=st.integers(1, 60), count=st.integers(200, 2000), seed=st.integers(0, 100),
)  # fmt: skip
def test_nothing_is_lost_or_dealt_twice(how: str, devices: int, count: int, seed: int) -> None:
    labels = LABELS[:count]
    dealt = deal(Split.of(how), labels, None, devices, np.random.default_rng(seed))
    assert len(dealt) == devices
    assert min(map(len, dealt)) > 0
    assert np.sort(np.concatenate(dealt)).tolist() == list(range(count))
    again = deal(Split.of(how), labels, None, devices, np.random.default_rng(seed))
    assert all((one == other).all() for one, other in zip(dealt, again, strict=True))


@settings(max_examples=30, deadline=None)
@given(groups=st.lists(st.integers(0, 8), min_size=1, max_size=200), fewer=st.integers(0, 8))
def test_a_group_stays_together(groups: list[int], fewer: int) -> None:
    known = len(set(groups))
    devices = max(1, known - fewer)
    array = np.array(groups)
    dealt = deal(Split.of("by=g"), array, array, devices, np.random.default_rng(0))
    assert np.sort(np.concatenate(dealt)).tolist() == list(range(len(groups)))
    owned = [set(array[each].tolist()) for each in dealt]
    assert all(owned)
    assert sum(map(len, owned)) == known


def test_devices_know_few_classes() -> None:
    shards = deal(Split.of("classes=2"), LABELS, None, 20, np.random.default_rng(0))
    assert max(len(set(LABELS[each].tolist())) for each in shards) <= 4  # a shard may lie across two
    shares = [
        np.mean([np.bincount(LABELS[each], minlength=10).max() / len(each) for each in dealt])
        for dealt in (
            deal(Split.of(f"dirichlet={amount}"), LABELS, None, 20, np.random.default_rng(0)) for amount in (0.05, 100)
        )
    ]
    assert shares[0] > 0.5
    assert shares[1] < 0.25


def test_labels_that_are_no_classes() -> None:
    with pytest.raises(ConfigError, match="needs labels that are classes"):
        deal(Split.of("dirichlet=1"), LABELS / 7, None, 4, np.random.default_rng(0))


def test_half_of_one_is_one() -> None:
    rng = np.random.default_rng(0)
    assert [len(halves(np.arange(size), rng)) for size in (1, 2, 9)] == [1, 1, 4]
