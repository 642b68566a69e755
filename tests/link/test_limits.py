"""Brokers that take less than others: named, and followed; never a connection a second for ever."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import links
import mosquittos
import pytest
from mosquittos import mosquitto

from edgeclient.link import backoff, limits, refusal
from edgeclient.link.backoff import Backoff
from edgeclient.link.limits import Limits, asked
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, Message, Will
from edgeclient.presence.home_assistant import SENSORS
from edgeclient.settings import Mqtt, structure
from edgeclient.uplink.window import FIRST

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes in the field is tried within seconds: the delays are a pure function, tested as such."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)


def said(link: Link, text: str) -> str:
    """Publish again at every connection, as our sides do, until a reason begins so."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        for event in link.poll(0.5, limit=1):
            match event:
                case Connected():
                    link.publish("big/one", bytes(min(20_000, link.room("big/one"))), retain=True)
                case Disconnected(why) if why.startswith(text.split("{", maxsplit=1)[0]):
                    return why
    raise AssertionError(text)


@mosquittos.NEEDED
@pytest.mark.case("fleet 11")
@pytest.mark.case("fleet 62")
def test_a_packet_limit_is_asked_for_and_kept(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true\nmax_packet_size 4096") as port:
        endpoint = Endpoint("127.0.0.1", port)
        assert asked(endpoint, "asks") == limits.Answer(Limits(4096))
        with links.started(endpoint) as link:
            assert said(link, refusal.SHRUNK) == refusal.SHRUNK.format(4096)
            links.wait_for(link, Connected)
            topic = secrets.token_hex(8)
            assert link.room(topic) == 4096 - 9 - len(topic)
            link.subscribe(topic)
            link.publish(topic, bytes(link.room(topic)))
            assert len(links.wait_for(link, Message).payload) == link.room(topic)
            assert link.connected


@mosquittos.NEEDED
@pytest.mark.case("fleet 11")
def test_a_broker_without_retained_messages_is_named(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true\nretain_available false") as port:
        with links.started(Endpoint("127.0.0.1", port)) as link:
            for _ in range(3):  # and stays known, so that attempts grow apart
                assert said(link, refusal.NO_RETAIN) == refusal.NO_RETAIN
                assert link._verdict == refusal.NO_RETAIN
        will = Link(Endpoint("127.0.0.1", port), client_id_prefix="w", will=Will("a/b", b"gone"))
        will.start()  # is hung up at before a CONNACK, for its will
        for _ in range(3):
            assert said(will, refusal.NO_RETAIN) == refusal.NO_RETAIN
            assert will._verdict == refusal.NO_RETAIN
        will.stop()


@mosquittos.NEEDED
@pytest.mark.case("fleet 11")
def test_a_broker_of_qos_0_is_spoken_to_so(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true\nmax_qos 0") as port:
        link = Link(Endpoint("127.0.0.1", port), client_id_prefix="w", will=Will("a/b", b"gone"))
        link.start()
        try:
            assert said(link, refusal.QOS_0) == refusal.QOS_0
            links.wait_for(link, Connected)
            link.subscribe("c")
            link.publish("c", b"there")
            assert links.wait_for(link, Message).payload == b"there"
        finally:
            link.stop()


@contextmanager
def hangs_up(above: int, code: int = 0) -> Iterator[Endpoint]:
    """A broker that speaks MQTT 3.1.1 alone, says nothing of itself, and hangs up at packets of more bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                with listening.accept()[0] as connection:
                    connection.settimeout(20)
                    first = connection.recv(1000)
                    if first == b"stop":
                        return
                    version = first[8] if first[4:8] == b"MQTT" else 3
                    connection.sendall(bytes([0x20, 2, 0, 1 if version == 5 else code]))
                    if version == 5 or code:
                        continue
                    read = 0
                    while read <= above and (more := connection.recv(1 << 16)):
                        read += len(more)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint(*listening.getsockname())
        finally:
            with socket.create_connection(listening.getsockname()) as last:
                last.sendall(b"stop")
            thread.join(20)


@pytest.mark.case("fleet 11")
def test_a_limit_that_nobody_tells_is_found_by_halving() -> None:
    with hangs_up(above=6000) as endpoint, links.started(endpoint) as link:
        assert asked(endpoint, "asks") is None
        first = said(link, refusal.GUESSED)
        assert first == refusal.GUESSED.format(3, 20_000 + 9 + len("big/one"), 10_008)
        said(link, refusal.GUESSED)
        assert link.room("big/one") == 5004 - 9 - len("big/one")
        links.wait_for(link, Connected)
        link.publish("big/one", bytes(link.room("big/one")))
        assert link.poll(0.3) == []
        assert link.connected


@pytest.mark.case("fleet 11")
def test_what_no_limit_of_size_explains_is_said_and_tried_ever_more_rarely() -> None:
    with hangs_up(above=0) as there, links.started(Endpoint("127.0.0.1", there.port, max_packet_bytes=3000)) as link:
        assert "hung up 3 times at a message of 3000 bytes: see its log" in said(link, refusal.OTHER_LIMIT)
        assert "see its log" in link._verdict


@pytest.mark.case("fleet 57")
def test_a_broker_of_mqtt_5_alone_is_named() -> None:
    with hangs_up(above=0, code=1) as endpoint, links.started(endpoint) as link:
        assert links.wait_for(link, Disconnected).why == (
            "the broker refuses us: Unsupported protocol version: it must speak MQTT 3.1.1"
        )


# Delays


@pytest.mark.case("fleet 03")
def test_delays_grow_whatever_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 1.0)
    for drawn in (0.0, 1.0):
        delays = Backoff(draw=lambda drawn=drawn: drawn)  # type: ignore[misc]
        share = 1 - drawn / 2
        assert [delays.next_s(refused=True) for _ in range(10)] == [
            share * each for each in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)
        ]
        assert delays.next_s(refused=False) == share * 8  # a closed port: somebody restarts the broker
        delays.ended(lasted_s=7.0, arrived_bytes=100, acknowledged=2)  # worth nothing
        assert delays.next_s(refused=False) == share * 8
        delays.ended(lasted_s=7.0, arrived_bytes=20_000)
        assert delays.next_s(refused=False) == share
        delays.ended(lasted_s=2.0)  # twice as long as it was waited for
        assert delays.next_s(refused=False) == share


def test_what_is_said_at_every_connection_makes_none_worth_its_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two clients with one id each throws the other out, right after it has introduced itself."""
    delays = Backoff(draw=lambda: 0.0)
    monkeypatch.setattr(backoff, "FIRST_S", 1.0)
    said = len(SENSORS) + 2 + FIRST  # status, HELLO, and frames whose receipts go to the other
    for expected in (1, 2, 4, 8, 8):
        assert delays.next_s(refused=False) == expected
        delays.ended(lasted_s=0.5, arrived_bytes=2000, acknowledged=said)


@mosquittos.NEEDED
@pytest.mark.case("fleet 03")
@pytest.mark.case("fleet 43")
def test_a_password_that_is_put_right_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the next attempt is due; until then there are few attempts."""
    monkeypatch.setattr(backoff, "FIRST_S", 100.0)
    passwords, own = tmp_path / "passwords", tmp_path / "own"
    passwords.write_text("pi-7:right\n")
    passwd = mosquittos.program("mosquitto_passwd")
    passwd("-U", passwords)
    own.write_text("wrong\n")
    own.chmod(0o600)
    with mosquitto(tmp_path, f"password_file {passwords}") as port:
        mqtt = structure({"port": port, "username": "pi-7", "password_file": str(own)}, Mqtt, where="test")
        with links.started(Endpoint.of(mqtt)) as link:
            refused = "the broker refuses us: Not authorized: see [mqtt] username and password_file"
            assert links.wait_for(link, Disconnected).why == refused
            assert link.why == refused
            own.write_text("right\n")
            assert links.expect(link, Connected) == Connected(1)
            assert link.why == ""


# Keep-alive


@contextmanager
def silent(accepts: int) -> Iterator[tuple[Endpoint, list[bytes]]]:
    """A network that lets connects through and swallows what follows: after so many CONNACKs those, too."""
    said: list[bytes] = []
    open_: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                connection = listening.accept()[0]
                open_.append(connection)
                connection.settimeout(20)
                said.append(connection.recv(1000))
                if said[-1] == b"stop":
                    return
                if len(said) <= accepts:
                    connection.sendall(bytes([0x20, 2, 0, 0]))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("127.0.0.1", listening.getsockname()[1], keepalive_s=3), said
        finally:
            with socket.create_connection(listening.getsockname()) as last:
                last.sendall(b"stop")
            thread.join(20)
            for each in open_:
                each.close()


@pytest.mark.case("fleet 33")
@pytest.mark.case("fleet 34")
def test_a_network_that_vanishes_is_told_for_what_it_is() -> None:
    with silent(accepts=1) as (endpoint, packets), links.started(endpoint) as link:
        links.wait_for(link, Connected)
        begun_s = time.monotonic()
        first = links.expect(link, Disconnected).why
        assert first == "nothing came for 4 s: the network between is gone, or the broker hangs"
        assert time.monotonic() - begun_s < 3 * endpoint.keepalive_s
        second = links.expect(link, Disconnected).why
        assert (
            second == f"{endpoint.where} takes the connection and then says nothing: a bad network, or no MQTT broker"
        )
        assert packets[0][10:12] == bytes([0, 2])  # the keep-alive: brokers wait half as long again


@mosquittos.NEEDED
@pytest.mark.case("fleet 35")
@pytest.mark.case("fleet 65")
def test_who_is_busy_stays_connected(tmp_path: Path) -> None:
    """A round takes longer than the keep-alive: pings come by themselves, and nobody asks the link for events."""
    with mosquitto(tmp_path) as port, links.started(Endpoint("127.0.0.1", port, keepalive_s=2)) as link:
        links.wait_for(link, Connected)
        log = tmp_path / "server.log"
        until_s = time.monotonic() + 30
        while log.read_text().count("Received PINGREQ") < 3 and time.monotonic() < until_s:
            time.sleep(0.1)
        assert link.connected
        assert link.poll(0.0) == []
