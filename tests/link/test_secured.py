"""Our production configurations of Mosquitto and NATS with our link: TLS, passwords, and nobody speaks for another."""

import contextlib
import json
import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import fleet
import links
import pytest
import secured

from broker.service import Service
from broker.settings import Aggregator, Task
from edgeclient.agent import Agent
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, Message
from edgeclient.settings import ConfigError, Device, Mqtt, load
from edgeclient.wire import topics

MISSING = secured.mosquitto_program() is None
BROKERS = [
    pytest.param(
        secured.mosquitto,
        id="mosquitto",
        marks=pytest.mark.skipif(MISSING, reason="mosquitto is not installed: tools/test"),
    ),
    pytest.param(secured.nats, id="nats"),
]
DIGEST = "ab" * 32


@dataclass(frozen=True, slots=True)
class Secured:
    """A running broker and what clients need."""

    folder: Path
    port: int
    authority: secured.Authority

    def mqtt(self, user: str, **other: object) -> Mqtt:
        usual: dict[str, object] = {
            "host": "localhost",
            "port": self.port,
            "tls": True,
            "ca_file": self.authority.file,
            "username": user,
            "password_file": self.folder / f"{user}.password",
        }
        return Mqtt(**(usual | other))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = secured.authority(folder)
    authority.issue("server", names=("localhost",))
    secured.secrets_of(folder)
    start: Callable[[Path], AbstractContextManager[int]] = request.param
    with start(folder) as port:
        yield Secured(folder, port, authority)


def subscribe(link: Link, *filters: str, qos: int = 1) -> None:
    """Returns once the broker has answered: what is published from now on is heard."""
    link.subscribe(*filters, qos=qos)
    until_s = time.monotonic() + 30
    while link._asked:
        assert time.monotonic() < until_s
        time.sleep(0.002)


def why(mqtt: Mqtt) -> str:
    """The reason of the first refusal."""
    with links.started(Endpoint.of(mqtt)) as link:
        return links.expect(link, Disconnected).why


def test_the_protocol_goes_round_over_tls(broker: Secured) -> None:
    with (
        links.connected(Endpoint.of(broker.mqtt("aggregator"))) as aggregator,
        links.connected(Endpoint.of(broker.mqtt("pi-7"))) as device,
    ):
        subscribe(aggregator, topics.everyone("har", "up"), topics.everyone("har", "status"))
        subscribe(device, topics.head("har"), topics.down("har", "pi-7"))
        subscribe(device, topics.blob("har", DIGEST, 3), qos=0)
        for link, other, topic, retain in (
            (device, aggregator, topics.up("har", "pi-7"), False),
            (device, aggregator, topics.status("har", "pi-7"), True),
            (aggregator, device, topics.down("har", "pi-7"), False),
            (aggregator, device, topics.head("har"), True),
            (aggregator, device, topics.blob("har", DIGEST, 3), True),
        ):
            # 64 KiB and a header: the largest message there is.
            payload = os.urandom(65_600)
            link.publish(topic, payload, retain=retain)
            heard = links.expect(other, Message)
            assert (heard.topic, heard.payload) == (topic, payload)
            other.acknowledge(heard)
        sent, received = device.socket_bytes()
        assert sent > 2 * 65_600
        assert received > 3 * 65_600


def test_a_round_of_learning_needs_no_other_rights(broker: Secured, tmp_path: Path) -> None:
    """Aggregator and device, each under its own name: head, blobs, HELLO, frame, receipt, the next version."""
    made = Aggregator(directory=tmp_path / "data", mqtt=broker.mqtt("aggregator"))
    task = f"round-{broker.port}"
    fleet.add_task(made, task, fleet.BUNDLE, Task(goal=1, min_interval_s=0))
    config = fleet.write_device(tmp_path, Endpoint("localhost", broker.port), "pi-7", task)
    device = load(config, Device)
    device.directory.mkdir(exist_ok=True)
    services: queue.SimpleQueue[Service] = queue.SimpleQueue()

    def aggregate() -> None:
        # SQLite's connections stay in the thread that opens them.
        mine = Service(made, Link(Endpoint.of(broker.mqtt("aggregator")), client_id_prefix="aggregator"), _no_evaluator)
        services.put(mine)
        mine.run()

    thread = threading.Thread(target=aggregate)
    thread.start()
    service = services.get(timeout=30)
    try:
        agent = Agent(device, Link(Endpoint.of(broker.mqtt("pi-7")), client_id_prefix="pi-7"))
        agent.start()
        try:
            until_s = time.monotonic() + 60
            while json.loads(_read(device.directory / "status.json")).get("version", 0) < 2:
                agent.turn()
                assert time.monotonic() < until_s
        finally:
            agent.close()
        said = json.loads(_read(device.directory / "status.json"))
        assert said["applied"] >= 2
        assert said["refused"] == 0
    finally:
        service.stop()
        thread.join(30)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else "{}"


def _no_evaluator(command: list[str]) -> "subprocess.Popen[bytes]":
    raise AssertionError(command)


FORBIDDEN = [
    topics.up("har", "pi-8"),
    topics.status("har", "pi-8"),
    topics.down("har", "pi-7"),
    topics.down("har", "pi-8"),
    topics.head("har"),
    topics.blob("har", DIGEST, 0),
    "edge/v1/har/up/pi-7/more",
    "elsewhere",
]


@pytest.mark.parametrize("topic", FORBIDDEN)
def test_a_device_cannot_publish(broker: Secured, topic: str) -> None:
    """Neither on another's topics nor an announcement, retained or not; all who may read the topic listen."""
    with (
        links.connected(Endpoint.of(broker.mqtt("aggregator"))) as aggregator,
        links.connected(Endpoint.of(broker.mqtt("pi-8"))) as other,
        links.connected(Endpoint.of(broker.mqtt("pi-7"))) as device,
    ):
        task = f"t{time.monotonic_ns()}"  # nothing retained by another test
        topic = topic.replace("/har/", f"/{task}/")
        subscribe(aggregator, topics.everyone(task, "up"), topics.everyone(task, "status"))
        subscribe(other, topics.head(task), topics.down(task, "pi-8"), topics.blob(task, DIGEST, 0))
        device.publish(topic, b"forged")
        device.publish(topic, b"forged", retain=True)
        device.publish(topics.up(task, "pi-7"), b"mine")
        # One client's messages keep their order: what was forged would have come first.
        assert links.expect(aggregator, Message).payload == b"mine"
        aggregator.publish(topics.down(task, "pi-8"), b"receipt")
        assert links.expect(other, Message).payload == b"receipt"
    with links.connected(Endpoint.of(broker.mqtt("pi-8"))) as late:
        subscribe(late, topics.head(task), topics.down(task, "pi-8"), topics.blob(task, DIGEST, 0))
        with links.connected(Endpoint.of(broker.mqtt("aggregator"))) as aggregator:
            aggregator.publish(topics.down(task, "pi-8"), b"first")
            assert links.expect(late, Message).payload == b"first"


@pytest.mark.parametrize(
    "filter_",
    ["edge/v1/har/down/pi-8", "edge/v1/+/down/+", "edge/v1/har/up/pi-8", "edge/v1/har/status/+", "#", "$MQTT/sub/#"],
)
def test_a_device_cannot_listen_to_another(broker: Secured, filter_: str) -> None:
    """NATS refuses such a subscription; Mosquitto grants it, and delivers what may be read."""
    with (
        links.connected(Endpoint.of(broker.mqtt("aggregator"))) as aggregator,
        links.connected(Endpoint.of(broker.mqtt("pi-8"))) as other,
        links.connected(Endpoint.of(broker.mqtt("pi-7"))) as device,
    ):
        subscribe(aggregator, topics.everyone("har", "up"))
        subscribe(other, topics.down("har", "pi-8"))
        subscribe(device, filter_)
        other.publish(topics.up("har", "pi-8"), b"private")
        message = links.expect(aggregator, Message)
        assert message.payload == b"private"
        aggregator.acknowledge(message)
        aggregator.publish(topics.down("har", "pi-8"), b"receipt")
        assert links.expect(other, Message).payload == b"receipt"
        subscribe(device, topics.down("har", "pi-7"))
        aggregator.publish(topics.down("har", "pi-7"), b"to pi-7")
        heard: list[bytes] = []
        until_s = time.monotonic() + 30
        while b"to pi-7" not in heard and time.monotonic() < until_s:
            for event in device.poll(0.5):
                match event:
                    case Message(topic, payload) if "/blob/" not in topic and not topic.endswith("/head"):
                        heard.append(payload)
        assert set(heard) == {b"to pi-7"}


def test_a_wrong_password_is_one_line(broker: Secured) -> None:
    wrong = broker.mqtt("pi-7", password_file=broker.folder / "pi-8.password")
    said = why(wrong)
    assert said == "the broker refuses us: Not authorized: see [mqtt] username and password_file"
    # That line is all: what follows from it, the closed connection, is no news.
    with links.started(Endpoint.of(wrong)) as link:
        assert links.expect(link, Disconnected).why == said
        assert [event.why for event in link.poll(0.3) if isinstance(event, Disconnected) and event.why != said] == []


def test_nobody_comes_without_a_name(broker: Secured) -> None:
    assert "refuses us" in why(broker.mqtt("", password_file=None))
    assert "refuses us" in why(broker.mqtt("pi-9", password_file=broker.folder / "pi-7.password"))


def test_a_stranger_in_the_middle_is_not_spoken_to(broker: Secured) -> None:
    other = secured.authority(broker.folder, "other")
    said = why(broker.mqtt("pi-7", ca_file=other.file))
    assert said.startswith(f"localhost:{broker.port}: the broker's certificate is not trusted (")
    assert said.endswith("): set [mqtt] ca_file to who signed it")
    assert "not trusted" in why(broker.mqtt("pi-7", ca_file=None))
    said = why(broker.mqtt("pi-7", host="127.0.0.1"))
    assert said == (
        f"127.0.0.1:{broker.port}: the broker's certificate is for another name: set [mqtt] host to a name in it"
    )


def test_a_port_that_wants_tls_is_named(broker: Secured) -> None:
    assert "set [mqtt] tls = true" in why(broker.mqtt("pi-7", tls=False, ca_file=None))


def test_an_oversized_message_ends_its_senders_connection_alone(broker: Secured) -> None:
    up = topics.up("har", "pi-7")
    with (
        links.connected(Endpoint.of(broker.mqtt("aggregator"))) as listens,
        links.started(Endpoint.of(broker.mqtt("pi-7"))) as device,
    ):
        links.expect(device, Connected)
        subscribe(listens, up)
        device.publish(up, bytes(900_000))
        links.expect(device, Disconnected)
        assert links.expect(device, Connected) == Connected(2)
        device.publish(up, b"after it")
        message = links.expect(listens, Message)
        assert (message.payload, message.connection) == (b"after it", 1)
        listens.acknowledge(message)


@pytest.mark.skipif(MISSING, reason="mosquitto is not installed: tools/test")
@pytest.mark.parametrize(
    ("begins", "ends", "said"), [(-2, -1, "has expired: renew it"), (1, 2, "is not valid yet: see this device's clock")]
)
def test_the_time_of_a_certificate_counts(tmp_path: Path, begins: int, ends: int, said: str) -> None:
    authority = secured.authority(tmp_path)
    authority.issue("server", names=("localhost",), begins=timedelta(hours=begins), ends=timedelta(hours=ends))
    secured.secrets_of(tmp_path)
    with secured.mosquitto(tmp_path) as port:
        assert said in why(Secured(tmp_path, port, authority).mqtt("pi-7"))


@pytest.mark.skipif(MISSING, reason="mosquitto is not installed: tools/test")
def test_a_device_may_show_a_certificate_of_its_own(tmp_path: Path) -> None:
    authority = secured.authority(tmp_path)
    authority.issue("server", names=("localhost",))
    authority.issue("pi-7", names=("pi-7",))
    secured.secrets_of(tmp_path)
    with secured.mosquitto(tmp_path, more=f"cafile {authority.file}\nrequire_certificate true\n") as port:
        broker = Secured(tmp_path, port, authority)
        with links.connected(
            Endpoint.of(broker.mqtt("pi-7", cert_file=tmp_path / "pi-7.crt", key_file=tmp_path / "pi-7.key"))
        ):
            pass
        assert "it wants a certificate" in why(broker.mqtt("pi-7"))


def test_a_port_without_tls_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)

        def answer() -> None:
            connection = listening.accept()[0]
            with connection, contextlib.suppress(ConnectionError):
                connection.recv(1000)
                connection.sendall(b"not a TLS record")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert "does not speak TLS" in why(Mqtt(port=listening.getsockname()[1], tls=True))
        finally:
            thread.join()


# What is wrong with the files is said before anything connects.


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=f"password_file {path} can be read by every user .*: chmod o= {path}"):
        Endpoint.of(Mqtt(username="pi-7", password_file=path))
    path.chmod(0o640)
    assert Endpoint.of(Mqtt(username="pi-7", password_file=path)).password == "secret"
    authority = secured.authority(tmp_path)
    key = authority.file.with_suffix(".key")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=f"key_file {key} can be read by every user"):
        Endpoint.of(Mqtt(tls=True, cert_file=authority.file, key_file=key))


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe"])
def test_a_password_file_holds_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=rf"\[mqtt\] password_file {path}"):
        Endpoint.of(Mqtt(username="pi-7", password_file=path))


def test_missing_and_broken_files_are_one_line(tmp_path: Path) -> None:
    gone, junk = tmp_path / "gone", tmp_path / "junk"
    junk.write_text("junk")
    junk.chmod(0o600)
    authority = secured.authority(tmp_path)
    for mqtt, said in (
        (Mqtt(username="a", password_file=gone), f"[mqtt] password_file {gone}: No such file or directory"),
        (Mqtt(tls=True, ca_file=gone), f"[mqtt] ca_file {gone}: No such file or directory"),
        (Mqtt(tls=True, ca_file=junk), f"[mqtt] ca_file {junk} holds no certificate in PEM form"),
        (Mqtt(tls=True, cert_file=gone, key_file=junk), "key_file"),
        (Mqtt(tls=True, cert_file=authority.file, key_file=junk), "are no pair in PEM form"),
        (Mqtt(tls=True, cert_file=authority.file, key_file=gone), f"[mqtt] key_file {gone}: No such file"),
    ):
        with pytest.raises(ConfigError) as error:
            Endpoint.of(mqtt)
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_a_password_is_in_no_representation(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hush-hush")
    path.chmod(0o600)
    endpoint = Endpoint.of(Mqtt(username="pi-7", password_file=path))
    assert "hush-hush" not in f"{endpoint!r} {endpoint} {Link(endpoint, client_id_prefix='x')!r}"


@pytest.mark.parametrize(
    ("mqtt", "said"),
    [
        ({"cert_file": Path("a")}, "both cert_file and key_file"),
        ({"ca_file": Path("a")}, "certificates need tls = true"),
        ({"password_file": Path("a")}, "password_file needs username"),
    ],
)
def test_settings_that_contradict_each_other(mqtt: dict[str, Path], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mqtt(**mqtt)  # type: ignore[arg-type]


def test_the_usual_ports() -> None:
    assert (Mqtt().port, Mqtt(tls=True).port, Mqtt(tls=True, port=443).port) == (1883, 8883, 443)
