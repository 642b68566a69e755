"""Tasks are added, changed and removed while `edgebroker serve` runs, which takes that up by itself."""

import json
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import fleet
import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import edgebroker

from broker.cli import cli
from broker.demo import data
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import LedgerError
from broker.settings import Aggregator, Task
from broker.upkeep.examine import examine
from edgeclient.bundle import archive
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.settings import ConfigError, Mqtt
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement

EPOCH = 77
CLASSIFIER = (resources.files("edgeclient.commands.new") / "classifier/model.bundle").read_bytes()
FIRST, SECOND = "in-service", "in-service-2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Iterator[Path]:
    """An aggregator that runs, with one task whose batch does not close by itself."""
    made = tmp_path_factory.mktemp("service")
    (made / "har.bundle").write_bytes(fleet.BUNDLE)
    with fleet.aggregator(made, endpoint, FIRST, Task(goal=100, deadline_s=1e6, min_interval_s=0)):
        yield made


@pytest.fixture(scope="module")
def link(folder: Path, endpoint: Endpoint) -> Iterator[Link]:
    heard = [topics.head(FIRST), topics.head(SECOND), *(topics.everyone(task, "down") for task in (FIRST, SECOND))]
    with fleet.hand(endpoint, *heard) as made:
        yield made


def told(folder: Path, *words: str | Path) -> str:
    """What `edgebroker task` says; in this process, since each command would take most of a second to start."""
    done = CliRunner().invoke(cli, ["task", *map(str, words), "--config", str(folder / "a.toml")])
    if done.exception is not None:
        raise done.exception
    return done.output


def wrong(folder: Path, *words: str | Path) -> str:
    with pytest.raises((ConfigError, LedgerError)) as caught:
        told(folder, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def head(link: Link, task: str, accept: Callable[[Announcement], bool] = lambda _: True) -> Announcement:
    found = fleet.await_message(
        link, lambda said: said.topic == topics.head(task) and accept(announcement.decode(said.payload))
    )
    return announcement.decode(found.payload)


def send(link: Link, task: str, device: str, base_version: int = 0, sequence: int = 0) -> None:
    body = fleet.make_frame(task, device, epoch=EPOCH, sequence=sequence, base_version=base_version, seed=sequence)
    link.publish(topics.up(task, device), body)
    fleet.await_message(link, lambda said: said.topic == topics.down(task, device))


def aggregator(folder: Path) -> Aggregator:
    return Aggregator(folder / "data", mqtt=Mqtt())


@pytest.mark.case("fleet 48")
def test_settings_of_a_task_change_under_an_open_batch(folder: Path, link: Link) -> None:
    assert head(link, FIRST).policy.max_staleness == 20
    for device in ("a", "b"):
        send(link, FIRST, device)
    said = json.loads(told(folder, "set", FIRST, "learning_rate=0.5", "policy.learning_rate=0.125", "--json"))
    assert said["changed"] == {
        "learning_rate": {"before": 1.0, "after": 0.5},
        "policy.learning_rate": {"before": 0.02, "after": 0.125},
    }
    again = head(link, FIRST, lambda found: found.policy.learning_rate == 0.125)
    assert again.version == 0  # the same version, trained otherwise
    assert f"task {FIRST}: goal 100 → 2\n" in told(folder, "set", FIRST, "goal=2")
    head(link, FIRST, lambda found: found.version == 1)  # the open batch is full now
    told(folder, "set", FIRST, "learning_rate=")
    for device in ("a", "b"):
        send(link, FIRST, device, base_version=1, sequence=1)
    head(link, FIRST, lambda found: found.version == 2)
    with open_ledger(aggregator(folder).ledger, read_only=True) as ledger:
        rates = [version.terms["learning_rate"] for version in ledger.versions(FIRST)[1:]]
        assert rates in ([0.5, 1.0], [0.5, 0.5])  # recorded as it was when the batch closed
    assert examine(aggregator(folder)) == ([], 2)  # made again by its record, whatever the settings are


@pytest.mark.case("fleet 48")
def test_a_task_is_added_removed_and_added_again(folder: Path, link: Link, endpoint: Endpoint) -> None:
    told(folder, "add", SECOND, folder / "har.bundle")
    begun = head(link, SECOND)
    assert begun.version == 0
    send(link, SECOND, "a")
    assert head(link, SECOND, lambda found: found.version == 1).version == 1  # goal = "auto": it is alone
    assert f"{SECOND}  version 1  not evaluated; 0 updates there, the next version takes 1" in told(folder, "list")
    told(folder, "remove", SECOND, "--yes")
    fleet.await_message(link, lambda said: (said.topic, said.payload) == (topics.head(SECOND), b""))
    until_s = time.monotonic() + 20
    while "is being removed" in told(folder, "list"):
        assert time.monotonic() < until_s
    with fleet.hand(endpoint, topics.blob(SECOND, begun.parameters.digest, 0)) as other:
        assert not [event for event in other.poll(0.5) if getattr(event, "payload", b"")]
    told(folder, "add", SECOND, folder / "har.bundle")
    assert head(link, SECOND).version == 1001  # above what devices have
    body = fleet.make_frame(SECOND, "a", epoch=EPOCH, sequence=0)  # counted before
    link.publish(topics.up(SECOND, "a"), body)
    fleet.await_message(link, lambda said: said.topic == topics.down(SECOND, "a"))
    assert json.loads(told(folder, "list", "--json"))["tasks"][1]["updates_waiting"] == 0
    assert examine(aggregator(folder))[0] == []
    told(folder, "remove", SECOND, "--yes")


@pytest.mark.case("fleet 48")
def test_what_cannot_be_is_one_line_and_changes_nothing(folder: Path, link: Link) -> None:
    np.savez(folder / "wrong.npz", x=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64))
    (folder / "mine.onnx").write_bytes(archive.decode(fleet.BUNDLE).files[archive.EVAL])
    before = json.loads(told(folder, "list", "--json"))["tasks"]
    lines: dict[tuple[str | Path, ...], str] = {
        ("set", FIRST, "gaol=3"): f"task {FIRST}: unknown key gaol: did you mean goal?",
        ("set", FIRST, "policy.densty=1"): "unknown key policy.densty: did you mean policy.density?",
        ("set", FIRST, "goal=0"): "goal is 0, allowed are 1 to 4096",
        ("set", FIRST, "goal.x=0"): "goal has no keys below it",
        ("set", FIRST, "policy=fast"): "policy must be a table",
        ("set", FIRST, "goal"): "write KEY=VALUE",
        ("set", "in-servic", "goal=3"): f"did you mean {FIRST}?",
        ("set", FIRST, f"evaluation={folder}/nothing.npz"): "nothing.npz",
        ("set", FIRST, f"evaluation={folder}/wrong.npz"): "evaluation: ",
        ("set", FIRST, "patience=5"): "patience needs evaluation",
        ("set", FIRST, "evaluation_options.labels=activity"): "evaluation_options need evaluation",
        ("set", FIRST, "evaluation_options=3"): "evaluation_options: 3 is no table",
        ("remove", "nobody", "--yes"): "no task nobody is served here",
        ("add", FIRST, folder / "har.bundle"): "is already there",
        ("add", "x", folder / "mine.onnx"): "mine.onnx: an ONNX model and no bundle yet: edgeclient compile makes one",
        ("add", "x", folder / "wrong.npz"): "wrong.npz: ",
    }
    for words, said in lines.items():
        assert said in wrong(folder, *words)
    assert json.loads(told(folder, "list", "--json"))["tasks"] == before
    done = edgebroker("task", "set", FIRST, "goal=x", "--config", "a.toml", folder=folder)
    assert (done.returncode, done.stderr) == (1, f"edgebroker: task {FIRST}: goal: 'x' is neither int nor \"auto\"\n")


def test_other_evaluation_data_measures_every_version_anew(folder: Path) -> None:
    x, labels = data.held_out_windows()
    for name, some in (("few", slice(50)), ("more", slice(80))):
        np.savez(folder / f"{name}.npz", x=x[some], labels=labels[some])
        assert "version 2: accuracy" in told(folder, "set", FIRST, f"evaluation={folder}/{name}.npz")
        until_s = time.monotonic() + 60
        while set(measured(folder)) != {float(len(labels[some]))}:
            assert time.monotonic() < until_s, measured(folder)
            time.sleep(0.2)
    # With a new task likewise, and its path is from the folder of its settings.
    (folder / "third.toml").write_text('goal = 3\nevaluation = "few.npz"\n')
    said = told(folder, "add", "in-service-3", folder / "har.bundle", "--settings", folder / "third.toml")
    assert "before training: accuracy" in said
    third = json.loads(told(folder, "list", "--json"))["tasks"][-1]
    assert third["settings"]["evaluation"] == str(folder / "few.npz")
    told(folder, "set", FIRST, "evaluation=")
    assert set(measured(folder)) == {None}


def test_evaluation_data_is_read_as_a_device_s(folder: Path) -> None:
    """One row a sample, words as labels, a column that the model does not know."""
    name, words = "in-service-4", ("rest", "walk", "run")
    lines = [f"{at},{at % 7},{at % 5},{at % 3},{words[at // 64 % 3]}" for at in range(320)]
    (folder / "eval.csv").write_text("\n".join(["t,ax,ay,az,activity", *lines]) + "\n")
    (folder / "small.bundle").write_bytes(CLASSIFIER)
    settings = folder / "fourth.toml"
    settings.write_text('evaluation = "eval.csv"\n')
    said = wrong(folder, "add", name, folder / "small.bundle", "--settings", settings)
    assert "([evaluation_options] labels and columns name them)" in said
    with settings.open("a") as file:
        file.write('[evaluation_options]\nlabels = "activity"\ncolumns = ["ax", "ay", "az"]\n')
        file.write('classes = ["rest", "walk", "run"]\nwindow = 32\n')
    assert "before training: accuracy" in told(folder, "add", name, folder / "small.bundle", "--settings", settings)
    await_measured(folder, name, 10.0)
    assert "[evaluation_options] classes has rest, walk" in wrong(
        folder, "set", name, "evaluation_options.classes=rest,walk"
    )
    assert "version 0: accuracy" in told(folder, "set", name, "evaluation_options.stride=16")
    await_measured(folder, name, 19.0)
    assert "set evaluation_options= as well" in wrong(folder, "set", name, "evaluation=")
    told(folder, "set", name, "evaluation=", "evaluation_options=")
    assert measured(folder, name) == [None]


def await_measured(folder: Path, task: str, examples: float) -> None:
    until_s = time.monotonic() + 60
    while measured(folder, task) != [examples]:
        assert time.monotonic() < until_s, measured(folder, task)
        time.sleep(0.2)


def measured(folder: Path, task: str = FIRST) -> list[Any]:
    with open_ledger(aggregator(folder).ledger, read_only=True) as ledger:
        return [version.metrics.get("num_examples") for version in ledger.versions(task)]
