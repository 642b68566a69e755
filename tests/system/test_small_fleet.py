"""A fleet of two with a task that nobody has tuned: versions come, of both and of the one that is left; it ends."""

from pathlib import Path

import fleet
import pytest
from click.testing import CliRunner

from broker.cli import cli
from broker.settings import Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire import announcement, topics


@pytest.mark.case("fleet 48")
def test_one_of_two_goes_on_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "small-fleet"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        fleet.aggregator(tmp_path, endpoint, task, Task(min_interval_s=0.5)),
        fleet.hand(endpoint, topics.head(task)) as link,
    ):

        def version(least: int) -> int:
            found = fleet.await_message(
                link, lambda said: bool(said.payload) and announcement.decode(said.payload).version >= least
            )
            return announcement.decode(found.payload).version

        with fleet.device(tmp_path / "a", endpoint, "small-a", task):
            version(2)  # alone from the beginning
            with fleet.device(tmp_path / "b", endpoint, "small-b", task):
                reached = version(8)
            version(reached + 4)  # and again: none waits for a deadline
            link.subscribe(topics.status(task, "small-a"))
            removed = CliRunner().invoke(cli, ["task", "remove", task, "--yes", "--config", str(tmp_path / "a.toml")])
            assert "is removed" in removed.output
            told = f"nobody announces task {task} here"
            fleet.await_message(link, lambda said: "/status/" in said.topic and told.encode() in said.payload)
