"""The embedded MQTT broker: one owner, one server, one port, and a store that outlives a kill."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import links
import pytest

from broker.processes import address, embedded
from broker.processes.embedded import EmbeddedBroker, EmbeddedBrokerError
from edgeclient.link.mqtt import Connected, Endpoint, Link, Message

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def exchange(port: int, topic: str, retain: bytes | None = None) -> bytes:
    """Publish a retained payload if given, and return what is retained on the topic."""
    link = Link(Endpoint("127.0.0.1", port), client_id_prefix="test")
    link.start()
    try:
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            for event in link.poll(0.1):
                if isinstance(event, Connected):
                    if retain is not None:
                        link.publish(topic, retain, retain=True)
                        while link.pending:
                            assert time.monotonic() < until_s, "no PUBACK"
                            time.sleep(0.005)
                    link.subscribe(topic)
                elif isinstance(event, Message):
                    return event.payload
    finally:
        link.stop()
    raise AssertionError(f"nothing on {topic}")


def kill(process: subprocess.Popen[bytes] | None) -> None:
    assert process is not None
    process.kill()
    process.wait(20)


def abandon(broker: EmbeddedBroker) -> "subprocess.Popen[bytes]":
    """As if our process had been killed and the server had lived on: nobody owns the folder any more."""
    process, owner = broker.process, broker._owner
    assert process is not None
    assert owner is not None
    os.close(owner)
    broker.process = broker._owner = None
    return process


def test_it_answers_and_stops(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        process = broker.process
        assert process is not None
        assert process.poll() is None
        assert exchange(broker.port, "a/b", b"hello") == b"hello"
        assert broker.log.stat().st_size > 0
    assert process.returncode is not None
    assert address.why_not("127.0.0.1", broker.port) == ""
    broker.stop()


def test_the_last_port_is_taken_again_and_another_if_it_is_gone(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        port = broker.port
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.port == port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with EmbeddedBroker(tmp_path) as broker:
            assert broker.port != port


@pytest.mark.case("fleet 16")
@pytest.mark.skipif(not socket.has_ipv6 or bool(address.why_not("::1", 0)), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::", "::1"])
def test_it_listens_with_ipv6(tmp_path: Path, host: str) -> None:
    with EmbeddedBroker(tmp_path, host=host) as broker, links.connected(Endpoint("::1", broker.port)) as link:
        link.subscribe("a/b")
        link.publish("a/b", b"six")
        assert links.wait_for(link, Message).payload == b"six"


@pytest.mark.case("fleet 16")
@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.7", "192.0.2.7 is no address of this machine"),
        ("nosuch.invalid", "nosuch.invalid is neither an address nor a name that is known here"),
    ],
)
def test_where_it_cannot_listen_is_said(tmp_path: Path, host: str, why: str) -> None:
    with pytest.raises(EmbeddedBrokerError, match=why):
        EmbeddedBroker(tmp_path, host=host, port=1883).start()
    forbidden = address._WHY[errno.EACCES].format(host="127.0.0.1", port=443)
    assert forbidden == "port 443 is for the administrator: choose one from 1024 on, such as 1883"


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EmbeddedBrokerError, match=rf"port {port} on 127\.0\.0\.1 is taken: choose another"):
            EmbeddedBroker(tmp_path, port=port).start()
    with EmbeddedBroker(tmp_path, port=port) as broker:
        assert broker.port == port


def test_a_port_lost_between_choice_and_start_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        choose = EmbeddedBroker._choose_port
        lost = [other.getsockname()[1]]
        monkeypatch.setattr(EmbeddedBroker, "_choose_port", lambda self: lost.pop() if lost else choose(self))
        with EmbeddedBroker(tmp_path) as broker:
            assert broker.port != other.getsockname()[1]
        assert not lost


def test_a_second_owner_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as first:
        with pytest.raises(EmbeddedBrokerError, match="in use by another process") as refusal:
            EmbeddedBroker(tmp_path).start()
        assert "\n" not in str(refusal.value)
        assert exchange(first.port, "a/b", b"still here") == b"still here"
    with EmbeddedBroker(tmp_path):
        pass


def test_what_was_retained_survives_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        port = broker.port
        assert exchange(port, "a/b", b"kept") == b"kept"
        for _ in range(2):
            kill(broker.process)
            broker.start()
            assert broker.port == port
            assert exchange(port, "a/b") == b"kept"


def test_a_server_that_was_killed_is_started_again_where_it_was(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        first, port = broker.process, broker.port
        assert first is not None
        broker.tend()
        assert broker.process is first
        first.kill()
        first.wait()
        broker.tend()
        assert broker.process is not first
        assert broker.port == port
        assert exchange(port, "a/b", b"kept") == b"kept"


def test_start_replaces_a_running_server(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        first, port = broker.process, broker.port
        assert first is not None
        broker.start()
        assert first.returncode is not None
        assert broker.port == port
        assert exchange(port, "a/b", b"hello") == b"hello"


@LINUX
@pytest.mark.parametrize("asked", [False, True])
def test_an_orphan_is_ended_and_its_port_taken_over(tmp_path: Path, asked: bool) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    assert exchange(broker.port, "a/b", b"kept") == b"kept"
    orphan = abandon(broker)
    with EmbeddedBroker(tmp_path, port=broker.port if asked else None) as heir:
        assert orphan.wait(20) == -signal.SIGKILL
        assert heir.port == broker.port
        assert exchange(heir.port, "a/b") == b"kept"


@LINUX
@pytest.mark.parametrize("forged", ["started", "pid", "nothing recorded"])
def test_only_the_recorded_process_is_ever_ended(tmp_path: Path, forged: str) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    orphan = abandon(broker)
    record = tmp_path / "server.json"
    said = json.loads(record.read_text())
    if forged == "nothing recorded":
        record.unlink()
    else:
        record.write_text(json.dumps(said | ({"started": 1} if forged == "started" else {"pid": os.getpid()})))
    try:
        with pytest.raises(
            EmbeddedBrokerError, match=r"server\.lock is held, and not by the server recorded"
        ) as refusal:
            EmbeddedBroker(tmp_path).start()
        assert "\n" not in str(refusal.value)
        assert orphan.poll() is None
    finally:
        kill(orphan)
    with EmbeddedBroker(tmp_path):
        pass


@LINUX
def test_a_recorded_pid_that_is_no_server_lives(tmp_path: Path) -> None:
    """The pid was given to somebody else: same pid, same start, another command."""
    with (tmp_path / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
            record = {"pid": other.pid, "started": embedded._started(other.pid), "port": 1}
            (tmp_path / "server.json").write_text(json.dumps(record))
            with pytest.raises(EmbeddedBrokerError, match="is held"):
                EmbeddedBroker(tmp_path).start()
            assert other.poll() is None


@LINUX
def test_the_server_dies_with_its_killed_owner_and_the_next_one_starts(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from broker.processes.embedded import EmbeddedBroker;"
        "broker = EmbeddedBroker(Path(sys.argv[1])); broker.start(); print(broker.port, flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert exchange(port, "a/b", b"kept") == b"kept"
        owner.kill()
        owner.wait(20)
        with EmbeddedBroker(tmp_path, port=port) as heir:
            assert exchange(heir.port, "a/b") == b"kept"


def test_without_the_wheel_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(EmbeddedBrokerError, match=r"pip install '\.\[broker\]'"):
        EmbeddedBroker(tmp_path).start()


def test_a_server_that_does_not_come_up_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedBroker, "_config", lambda _: "nonsense {")
    with pytest.raises(EmbeddedBrokerError, match=r"does not come up: .+server\.log\)") as refusal:
        EmbeddedBroker(tmp_path).start()
    assert "\n" not in str(refusal.value)
    monkeypatch.undo()
    with EmbeddedBroker(tmp_path):
        pass
