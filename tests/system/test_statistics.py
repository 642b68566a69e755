"""Batch normalisation in a fleet: running statistics stay in their domain where differences of them do not."""

from pathlib import Path

import fleet
import numpy as np
import pytest

from broker.ledger.opening import open_ledger
from broker.registry.blobs import Blobs
from broker.settings import Task
from broker.upkeep import accounts, examine
from edgeclient.bundle import archive
from edgeclient.link.mqtt import Endpoint, Message
from edgeclient.wire import announcement, frame, messages, topics
from tools.bench.statistics import BUNDLE, World, run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.open(tmp_path_factory.mktemp("world"))


def test_late_and_sparse_updates_keep_running_statistics_in_their_domain(world: World) -> None:
    """The short form of `python -m tools.bench statistics`."""
    made = run(world, "absolute", 5, 0)
    assert made["outside"] == 0
    assert made["best"] > 0.15


def test_differences_of_them_leave_it_within_a_few_versions(world: World) -> None:
    assert run(world, "differences", 4, 0)["outside"] > 0


def test_a_device_shares_its_running_statistics_outside_its_account(tmp_path: Path, endpoint: Endpoint) -> None:
    """Real processes: slices of them reach the model, the law of the account knows nothing of them."""
    task, bundle = "norm", BUNDLE.read_bytes()
    opened = archive.decode(bundle)
    layout = opened.manifest.layout
    settings = Task(goal=1, min_interval_s=0.0, keep_frames_of_versions=-1)
    wanted = topics.head(task), topics.everyone(task, "up")
    carried: list[int] = []
    with (
        fleet.aggregator(tmp_path, endpoint, task, settings, bundle) as made,
        fleet.hand(endpoint, *wanted) as link,
        fleet.device(tmp_path, endpoint, "pi", task),
    ):

        def third(message: Message) -> bool:
            if message.topic == topics.head(task):
                return announcement.decode(message.payload).version >= 3
            if messages.kind(message.payload) == messages.FRAME:
                said = frame.decode(message.payload, layout.tensors)
                assert layout.domain.admits(said.absolute, said.update.indices)
                carried.append(0 if said.absolute is None else said.absolute.values.size)
            return False

        fleet.await_message(link, third, 60)
    assert set(carried) == {32}
    with open_ledger(made.ledger, read_only=True) as ledger:
        account = accounts.examine(ledger, task, "pi", tmp_path / "d.toml")
        versions = ledger.versions(task)
    assert (account.law_holds, account.lost) == (True, 0)
    assert account.rounds >= 3
    parameters = Blobs(made.registry).parameters(versions[3].digest)
    assert layout.fault(parameters) == ""
    moved = parameters[layout.domain.places] != opened.parameters[layout.domain.places]
    assert 32 <= np.count_nonzero(moved) <= 96
    found, again = examine.examine(made)
    assert (found, again) == ([], len(versions) - 1)
