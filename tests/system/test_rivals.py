"""Who serves a task is one aggregator: strangers, copies, older selves, forged announcements beside a fleet at work."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import fleet
import forked
import numpy as np
import pytest
from forked import Forked

from broker.ledger.opening import open_ledger
from broker.processes import children
from broker.settings import Aggregator, Task
from broker.task import new
from broker.upkeep import accounts, examine
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Mqtt
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement, Policy
from tools.chaos import brokers

SETTINGS = Task(goal=1, min_interval_s=0.2, keep_frames_of_versions=-1, policy=Policy(max_staleness=1000))
STRANGER = "ab" * 8


class Field:
    """An aggregator, and a device that learns with it."""

    def __init__(self, folder: Path, endpoint: Endpoint, task: str) -> None:
        self.folder, self.endpoint, self.task = folder, endpoint, task
        self.config = fleet.write_device(folder, endpoint, "a", task)
        self.made = Aggregator(directory=folder / "data", mqtt=Mqtt(port=endpoint.port))
        self.aggregator = fleet.start_aggregator(folder, endpoint, task, SETTINGS)
        self.device = fleet.start_device(self.config)
        self.goes_on()

    def close(self) -> None:
        children.end(self.device)
        children.end(self.aggregator)
        for log in (self.folder / "a.log", self.folder / "d.log"):
            assert "Traceback" not in log.read_text()

    def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        until_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until_s, self.said("a.log")[-2000:] + self.said("d.log")[-2000:]
            time.sleep(0.05)

    def said(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def status(self) -> dict[str, object]:
        with suppress(FileNotFoundError, ValueError):
            return dict(json.loads(self.said("state/status.json")))
        return {"applied": 0, "renewals": 0}

    def goes_on(self, more: int = 2) -> None:
        """The device learns, and its updates are counted."""
        applied = int(str(self.status["applied"]))
        self.until(lambda: int(str(self.status["applied"])) >= applied + more)

    def serve(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Another aggregator, which is to end by itself; its directory is NAME."""
        path = self.folder / f"{name}.toml"
        path.write_text(f'directory = "{name}"\n[mqtt]\nport = {self.endpoint.port}\n{fleet.NO_PAGE}')
        command = ["broker.cli", "serve", str(path)]
        return forked.run(command)

    def account(self, made: Aggregator) -> accounts.Account:
        """By the auditor, with the device at rest; nothing is counted twice, and every version can be made again."""
        children.end(self.device)
        with open_ledger(made.ledger, read_only=True) as ledger:
            found = accounts.examine(ledger, self.task, "a", self.config)
            assert {name: doubled for name, (_, _, doubled) in ledger.frame_counts(self.task).items()} == {"a": 0}
        assert examine.examine(made)[0] == []
        self.device = fleet.start_device(self.config)
        return found


@pytest.fixture(scope="module", params=["nats", "mosquitto"])
def served(
    request: pytest.FixtureRequest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    if request.param == "nats":
        yield endpoint
        return
    if brokers.mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    mosquitto = brokers.Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    mosquitto.start()
    yield Endpoint("127.0.0.1", mosquitto.port)
    mosquitto.stop()


@pytest.fixture(scope="module")
def field(served: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    made = Field(tmp_path_factory.mktemp("field"), served, f"rivals-{served.port}")
    yield made
    made.close()


def one_line(done: "subprocess.CompletedProcess[str]", pattern: str) -> None:
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if "task rivals" in each]
    assert re.search(pattern, line), line


@pytest.mark.case("fleet 01")
def test_an_aggregator_with_another_ledger_does_not_serve(field: Field) -> None:
    stranger = Aggregator(directory=field.folder / "stranger", mqtt=Mqtt(port=field.endpoint.port))
    new.add_task(stranger, field.task, fleet.BUNDLE, SETTINGS)
    one_line(field.serve("stranger"), f"is served from another ledger, {fleet.LEDGER}, so it is not served here; stop")
    with open_ledger(stranger.ledger, read_only=True) as ledger:
        assert [version.number for version in ledger.versions(field.task)] == [0]
        assert ledger.frame_counts(field.task) == {}
        theirs = ledger.identity().ledger
    field.goes_on()
    (line,) = [each for each in field.said("a.log").splitlines() if theirs in each]
    assert "asked to serve it: it was told that this one does" in line
    found = field.account(field.made)
    assert (found.lost, found.law_holds, found.renewals) == (0, True, 0)


def test_a_copy_beside_the_original_does_not_serve(field: Field) -> None:
    shutil.copytree(field.made.directory, field.folder / "copy", ignore=shutil.ignore_patterns("*.lock"))
    one_line(field.serve("copy"), "is served by another start on a copy of this ledger, which is alive: it is not")
    field.goes_on()
    (line,) = [each for each in field.said("a.log").splitlines() if "an aggregator on a copy of this ledger" in each]
    assert "asked to serve it: it was told that this one does" in line
    found = field.account(field.made)
    assert (found.lost, found.law_holds, found.renewals) == (0, True, 0)


def test_a_forged_announcement_stops_nobody_and_leads_nobody_away(field: Field) -> None:
    """It claims a succession, is retained, and says a version that would win."""
    field.goes_on()
    with fleet.hand(field.endpoint, topics.head(field.task)) as link:

        def heard(wanted: str) -> Announcement:
            accept = lambda message: announcement.decode(message.payload).ledger == wanted  # noqa: E731
            return announcement.decode(fleet.await_message(link, accept).payload)

        true = heard(fleet.LEDGER)
        forged = fleet.announcement(
            field.task, true.version + 900, np.zeros(fleet.LAYOUT.size, np.float32),
            ledger=STRANGER, term=9, succeeds=(fleet.LEDGER,),
        )  # fmt: skip
        link.publish(topics.head(field.task), announcement.encode(forged), retain=True)
        heard(STRANGER)
        heard(fleet.LEDGER)  # again, and retained
    field.until(lambda: f"another aggregator, with ledger {STRANGER}, announces task" in field.said("d.log"))
    field.goes_on(3)
    assert field.status["ledger"] == fleet.LEDGER
    assert field.aggregator.poll() is None
    assert len([line for line in field.said("a.log").splitlines() if f"{STRANGER}, announces it" in line]) == 1
    found = field.account(field.made)
    assert (found.lost, found.law_holds, found.renewals) == (0, True, 0)


def test_an_older_self_that_was_put_back_goes_on(served: Endpoint, tmp_path: Path) -> None:
    """It has another place, so it asks; its later self does not answer."""
    with ExitStack() as stack:
        field = Field(tmp_path, served, f"older-{served.port}")
        stack.callback(field.close)
        children.end(field.aggregator)
        shutil.copytree(field.made.directory, tmp_path / "yesterday", ignore=shutil.ignore_patterns("*.lock"))
        field.aggregator = fleet.serve(tmp_path)
        field.goes_on()
        field.aggregator.kill()
        field.aggregator.wait()
        shutil.rmtree(field.made.directory)
        (tmp_path / "yesterday").rename(field.made.directory)
        field.aggregator = fleet.serve(tmp_path)
        field.goes_on()
        assert field.said("a.log").count("an older ledger was put back") == 1
        with open_ledger(field.made.ledger, read_only=True) as ledger:
            assert {doubled for _, _, doubled in ledger.frame_counts(field.task).values()} == {0}
        assert field.status["renewals"] == 0


def test_a_task_that_is_renamed_in_the_configuration_has_a_store_of_its_own(field: Field) -> None:
    """Its next sequence is far above what the other task knows: that is no older ledger."""
    other = f"{field.task}-renamed"
    new.add_task(field.made, other, fleet.BUNDLE, SETTINGS)
    text, epochs = field.config.read_text(), []
    for task in (field.task, other, field.task):
        children.end(field.device)
        field.config.write_text(text.replace(f'task = "{field.task}"', f'task = "{task}"'))
        field.device = fleet.start_device(field.config)
        field.until(lambda: field.status.get("doing") != "stopped")
        field.goes_on()
        audit = [
            "edgeclient.cli",
            "audit",
            str(field.config),
            "--out",
            str(field.folder / "x.npz"),
        ]
        children.end(field.device)
        done = forked.run([*audit, "--json"])
        assert done.returncode == 0, done.stderr
        epochs.append(json.loads(done.stdout)["epoch"])
    field.device = fleet.start_device(field.config)
    assert epochs[0] == epochs[2] != epochs[1]
    with open_ledger(field.made.ledger, read_only=True) as ledger:
        assert 0 < ledger.versions(other, last=1)[0].number < 1000
        assert ledger.versions(field.task, last=1)[0].number < 1000
        assert ledger.lost_to_restore(other) == ledger.lost_to_restore(field.task) == {}


def test_another_ledger_takes_over_when_it_is_told_to(served: Endpoint, tmp_path: Path) -> None:
    with ExitStack() as stack:
        field = Field(tmp_path, served, f"rivals-over-{served.port}")
        stack.callback(field.close)
        other = Aggregator(directory=tmp_path / "other", mqtt=Mqtt(port=served.port))
        new.add_task(other, field.task, fleet.BUNDLE, SETTINGS)
        command = ["broker.cli", "takeover", field.task, "--config", str(tmp_path / "other.toml")]
        one_line(field.serve("other"), "stop that aggregator first, then edgebroker takeover")
        assert forked.run(command).returncode == 0
        one_line(field.serve("other"), "is served from another ledger")  # it lives, whoever has succeeded it
        field.goes_on()
        children.end(field.aggregator)
        command_ = ["broker.cli", "serve", str(tmp_path / "other.toml")]
        field.aggregator = Forked(command_, log=tmp_path / "a.log")
        field.until(lambda: "goes on with ledger" in field.said("d.log"))
        field.goes_on()
        found = field.account(other)
        assert (found.lost, found.law_holds, found.renewals) == (0, True, 1)
        one_line(field.serve("data"), "is served from another ledger")
        children.end(field.aggregator)
        one_line(field.serve("data"), "which does not answer now: it is not served here; if that one is gone for good")
        field.aggregator = Forked(command_, log=tmp_path / "a.log")


def test_nothing_is_taken_over_without_reason(tmp_path: Path) -> None:
    made = Aggregator(directory=tmp_path / "data", mqtt=Mqtt())
    (tmp_path / "b.toml").write_text('directory = "data"\n[mqtt]\n')

    def takeover(*more: str) -> "subprocess.CompletedProcess[str]":
        command = ["broker.cli", "takeover", *more, "--config", str(tmp_path / "b.toml")]
        return forked.run(command)

    assert "does not exist: add a task first" in takeover("t").stderr
    new.add_task(made, "t", fleet.BUNDLE, SETTINGS)
    for given, said in ((["u"], "there is no task u here"), (["t"], "no other ledger was met for task t")):
        done = takeover(*given)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert said in done.stderr
    assert f"succeeds {STRANGER}" in takeover("t", "--ledger", STRANGER).stdout
