"""How the MQTT broker is: what Mosquitto and NATS tell, and what a liar tells."""

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fleet
import pytest
from scrapes import get, samples

from broker.monitor.mqtt_health import TOPICS, MqttHealth, number, of_varz
from broker.processes import children
from broker.processes.embedded import EmbeddedBroker, monitoring_url
from broker.settings import Aggregator, Embedded, Monitor, Task
from edgeclient.settings import ConfigError, load
from edgeclient.wire.errors import WireError
from tools.chaos import brokers

MISSING = brokers.mosquitto() is None


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        *((b"0", 0), (b"1234 seconds", 1234), (b"9" * 18, 10**18 - 1), (b"9" * 19, None), (b"", None), (b"-1", None)),
        *((b"1.5", None), (b"12 years", None), (b"\xff", None), (b"1" * 100_000, None), ("٣".encode(), None)),
    ],
)
def test_numbers_of_sys_topics(payload: bytes, value: int | None) -> None:
    assert number(payload) == value
    health = MqttHealth(clock=lambda: 3.0)
    assert health.hear("$SYS/broker/clients/connected", payload)
    assert health.told() == ({} if value is None else {"clients": value})
    assert health.age_s() == (None if value is None else 0.0)
    assert not health.hear("$SYS/broker/clients/total", b"1")


def test_what_a_nats_server_tells_is_looked_at() -> None:
    told = b'{"connections":-1,"in_msgs":true,"out_msgs":1e3,"slow_consumers":2,"jetstream":{"stats":{"storage":7}}}'
    assert of_varz(told) == {"slow_consumers": 2, "stored_bytes": 7}
    assert of_varz(b'{"jetstream":[],"connections":99999999999999999999999}') == {}
    for junk in (b"", b"[]", b"[" * 100_000, b'{"a":NaN}', b"\xff"):
        with pytest.raises(WireError):
            of_varz(junk)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A web server with one answer, headers included."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_liar_or_nobody_at_the_address_changes_nothing() -> None:
    now = [0.0]
    health = MqttHealth(clock=lambda: now[0])
    with answering(b'HTTP/1.0 200 OK\r\n\r\n{"connections": 4}') as url:
        health.url = lambda: url
        assert health.told() == {"clients": 4}
    for answer in (b"SSH-2.0-x\r\n", b"HTTP/1.0 500 no\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (2 << 20), b""):
        now[0] += 10
        with answering(answer) as url:
            health.url = lambda url=url: url
            assert health.told() == {"clients": 4}
    for address in ("http://127.0.0.1:1", "file:///etc/passwd", "", "http://[", "http://127.0.0.1:99999"):
        now[0] += 10
        health.url = lambda address=address: address
        assert health.told() == {"clients": 4}
    assert health.age_s() == now[0]


def test_it_is_asked_every_five_seconds_at_most() -> None:
    now, asked = [0.0], []
    health = MqttHealth(clock=lambda: now[0])
    health.url = lambda: asked.append(now[0]) or ""  # type: ignore[func-returns-value]
    for now[0] in (0.0, 1.0, 4.9, 5.0, 9.9, 10.0):
        health.told()
    assert asked == [0.0, 5.0, 10.0]


def test_the_embedded_broker_says_where_it_tells(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as running:
        (tmp_path / "nats-server_1.ports").write_text("{")  # half written
        health = MqttHealth()
        health.url = lambda: monitoring_url(tmp_path)
        assert {"clients", "stored_bytes"} <= health.told().keys()
        first = monitoring_url(tmp_path)
        assert running.process is not None
        running.process.kill()
        running.process.wait()
        running.start()
        assert len(list(tmp_path.glob("*.ports"))) == 1
        assert first.startswith("http://127.0.0.1:")
        assert "server_id" in get(monitoring_url(tmp_path) + "/varz")[1]
    assert monitoring_url(tmp_path) == ""


def test_the_address_is_a_web_address(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('directory = "d"\n[mqtt]\n[monitor]\nnats_url = "http://127.0.0.1:8222"\n')
    assert load(path, Aggregator).monitor == Monitor(nats_url="http://127.0.0.1:8222")
    path.write_text('directory = "d"\n[mqtt]\n[monitor]\nnats_url = "file:///etc/passwd"\n')
    with pytest.raises(ConfigError, match="nats_url"):
        load(path, Aggregator)


def scraped(folder: Path, broker: str, wanted: dict[str, float]) -> dict[str, float]:
    """What a real aggregator shows once it shows these series, and no smaller values."""
    (folder / "a.toml").write_text(f'directory = "data"\n{broker}\n[monitor]\nport = 0\n')
    settings = load(folder / "a.toml", Aggregator)
    fleet.add_task(settings, "t", fleet.BUNDLE, Task())
    log = folder / "a.log"
    command = [sys.executable, "-m", "broker.cli", "serve", str(folder / "a.toml")]
    with fleet._guarded(children.spawn(command, log=log), log):
        until_s = time.monotonic() + 60
        while True:
            assert time.monotonic() < until_s, log.read_text()
            url = re.search(r"metrics on (http://127\.0\.0\.1:\d+)/metrics", log.read_text())
            if url is None:
                continue
            found = {name: value for (name, _), value in samples(get(f"{url[1]}/metrics")[1].encode()).items()}
            if all(found.get(name, -1) >= least for name, least in wanted.items()):
                return found


def test_nats_tells_over_http(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert Embedded(port=port).reached_at == "127.0.0.1"
    least = {"clients": 1.0, "slow_consumers_total": 0, "received_messages_total": 1, "stored_bytes": 1000}
    wanted = {f"edgebroker_mqtt_{name}": value for name, value in least.items()}  # the bundle is kept
    found = scraped(tmp_path, f"[embedded]\nport = {port}", wanted)
    assert found["edgebroker_mqtt_told_age_seconds"] < 60
    assert "edgebroker_mqtt_uptime_seconds" not in found


@pytest.mark.skipif(MISSING, reason="mosquitto is not installed: tools/test")
def test_mosquitto_tells_over_mqtt(tmp_path: Path) -> None:
    mosquitto = brokers.Mosquitto(tmp_path / "mosquitto")
    mosquitto.start()
    try:
        endings = {"received_messages": "_total", "sent_messages": "_total", "dropped_messages": "_total"}
        wanted = {f"edgebroker_mqtt_{name}{endings.get(name, '')}": 0.0 for name in TOPICS.values()}
        found = scraped(tmp_path, f"[mqtt]\nport = {mosquitto.port}", wanted)
        assert found["edgebroker_mqtt_told_age_seconds"] < 60
        assert found["edgebroker_mqtt_dropped_messages_total"] == 0
        assert "edgebroker_mqtt_slow_consumers_total" not in found
    finally:
        mosquitto.stop()
