"""The link against a real broker, and against a scripted one where the real one would not misbehave."""

import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from links import connected, expect, started, wait_for
from paho.mqtt.enums import MQTTErrorCode

from broker.processes.embedded import EmbeddedBroker
from edgeclient.link import mqtt
from edgeclient.link.mqtt import (
    MAX_UNREAD_BYTES,
    Connected,
    Disconnected,
    Endpoint,
    Link,
    LinkDown,
    Message,
    SubscriptionRefused,
    Will,
)

ACCEPTED = bytes([0x20, 2, 0, 0])
REFUSED = bytes([0x20, 2, 0, 5])


@pytest.fixture
def topic() -> str:
    return f"test/{secrets.token_hex(8)}"


def at(port: int, max_packet_bytes: int = 1_000_000) -> Endpoint:
    return Endpoint("127.0.0.1", port, max_packet_bytes=max_packet_bytes)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


# A scripted broker: the link connects in paho's thread, the test answers.


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        yield listening


def accept(listener: socket.socket, answer: bytes = ACCEPTED) -> socket.socket:
    """The next connection, whose first packet must be CONNECT."""
    connection = listener.accept()[0]
    connection.settimeout(30)
    assert connection.recv(1000)[0] == 0x10
    connection.sendall(answer)
    return connection


def packet(topic: bytes, mid: int, payload: bytes) -> bytes:
    """PUBLISH at QoS 1."""
    body = struct.pack("!H", len(topic)) + topic + struct.pack("!H", mid) + payload
    return bytes([0x32, len(body)]) + body


def read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        more = connection.recv(1000)
        assert more, read
        read += more
    return read


# Messages


def test_messages_go_round_at_qos_1(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(topic)
        for payload in (b"one", b"", bytes(range(256))):
            link.publish(topic, payload)
            message = wait_for(link, Message)
            assert (message.topic, message.payload, message.retained) == (topic, payload, False)
            assert (message.connection, message.qos) == (1, 1)
            link.acknowledge(message)
        wait_until(lambda: link.pending == 0)


def test_qos_0_needs_no_acknowledgement(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(topic, qos=0)
        link.publish(topic, b"x", qos=0)
        message = wait_for(link, Message)
        assert message.qos == 0
        link.acknowledge(message)


def test_what_is_not_acknowledged_comes_again_within_the_connection(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    """The broker's ack_wait is 5 s: manual acknowledgement is on."""
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(topic)
        link.publish(topic, b"x")
        first = wait_for(link, Message)
        again = wait_for(link, Message)
        assert again.payload == first.payload
        link.acknowledge(again)


def test_retained_messages_come_to_who_subscribes_later(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as link:
        link.publish(topic, b"kept", retain=True)
        wait_until(lambda: link.pending == 0)
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(topic)
        message = wait_for(link, Message)
        assert (message.payload, message.retained) == (b"kept", True)


def test_unsubscribed_topics_are_silent(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(f"{topic}/a", f"{topic}/b")
        link.unsubscribe(f"{topic}/a")
        link.subscribe()
        link.unsubscribe()
        link.publish(f"{topic}/a", b"unheard")
        link.publish(f"{topic}/b", b"heard")
        assert wait_for(link, Message).payload == b"heard"


def test_a_refused_subscription_is_told(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    """NATS refuses a filter with a space."""
    with connected(at(mqtt_broker.port)) as link:
        link.subscribe(topic, f"{topic} with space")
        assert wait_for(link, SubscriptionRefused) == SubscriptionRefused((f"{topic} with space",))
        link.publish(topic, b"x")
        assert wait_for(link, Message).payload == b"x"


def test_a_killed_client_leaves_its_will_and_a_stopped_one_does_not(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    program = (
        "import sys, time; from edgeclient.link.mqtt import Connected, Endpoint, Link, Will;"
        "link = Link(Endpoint('127.0.0.1', int(sys.argv[1])), client_id_prefix='w', will=Will(sys.argv[2], b'gone'));"
        "link.start(); print(link.poll(30), flush=True); time.sleep(300)"
    )
    with connected(at(mqtt_broker.port)) as watcher:
        watcher.subscribe(topic)
        polite = Link(
            Endpoint("127.0.0.1", mqtt_broker.port), client_id_prefix="polite", will=Will(topic, b"not to be heard")
        )
        polite.start()
        wait_for(polite, Connected)
        polite.stop()
        command = [sys.executable, "-c", program, str(mqtt_broker.port), topic]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert "Connected" in client.stdout.readline()
            client.kill()
        message = wait_for(watcher, Message)
        assert message.payload == b"gone"
        watcher.acknowledge(message)
    with connected(at(mqtt_broker.port)) as late:
        late.subscribe(topic)
        message = wait_for(late, Message)
        assert (message.payload, message.retained) == (b"gone", True)


# Down and up again


def test_without_a_connection_nothing_is_taken(topic: str) -> None:
    link = Link(Endpoint("127.0.0.1", 1), client_id_prefix="test")
    with pytest.raises(LinkDown):
        link.publish(topic, b"x")
    with pytest.raises(LinkDown):
        link.subscribe(topic)
    with pytest.raises(LinkDown):
        link.unsubscribe(topic)
    assert (link.connected, link.alive, link.pending, link.socket_bytes()) == (False, False, 0, (0, 0))
    link.stop()


@pytest.mark.case("fleet 66")
def test_the_first_connect_is_retried(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with started(at(port)) as link:
        assert link.alive
        assert "nobody listens" in expect(link, Disconnected).why
        with socket.create_server(("127.0.0.1", port)) as late:
            late.settimeout(30)
            with accept(late):
                assert wait_for(link, Connected) == Connected(1)
                assert link.alive


@pytest.mark.case("fleet 66")
def test_a_killed_broker_is_found_again_on_its_port(tmp_path: Path, topic: str) -> None:
    with EmbeddedBroker(tmp_path) as broker, connected(at(broker.port)) as link:
        link.subscribe(topic)
        link.publish(topic, bytes(10_000))
        old = wait_for(link, Message)
        before = link.socket_bytes()
        assert broker.process is not None
        broker.process.kill()
        wait_for(link, Disconnected)
        with pytest.raises(LinkDown):
            link.publish(topic, b"x")
        assert not link.connected
        assert link.alive
        assert all(now >= then for now, then in zip(link.socket_bytes(), before, strict=True))
        broker.start()
        assert wait_for(link, Connected) == Connected(2)
        assert link.pending == 0
        link.acknowledge(old)
        link.subscribe(topic)
        link.publish(topic, b"y")
        new = wait_for(link, Message)
        assert (new.payload, new.connection) == (b"y", 2)
        assert all(now > then for now, then in zip(link.socket_bytes(), before, strict=True))


def test_a_refused_connect_is_told_and_retried(listener: socket.socket) -> None:
    with started(at(listener.getsockname()[1])) as link:
        with accept(listener, REFUSED):
            assert "refuses" in wait_for(link, Disconnected).why
            assert not link.connected
        with accept(listener):
            assert wait_for(link, Connected) == Connected(1)


def test_nothing_of_the_last_connection_is_sent_in_the_next(listener: socket.socket) -> None:
    with started(at(listener.getsockname()[1])) as link:
        with accept(listener) as first:
            wait_for(link, Connected)
            link.publish("a/b", b"once")
            read_until(first, b"once")
            assert link.pending == 1
        with accept(listener) as second:
            assert wait_for(link, Connected) == Connected(2)
            assert link.pending == 0
            link.publish("a/b", b"fresh")
            assert b"once" not in read_until(second, b"fresh")
            second.sendall(bytes([0x40, 2, 0, 2]))
            wait_until(lambda: link.pending == 0)


def test_an_acknowledgement_of_an_earlier_connection_is_never_sent(listener: socket.socket) -> None:
    with started(at(listener.getsockname()[1])) as link:
        with accept(listener) as first:
            first.sendall(packet(b"a/b", 7, b"old"))
            old = wait_for(link, Message)
        wait_for(link, Disconnected)
        link.acknowledge(old)
        # Left there, it could be the first packet of the next connection, before CONNECT.
        assert not link._client._out_packet
        with accept(listener) as second:
            wait_for(link, Connected)
            link.acknowledge(old)
            second.sendall(packet(b"a/b", 8, b"new"))
            link.acknowledge(wait_for(link, Message))
            assert second.recv(100) == bytes([0x40, 2, 0, 8])


def test_stopping_is_bounded_when_the_broker_stalls(tmp_path: Path, topic: str) -> None:
    with EmbeddedBroker(tmp_path) as broker, connected(at(broker.port)) as link:
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        try:
            # The call returns before every thread stands, and one that goes on takes our bytes or hangs up.
            os.waitid(os.P_PID, broker.process.pid, os.WSTOPPED | os.WNOWAIT)
            for _ in range(240):
                link.publish(topic, bytes(225_000))
            begun_s = time.monotonic()
            link.stop()
            assert time.monotonic() - begun_s < 8
            assert not link.alive
        finally:
            broker.process.send_signal(signal.SIGCONT)


def test_stopping_sends_what_was_published_and_can_be_repeated(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as watcher:
        watcher.subscribe(topic)
        link = Link(Endpoint("127.0.0.1", mqtt_broker.port), client_id_prefix="test")
        link.start()
        wait_for(link, Connected)
        for number in range(50):
            link.publish(topic, bytes([number]) * 10_000)
        for _ in range(2):
            link.stop()
            assert not link.connected
            assert not link.alive
        with pytest.raises(LinkDown):
            link.publish(topic, b"x")
        heard: set[int] = set()
        while len(heard) < 50:
            message = wait_for(watcher, Message)
            heard.add(message.payload[0])
            watcher.acknowledge(message)


# Limits, counters, the queue


def test_a_payload_over_the_limit_is_refused(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port, max_packet_bytes=1000)) as link:
        link.subscribe(topic)
        room = link.room(topic)
        assert room == 1000 - 9 - len(topic)
        with pytest.raises(ValueError, match="1001 bytes"):
            link.publish(topic, bytes(room + 1))
        link.publish(topic, bytes(room))
        assert len(wait_for(link, Message).payload) == room


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_socket_bytes_hold_every_payload(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    with connected(at(mqtt_broker.port)) as link:
        sent, received = link.socket_bytes()
        assert sent > 0
        assert received > 0
        link.subscribe(topic)
        link.publish(topic, bytes(200_000))
        assert len(wait_for(link, Message).payload) == 200_000
        wait_until(lambda: link.pending == 0)
        last = link.socket_bytes()
        assert 200_000 <= last[0] - sent < 201_000
        assert 200_000 <= last[1] - received < 201_000
    assert all(now >= then for now, then in zip(link.socket_bytes(), last, strict=True))


def test_bytes_that_are_no_topic_do_not_end_the_thread(listener: socket.socket) -> None:
    with started(at(listener.getsockname()[1])) as link, accept(listener) as connection:
        wait_for(link, Connected)
        connection.sendall(packet(b"\xff\xfe", 1, b"bad") + packet(b"a/b", 2, b"good"))
        assert [wait_for(link, Message).topic for _ in range(2)] == ["", "a/b"]
        assert link.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_noticed_and_replaced(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    """paho says it is connected and takes messages, but nothing comes or goes any more (measured with 2.2.0)."""
    with connected(at(mqtt_broker.port)) as link:
        loop, thread = link._client._loop, link._thread

        def dies(timeout: float) -> MQTTErrorCode:
            link._client._loop = loop  # type: ignore[method-assign]
            raise RuntimeError("a bug in a callback")

        link._client._loop = dies  # type: ignore[assignment,method-assign]
        wait_until(lambda: not link.alive)
        assert not link.connected
        with pytest.raises(LinkDown):
            link.publish(topic, b"lost")
        assert "thread has died" in wait_for(link, Disconnected).why
        assert wait_for(link, Connected) == Connected(2)
        assert link._thread is not thread
        link.subscribe(topic)
        link.publish(topic, b"there again")
        assert wait_for(link, Message).payload == b"there again"


def test_poll_returns_at_most_so_many(listener: socket.socket) -> None:
    with started(at(listener.getsockname()[1])) as link, accept(listener) as connection:
        wait_for(link, Connected)
        connection.sendall(b"".join(packet(b"a/b", mid, b"x") for mid in range(1, 101)))
        wait_until(lambda: link._events.qsize() == 100)
        assert [len(link.poll(1.0)), len(link.poll(1.0, limit=30)), len(link.poll(0.0)), len(link.poll(0.0))] == [
            64,
            30,
            6,
            0,
        ]


@pytest.mark.parametrize("through", ["thread", "signal handler"])
def test_wake_ends_a_waiting_poll(through: str) -> None:
    link = Link(Endpoint("127.0.0.1", 1), client_id_prefix="test")
    previous = signal.signal(signal.SIGUSR1, lambda *_: link.wake())
    wake = link.wake if through == "thread" else lambda: os.kill(os.getpid(), signal.SIGUSR1)
    thread = threading.Thread(target=wake)
    try:
        begun_s = time.monotonic()
        thread.start()
        assert link.poll(60.0) == []
        assert time.monotonic() - begun_s < 30
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)


def test_client_ids_are_random_and_short() -> None:
    ids = [Link(Endpoint("127.0.0.1", 1), client_id_prefix="x" * 100)._client._client_id.decode() for _ in range(2)]
    assert ids[0] != ids[1]
    assert max(map(len, ids)) <= 64


def test_a_flood_at_qos_0_is_dropped_where_nobody_reads(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    """Nothing else bounds it; what is sent at QoS 1 the broker holds back itself, and all of it comes."""
    with connected(at(mqtt_broker.port)) as flood, connected(at(mqtt_broker.port)) as link:
        link.subscribe(f"{topic}/0", qos=0)
        link.subscribe(f"{topic}/1")
        for _ in range(2 * MAX_UNREAD_BYTES // 200_000):
            flood.publish(f"{topic}/0", bytes(200_000))
        flood.publish(f"{topic}/1", b"kept")
        kept = MAX_UNREAD_BYTES // 200_000 + 1
        wait_until(lambda: link._events.qsize() > kept)
        read = [wait_for(link, Message) for _ in range(kept)]
        assert [(each.qos, len(each.payload)) for each in read] == [(0, 200_000)] * kept
        assert wait_for(link, Message).payload == b"kept"
        flood.publish(f"{topic}/0", b"again")
        assert wait_for(link, Message).payload == b"again"


def test_redeliveries_do_not_pile_up_where_nobody_reads(listener: socket.socket) -> None:
    """A broker sends again what is not acknowledged in time; one copy waits, and a read one may come again."""
    with started(at(listener.getsockname()[1])) as link, accept(listener) as connection:
        wait_for(link, Connected)
        connection.sendall(b"".join(packet(b"a/b", mid, b"x") for mid in [1, 2] * 100 + [3]))
        wait_until(lambda: any(mid == 3 for _, mid in link._unread))
        read = [event for event in link.poll(1.0) if isinstance(event, Message)]
        assert [message.mid for message in read] == [1, 2, 3]
        connection.sendall(packet(b"a/b", 1, b"x"))
        assert wait_for(link, Message).mid == 1
        link.acknowledge(read[1])
        assert read_until(connection, bytes([0x40, 2, 0, 2]))
        connection.sendall(packet(b"a/b", 2, b"another message"))
        assert wait_for(link, Message).payload == b"another message"
        connection.shutdown(socket.SHUT_RDWR)
        with accept(listener) as second:
            assert wait_for(link, Connected).connection == 2
            second.sendall(packet(b"a/b", 1, b"of the new connection"))
            assert wait_for(link, Message).payload == b"of the new connection"


def test_an_oversized_message_ends_its_senders_connection_alone(mqtt_broker: EmbeddedBroker, topic: str) -> None:
    """A few dozen that were let through would be more than the broker keeps ready for a listener: it would hang up."""
    with connected(at(mqtt_broker.port)) as listens, connected(at(mqtt_broker.port, 2_000_000)) as sender:
        listens.subscribe(topic)
        sender.publish(topic, bytes(1_900_000))
        wait_for(sender, Disconnected)
        assert wait_for(sender, Connected).connection == 2
        sender.publish(topic, b"after it")
        message = wait_for(listens, Message)
        assert (message.payload, message.connection) == (b"after it", 1)


def test_empty_messages_at_qos_0_are_dropped_where_nobody_reads(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no bytes to count, and take memory all the same."""
    monkeypatch.setattr(mqtt, "MAX_UNREAD", 100)
    with started(at(listener.getsockname()[1])) as link, accept(listener) as connection:
        wait_for(link, Connected)
        connection.sendall(bytes([0x30, 5, 0, 3]) + b"a/b")
        connection.sendall((bytes([0x30, 5, 0, 3]) + b"a/b") * 1000 + packet(b"a/b", 7, b"kept"))
        wait_until(lambda: any(mid == 7 for _, mid in link._unread))
        assert link.backlog <= 102
