"""SIGHUP: a service reads its configuration again, and what has lost its terminal says goodbye and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fleet
import pytest
from links import free_port

from broker.processes import children
from broker.settings import Aggregator, Embedded, Task
from broker.task.new import add_task
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.wire import announcement, status, topics


@contextmanager
def running(folder: Path, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = children.spawn([sys.executable, "-m", *command], log=folder / "d.log")
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0, (folder / "d.log").read_text()
    finally:
        children.end(process)
    assert "Traceback" not in (folder / "d.log").read_text()


@pytest.mark.case("fleet 58")
def test_an_aggregator_reads_its_file_again_and_its_broker_lives_on(tmp_path: Path) -> None:
    port = free_port()
    add_task(Aggregator(tmp_path / "data", embedded=Embedded()), "hup", fleet.BUNDLE, Task())
    config, token = tmp_path / "a.toml", tmp_path / "token"
    said = f'directory = "data"\n[embedded]\nport = {port}\n[monitor]\n'
    config.write_text(f"{said}enabled = false\n")
    with running(tmp_path, "broker.cli", "serve", str(config)) as process:
        fleet.log_says(tmp_path, "aggregating on")
        with (
            fleet.hand(Endpoint("127.0.0.1", port), topics.head("hup")) as link,
            socket.create_server(("127.0.0.1", 0)) as taken,
        ):

            def service() -> str:
                found = fleet.await_message(link, lambda message: message.topic == topics.head("hup"))
                return announcement.decode(found.payload).service

            server = json.loads((tmp_path / "data/mqtt/server.json").read_text())["pid"]
            lives = [service()]
            token.write_text("0123456789abcdef-token")
            token.chmod(0o600)
            for words, text in (
                ("web page on", f'{said}port = 0\ntoken_file = "{token}"\n'),
                ("not taken, the old one goes on: [monitor] token_file", f'{said}token_file = "{tmp_path}/nothing"\n'),
                ("another directory or [embedded] needs a restart", text_of_another(said)),
                ("not valid TOML", "what"),
                ("not taken, the old one goes on: [monitor] cannot listen", f"{said}port = {taken.getsockname()[1]}\n"),
            ):
                config.write_text(text)
                process.send_signal(signal.SIGHUP)
                lives.append(service())  # on the same connection to the same server
                fleet.log_says(tmp_path, words)
            assert len(set(lives)) == 6
            assert json.loads((tmp_path / "data/mqtt/server.json").read_text())["pid"] == server


def text_of_another(said: str) -> str:
    return said.replace('"data"', '"elsewhere"')


@pytest.mark.case("fleet 58")
def test_a_device_reads_its_file_again(tmp_path: Path, endpoint: Endpoint) -> None:
    config = fleet.write_device(tmp_path, endpoint, "hup-1", "hup-device")
    with fleet.hand(endpoint, topics.everyone("hup-device", "status")) as link:
        with running(tmp_path, "edgeclient.cli", "run", str(config)) as process:
            says(link, "hup-1", "online")
            config.write_text(config.read_text().replace("hup-1", "hup-2"))
            process.send_signal(signal.SIGHUP)
            assert says(link, "hup-1", "offline") == "stopped"
            says(link, "hup-2", "online")
            config.write_text("what")
            process.send_signal(signal.SIGHUP)
            assert says(link, "hup-2", "offline") == "stopped"
            says(link, "hup-2", "online")
            fleet.log_says(tmp_path, "the configuration is not taken, the old one goes on")
        assert says(link, "hup-2", "offline") == "stopped"


@pytest.mark.case("fleet 58")
@pytest.mark.parametrize("command", ["run", "once"])
def test_without_its_terminal_a_device_says_goodbye(tmp_path: Path, endpoint: Endpoint, command: str) -> None:
    task = f"hup-terminal-{command}"
    config = fleet.write_device(tmp_path, endpoint, "hup-3", task)
    ours, theirs = os.openpty()
    with fleet.hand(endpoint, topics.everyone(task, "status")) as link:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeclient.cli", command, str(config)], stdin=theirs, stdout=theirs, stderr=theirs
        )
        try:
            says(link, "hup-3", "online")
            process.send_signal(signal.SIGHUP)
            assert says(link, "hup-3", "offline") == "stopped"
            assert process.wait(20) == (3 if command == "once" else 0)
        finally:
            children.end(process)
            os.close(ours)
            os.close(theirs)


def says(link: Link, device: str, state: str) -> str:
    """Its note, once it is online or offline."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        found = fleet.await_message(link, lambda message: message.topic.endswith(f"/status/{device}"))
        told = status.decode(found.payload)
        if told.state == state:
            return told.note
    raise AssertionError(f"{device} is not {state}")
