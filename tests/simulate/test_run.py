"""A simulated fleet: the same by seed, late where it should be, and nothing lost on the way."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from broker.settings import Task
from broker.simulate.aggregator import Aggregator
from broker.simulate.device import Device, local_round, returned
from broker.simulate.links import Availability, Links
from broker.simulate.residuals import Residuals
from broker.simulate.run import run
from broker.simulate.scheme import Scheme, Sparse
from broker.simulate.trial import Point, Run, Trial
from broker.simulate.world import Part, World
from edgeclient.compress.arrays import F32
from edgeclient.settings import ConfigError
from edgeclient.wire.announcement import Policy

DEVICES = 6
SETTINGS = Task(goal=3, min_interval_s=0.0, policy=Policy(density=0.05, learning_rate=0.1))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Ten classes that a linear model tells apart, each device has some of them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (10, 128)).astype(np.float32)
    labels = np.arange(40 * DEVICES + 100) % 10
    x = (centres[labels] + rng.normal(0, 1, (labels.size, 128))).astype(np.float32)
    own = np.arange(40 * DEVICES)
    parts = [Part((x, labels), own[(labels[own] % DEVICES) == at]) for at in range(DEVICES)]
    bundle = Path("tools/chaos/task.bundle").read_bytes()
    test = Part((x, labels), np.arange(40 * DEVICES, labels.size))
    return World.open(bundle, tmp_path_factory.mktemp("bundle"), parts, test)


def made(world: World, scheme: Scheme | None = None, **changes: object) -> Run:
    return run(world, replace(Trial(SETTINGS, versions=12), **changes), scheme)  # type: ignore[arg-type]


def test_equal_seeds_give_equal_models_and_others_do_not(world: World) -> None:
    cohorts = [made(world, cohort=3, seed=seed) for seed in (1, 1, 2)]
    assert cohorts[0].digest == cohorts[1].digest != cohorts[2].digest
    assert cohorts[0].points == cohorts[1].points


def test_it_learns_and_says_what_that_cost(world: World) -> None:
    seen: list[Point] = []
    found = run(world, Trial(SETTINGS, versions=25), told=seen.append)
    assert seen == list(found.points)
    assert [each.version for each in seen] == list(range(26))
    assert found.late is not None
    assert found.avg is not None
    assert seen[0].accuracy is not None
    assert min(found.late, found.avg) > seen[0].accuracy + 0.3
    assert 0 < found.cost.uplink_bytes < found.cost.dense_bytes
    assert found.cost.downlink_bytes > 4 * world.manifest.layout.size * DEVICES
    assert 0 < found.cosine < 1
    assert all(later.time_s >= earlier.time_s for earlier, later in pairwise(seen))


def test_dense_updates_keep_the_direction(world: World) -> None:
    dense = made(world, Sparse("dense", "float32", feedback=False, policy={"density": 1.0}))
    assert dense.cosine == pytest.approx(1, abs=1e-6)
    assert dense.cost.reduction < 1.01


def test_a_cohort_that_starts_together_is_never_late_and_one_that_is_refilled_is(world: World) -> None:
    links = Links(1e5, 1e6)
    assert made(world, cohort=3, links=links).staleness == 0
    assert made(world, cohort=5, refill="always", links=links).staleness > 0


def test_slow_links_take_virtual_time(world: World) -> None:
    fast, slow = (made(world, cohort=3, links=Links(bits, bits)).points[-1].time_s for bits in (1e7, 1e4))
    assert slow > 10 * fast


def test_devices_are_waited_for(world: World) -> None:
    day = 86_400.0
    nights = Availability(dict.fromkeys(range(DEVICES), ((0.0, 2.0),)), day)
    found = made(world, cohort=3, availability=nights, links=Links(1e5, 1e5))
    assert found.points[-1].time_s > day / 2


def test_a_fleet_that_has_nothing_left_to_send_is_told(world: World) -> None:
    with pytest.raises(ConfigError, match="version 1 never comes"):
        run(world, Trial(replace_goal(DEVICES + 1), versions=2, cohort=2), Silent())


def replace_goal(goal: int) -> Task:
    return Task(goal=goal, policy=SETTINGS.policy)


class Silent(Sparse):
    """Sends nothing."""

    def send(self, *_: object) -> list[bytes]:
        return []


def test_what_is_refused_is_the_devices_again(world: World) -> None:
    """The law: what was trained is what was counted and what is left, though updates come too late."""
    settings = Task(goal=1, policy=replace(SETTINGS.policy, max_staleness=0))
    server, scheme, size = Aggregator(world, settings, Sparse()), Sparse(), world.manifest.layout.size
    device = Device(0, "d0", world.devices[0], 1e6)
    trained, counted = np.zeros(size), np.zeros(size)
    with Residuals(size) as residuals:
        for late in (False, True, False):
            announced, parameters = server.announcement(settings.policy), server.current.parameters
            update = local_round(world, scheme, residuals, device, announced, parameters, 0)
            trained += update.made.delta
            if late:  # somebody else's version comes first
                other = Device(1, "d1", world.devices[1], 1e6)
                server.take("d1", local_round(world, scheme, residuals, other, announced, parameters, 0).bodies, 0.0)
                server.release(server.close(0.0))
            refused = server.take("d0", update.bodies, 1.0).refused
            assert bool(refused) == late
            if refused:
                returned(residuals, device, refused)
            else:
                for body in update.bodies:
                    scheme.read(body, world.manifest.layout).update.add_to(counted)
        left: F32 = residuals.read(0)
    assert server.refused == {"stale": 1}
    np.testing.assert_allclose(trained, counted + left, atol=1e-6)
