import doctest
import importlib
import pkgutil
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import pytest

import tools.chaos
from broker.demo.plan import AGGREGATOR
from edgeclient.wire import messages, topics
from tools.chaos import schedule
from tools.chaos.proxy import Proxy
from tools.chaos.schedule import BROKER, CALM, Faults, Sample, Script
from tools.chaos.traffic import Sent

PAYLOAD = bytes(range(256)) * 400  # 102,400 bytes


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(20)
        yield listening


@contextmanager
def through(faults: Faults, seed: int = 1) -> Iterator[tuple[Proxy, socket.socket, socket.socket]]:
    """A proxy, and both ends of one connection through it."""
    with (
        server() as listening,
        Proxy(listening.getsockname()[1], seed, faults) as proxy,
        socket.create_connection(("127.0.0.1", proxy.open("d0")), timeout=20) as here,
        listening.accept()[0] as there,
    ):
        there.settimeout(20)
        yield proxy, here, there


def read_all(end: socket.socket) -> tuple[bytes, bool]:
    """What comes until the end, and whether that was a reset."""
    content = bytearray()
    try:
        while chunk := end.recv(65536):
            content += chunk
    except ConnectionResetError:
        return bytes(content), True
    return bytes(content), False


def send(end: socket.socket, content: bytes) -> threading.Thread:
    """In a thread, since nobody may be reading yet."""

    def work() -> None:
        try:
            end.sendall(content)
            end.shutdown(socket.SHUT_WR)
        except OSError:
            return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("faults", [CALM, replace(CALM, fragments=0.5, latency_s=(0.0, 0.001))])
def test_bytes_arrive_as_they_were_sent_both_ways(faults: Faults) -> None:
    with through(faults) as (proxy, here, there):
        for from_, to in ((here, there), (there, here)):
            thread = send(from_, PAYLOAD)
            assert read_all(to) == (PAYLOAD, False)
            thread.join()
        counters = proxy.counters
        assert (counters.up_bytes, counters.down_bytes) == (len(PAYLOAD), len(PAYLOAD))
        assert (counters.connections, counters.resets, counters.stalls) == (1, 0, 0)


def test_a_reset_comes_after_the_drawn_bytes_and_both_sides_see_it() -> None:
    faults = replace(CALM, reset_after_bytes=(20_000, 50_000))
    budget = Script(faults, 1, "d0", 0, "up").budget
    with through(faults) as (proxy, here, there):
        thread = send(here, PAYLOAD)
        got, reset = read_all(there)
        thread.join()
        assert reset
        assert PAYLOAD.startswith(got)
        assert read_all(here)[1]
        assert (proxy.counters.up_bytes, proxy.counters.resets) == (budget, 1)


def test_a_stalled_direction_swallows_and_is_reset() -> None:
    with through(replace(CALM, stalls=1.0, stall_s=(0.05, 0.05))) as (proxy, here, there):
        here.sendall(b"lost")
        assert read_all(there) == (b"", True)
        assert proxy.counters.stalls == 1


def test_without_a_link_nothing_is_carried_and_nobody_is_told() -> None:
    with through(CALM) as (proxy, here, there):
        proxy.cut()
        here.sendall(b"later")
        assert select.select([here, there], [], [], 0.2)[0] == []
        proxy.mend()
        assert there.recv(5, socket.MSG_WAITALL) == b"later"


def test_a_connection_may_be_forgotten_during_an_outage() -> None:
    with through(replace(CALM, forgets=1.0)) as (proxy, here, there):
        proxy.cut()
        proxy.mend()
        assert (read_all(here), read_all(there)) == ((b"", True), (b"", True))
        assert proxy.counters.resets == 1


def test_a_connection_begun_without_a_link_waits_for_it() -> None:
    with server() as listening, Proxy(listening.getsockname()[1], 1, CALM) as proxy:
        port = proxy.open("d0")
        proxy.cut()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as here:
            assert select.select([listening], [], [], 0.2)[0] == []
            proxy.mend()
            here.sendall(b"hello")
            there, _ = listening.accept()
            with there:
                assert there.recv(5, socket.MSG_WAITALL) == b"hello"


def test_no_server_is_a_reset() -> None:
    with server() as listening:
        port = listening.getsockname()[1]
    with Proxy(port, 1, CALM) as proxy:
        try:
            with socket.create_connection(("127.0.0.1", proxy.open("d0")), timeout=20) as here:
                found = read_all(here)
        except ConnectionResetError:  # as early as that, on a busy machine
            found = b"", True
    assert found == (b"", True)


def test_a_link_may_be_slow() -> None:
    with through(replace(CALM, up_bytes_s=1e6)) as (_, here, there):
        thread = send(here, PAYLOAD)
        assert read_all(there) == (PAYLOAD, False)
        thread.join()


def test_faults_depend_on_seed_link_number_and_direction() -> None:
    def drawn(*which: object) -> list[object]:
        script = Script(Faults(stalls=0.5), *which)  # type: ignore[arg-type]  # each is changed in turn
        return [script.budget, script.forgotten, *(script.next() for _ in range(20))]

    first = (1, "d0", 0, "up")
    assert drawn(*first) == drawn(*first)
    others = [(2, "d0", 0, "up"), (1, "d1", 0, "up"), (1, "d0", 1, "up"), (1, "d0", 0, "down")]
    assert all(drawn(*first) != drawn(*other) for other in others)


def test_kills_depend_on_the_seed_and_begin_with_one_of_each_kind() -> None:
    names = ["a", "b", "c"]
    first = list(islice(schedule.kills(3, names, 2.0), 50))
    assert first == list(islice(schedule.kills(3, names, 2.0), 50)) != list(islice(schedule.kills(4, names, 2.0), 50))
    assert {AGGREGATOR, BROKER} < {kill.victim for kill in first[:3]}
    assert {kill.victim for kill in first} == {AGGREGATOR, BROKER, *names}
    assert all(1.0 <= kill.after_s <= 3.0 and 0 <= kill.pause_s <= 2.0 for kill in first)


def test_a_fleet_that_does_not_come_back_has_no_recovery() -> None:
    samples = [Sample(t, min(5 * t, 50) + max(0, 4 * (t - 20))) for t in range(30)]
    assert schedule.recovery(samples, 10, 20) == (5.0, None)


def packet(topic: str, payload: bytes) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + b"\x00\x01" + payload
    return bytes([0x32, len(body) & 0x7F | 0x80, len(body) >> 7]) + body


def test_traffic_is_told_apart_however_it_is_cut() -> None:
    hello = messages.encode_hello(messages.Hello(1, 2, 3))
    frame = messages.MAGIC + bytes([2, messages.FRAME]) + bytes(200)
    stream = (
        bytes([0x40, 2, 0, 1])
        + packet(topics.up("t", "d"), hello)
        + packet(topics.up("t", "d"), frame)
        + packet(topics.status("t", "d"), b"{}".ljust(150))
    )
    for size in (1, 7, len(stream)):
        sent = Sent()
        hear = sent.connection()
        for at in range(0, len(stream), size):
            hear(stream[at : at + size])
        assert sent.packets == {"mqtt": 1, "hello": 1, "frame": 1, "status": 1}
        assert sum(sent.bytes.values()) == len(stream)
        assert sent.payload_bytes == len(hello) + len(frame)


@pytest.mark.parametrize("name", [each.name for each in pkgutil.iter_modules(tools.chaos.__path__)])
def test_examples_in_docstrings(name: str) -> None:
    assert name == "__main__" or doctest.testmod(importlib.import_module(f"tools.chaos.{name}")).failed == 0
