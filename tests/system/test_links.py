"""Both sides on brokers that drop, limit and forget, as real processes: named on each side, and nothing stalls."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import fleet
import mosquittos
import pytest
from command_lines import edgebroker, edgeclient
from forked import Forked
from mosquittos import mosquitto

from broker.processes import children
from broker.processes.address import free_port, why_not
from broker.processes.embedded import EmbeddedBroker
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.commands.doctor import task as doctor
from edgeclient.link.mqtt import Endpoint, Link, Message
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Models
from edgeclient.settings import Device, Mqtt, load
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Policy
from edgeclient.wire.errors import WireError

pytestmark = mosquittos.NEEDED
TASK = "har"


class Side(NamedTuple):
    """A configuration and what it was written into."""

    folder: Path
    mqtt: str

    def aggregator(self, density: float = 0.01) -> "subprocess.Popen[bytes]":
        """`edgebroker serve`, with one task."""
        made = Aggregator(directory=self.folder / "data", mqtt=Mqtt())
        if not made.ledger.exists():
            add_task(made, TASK, fleet.BUNDLE, Task(goal=1, min_interval_s=0.0, policy=Policy(density=density)))
        config = self.folder / "a.toml"
        config.write_text(f'directory = "data"\n[mqtt]\n{self.mqtt}\n{fleet.NO_PAGE}')
        command = ["broker.cli", "serve", str(config)]
        return Forked(command, log=self.folder / "a.log")

    def device(self, more: str = "") -> Path:
        """A device's configuration."""
        config = fleet.write_device(self.folder, Endpoint("127.0.0.1", 1), "pi-7", TASK)
        config.write_text(config.read_text().replace("port = 1\n", f"{self.mqtt}\n") + more)
        return config


def until(condition: Callable[[], bool], log: Path, timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, log.read_text()
        time.sleep(0.05)


@contextmanager
def alive(*processes: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            children.end(process)


def status(folder: Path) -> dict[str, object]:
    path = folder / "state" / "status.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


@pytest.mark.case("fleet 05")
def test_access_rules_that_drop_what_a_device_says(tmp_path: Path) -> None:
    passwords, rules = tmp_path / "passwords", tmp_path / "rules"
    passwords.write_text("aggregator:a\nshared:s\n")
    mosquittos.program("mosquitto_passwd")("-U", passwords)
    rules.write_text(
        "user aggregator\ntopic readwrite #\n"
        "user shared\ntopic read edge/#\ntopic write edge/v1/+/status/+\n"  # not `up`: the user is no device's id
    )
    with mosquitto(tmp_path / "m", f"password_file {passwords}\nacl_file {rules}") as port:
        for name in ("aggregator", "shared"):
            (tmp_path / name).write_text(name[0])
            (tmp_path / name).chmod(0o600)
        asks = Side(tmp_path, f'port = {port}\nusername = "shared"\npassword_file = "shared"')
        serves = Side(tmp_path, f'port = {port}\nusername = "aggregator"\npassword_file = "aggregator"')
        config, up = asks.device(), topics.up(TASK, "pi-7")
        with alive(serves.aggregator(), fleet.start_device(config)):
            likely = f"does edgebroker serve run, and do the broker's access rules let shared write {up}"
            until(lambda: likely in str(status(tmp_path).get("note")), tmp_path / "d.log")
            assert str(status(tmp_path)["note"]).startswith("sent ")
            assert likely in edgeclient("status", str(config)).stdout
            until(lambda: likely in edgebroker("devices", str(tmp_path / "a.toml")).stdout, tmp_path / "a.log")
            log = (tmp_path / "d.log").read_text()
            assert likely in log
            assert "no receipt comes through it: a new connection is tried" in log
            assert log.count("\n") < 12
            answer = {each.topic: each for each in doctor.broker(load(config, Device))}["answer"]
            assert answer.level == "fail"
            assert answer.what == "no receipt answered HELLO; of the HELLO the broker says: Not authorized"


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Endpoint]]:
    """A served task on a shared broker with IPv6 alone, small packets, short queues, a prefix and names of clients."""
    folder = tmp_path_factory.mktemp("little")
    limits = "max_packet_size 4096\nmax_inflight_messages 1\nmax_queued_messages 1"
    with ExitStack() as stack:
        port = stack.enter_context(mosquitto(folder / "m", f"{mosquittos.ANYBODY}\n{limits}", host="::1"))
        side = Side(folder, f'host = "::1"\nport = {port}\nprefix = "site/edge"\nclient_id = "one"')
        stack.enter_context(alive(side.aggregator()))
        yield side, Endpoint("::1", port, prefix="site/edge")


ipv6 = pytest.mark.skipif(bool(why_not("::1", 0)), reason="no IPv6 here")


@ipv6
@pytest.mark.case("fleet 11")
@pytest.mark.case("fleet 14")
@pytest.mark.case("fleet 18")
@pytest.mark.case("fleet 44")
def test_a_broker_that_takes_little_is_enough(little: tuple[Side, Endpoint]) -> None:
    side, endpoint = little
    config = side.device()
    config.write_text(config.read_text().replace('client_id = "one"', 'client_id = "two"'))
    done = edgeclient("once", str(config), "--timeout", "90", "--json")
    assert done.returncode == 0, done.stdout + done.stderr + (side.folder / "a.log").read_text()
    assert json.loads(done.stdout.splitlines()[-1])["applied"] >= 1
    log = (side.folder / "a.log").read_text()
    assert "the broker takes packets of at most 4096 bytes: what is larger is cut to fit" in log
    assert log.count("no connection") <= 3
    found = {each.topic: each for each in doctor.broker(load(config, Device))}
    assert found["broker"].what.startswith(f"[::1]:{endpoint.port} accepts this device")
    assert found["broker limits"].what == "packets of 4096 bytes at most: frames and chunks are cut to fit"
    assert found["answer"].level == "ok"
    broker_log = (side.folder / "m" / "server.log").read_text()
    assert " as one (" in broker_log
    assert " as two (" in broker_log
    assert "'edge/v1" not in broker_log


@ipv6
@pytest.mark.case("fleet 06")
def test_what_somebody_clears_is_published_again(little: tuple[Side, Endpoint]) -> None:
    side, endpoint = little
    with fleet.hand(endpoint, topics.head(TASK)) as link:
        kept = fleet.await_message(link, lambda message: bool(message.payload), 60)
        for _ in range(2):
            link.publish(topics.head(TASK), b"", retain=True)
            fleet.await_message(link, lambda message: not message.payload)
            again = fleet.await_message(link, lambda message: bool(message.payload))
            assert again.payload == kept.payload
    assert "what it had retained on the MQTT broker was cleared: it is published again" in (
        (side.folder / "a.log").read_text()
    )


@pytest.mark.case("fleet 62")
def test_a_limit_that_falls_below_a_frame_that_waits(tmp_path: Path) -> None:
    """It is taken back and its entries go out in smaller ones, though the next version waits for this very update."""
    port = free_port("127.0.0.1")
    side = Side(tmp_path, f"port = {port}")
    config = side.device("[training]\nmax_density = 0.9\n")
    with mosquitto(tmp_path / "m", mosquittos.ANYBODY, port=port):
        with alive(side.aggregator(0.9)), fleet.hand(Endpoint("127.0.0.1", port), topics.head(TASK)) as link:
            fleet.await_message(link, lambda message: bool(message.payload), 60)
        with alive(fleet.start_device(config)):
            until(lambda: status(tmp_path).get("sent", 0) != 0, tmp_path / "d.log")
    small = mosquitto(tmp_path / "m", f"{mosquittos.ANYBODY}\nmax_packet_size 4096", port=port)
    with small, alive(side.aggregator(), fleet.start_device(config)):
        until(lambda: int(str(status(tmp_path).get("applied", 0))) > 0, tmp_path / "d.log", 90)
    log = (tmp_path / "d.log").read_text()
    assert "the broker takes packets of at most 4096 bytes: what is larger is cut to fit" in log
    assert "taking back" in log


def announce(link: Link, task: str) -> None:
    link.publish(topics.head(task), announcement.encode(fleet.announcement(task, 0, fleet.START)), retain=True)


def feed(follower: Follower, link: Link) -> None:
    """What announces, as the agent gives it on."""
    for event in link.poll(0.1):
        if isinstance(event, Message):
            link.acknowledge(event)
            with suppress(WireError):
                follower.announce(announcement.decode(event.payload))


@pytest.mark.case("fleet 39")
def test_a_task_that_nobody_announces_is_said_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeclient.models.absence._PATIENCE_S", 0.2)
    monkeypatch.setattr("edgeclient.models.absence._LOOK_S", 1.0)
    follower = Follower("haar", Models(tmp_path))
    # One that announces nothing else: of many tasks only some are said.
    with EmbeddedBroker(tmp_path / "mqtt") as mqtt, fleet.hand(Endpoint("127.0.0.1", mqtt.port)) as link:
        link.publish(topics.head("hare"), b"no announcement", retain=True)
        announce(link, "har-39")
        follower.connected(link)
        until_s = time.monotonic() + 30
        while not follower.progress:
            assert time.monotonic() < until_s
            feed(follower, link)
            follower.ask(link, lambda *_: True)
        assert follower.progress.startswith("nobody announces task haar here; announced are: ")
        assert "har-39" in follower.progress
        assert follower.progress in caplog.text
        announce(link, "haar")
        while follower.progress:
            assert time.monotonic() < until_s
            feed(follower, link)
