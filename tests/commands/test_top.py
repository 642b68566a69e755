"""`edgebroker top` and the list of devices: what stands in a row, what comes first, what steers no terminal."""

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgebroker
from ledgers import entry, of_an_aggregator
from rich.console import Console

from broker.commands import fleet as fleet_command
from broker.commands.top import by_trouble
from broker.ledger.protocol import Ledger
from broker.monitor import screen
from broker.monitor.silence import Contact
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire import status, topics
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import Status


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with of_an_aggregator(tmp_path) as made:
        yield made


NOW = 1e9
ONLINE = Status("online", "s", note="waits for power", doing="battery", version=5, time_s=int(NOW) - 60)


def row(device: str, said: Status | None, **values: Any) -> dict[str, Any]:
    contact = Contact(said, counted=True, version=7)
    return fleet_command.row("t", device, contact, **{"applied": 1, "refused": 0, "now_s": NOW} | values)


def test_a_row_joins_what_is_said_and_what_was_counted() -> None:
    made = row("pi", ONLINE, refused=2)
    assert (made["guess"], made["behind"], made["said_age_s"]) == ("waits", 2, 60.0)
    assert (made["applied"], made["refused"]) == (1, 2)  # the ledger's, not the device's
    silent = row("pi", None)
    assert (silent["state"], silent["guess"], silent["behind"], silent["said_age_s"]) == ("", "left", None, None)
    assert row("pi", Status("online", "s"))["said_age_s"] is None
    assert row("pi", Status("online", "s", time_s=int(NOW) + 500))["said_age_s"] == 0.0  # its clock is ahead
    json.dumps(made)


def test_trouble_comes_first() -> None:
    rows = [
        row("off", Status("offline", "s", doing="stopped")),
        row("b-works", ONLINE),
        row("a-works", ONLINE),
        row("fails", Status("online", "s", doing="failed", version=7)),
        row("hangs", Status("online", "s", time_s=int(NOW) - 10**6)),
        row("gone", Status("offline", "s", note="connection lost")),
    ]
    ordered = [each["device"] for each in by_trouble(rows)]
    assert ordered == ["hangs", "fails", "gone", "a-works", "b-works", "off"]


def drawn(devices: list[dict[str, Any]], most: int, *, reached: bool = True, width: int = 160) -> str:
    task = {
        "task": "t",
        "version": 7,
        "version_age_s": 42,
        "metrics": {"accuracy": 0.5},
        "updates_waiting": 3,
        "goal": 8,
    }
    out = io.StringIO()
    seen = {"tasks": [task], "devices": devices, "reached": reached}
    Console(file=out, width=width).print(screen.drawn(seen, most, width))
    return out.getvalue()


def test_what_is_drawn() -> None:
    health = Status(
        "online", "s", note="fine\x1b[2J[red]", version=7, queued=2, sent=1, oldest_s=300, battery_percent=81,
        temperature_c=47.6, up_bytes=20_480,
    )  # fmt: skip
    text = drawn([row("pi-7", health), row("pi-8", None)], most=9)
    assert "t  version 7, 42 s old  3 of 8 updates  1 of 2 devices connected  accuracy 0.5" in text
    line = next(line for line in text.splitlines() if "pi-7" in line)
    assert "fine?[2J[red]" in line
    assert "\x1b" not in text
    assert line.split()[-8:] == ["1", "0", "20.5", "kB", "81", "%", "48", "°C"]
    assert "left" in text
    assert "cannot be reached" in drawn([], most=9, reached=False)
    narrow = drawn([row("a-device-with-a-long-name", health)], most=9, width=80)
    assert "t/a-device-with-a-long-name" in narrow
    assert "47" not in narrow
    cut = drawn([row(f"pi-{number}", ONLINE) for number in range(9)], most=4)
    assert ("pi-3" in cut, "pi-4" in cut, "... and 5 more" in cut) == (True, False, True)


@pytest.fixture
def config(tmp_path: Path, endpoint: Endpoint, ledger: Ledger) -> str:
    (tmp_path / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n')
    ledger.admit([entry(0, device="top-7"), entry(1, device="top-7", refusal=Refusal.STALE)], time.time())
    return str(tmp_path / "a.toml")


def test_one_screen(config: str, endpoint: Endpoint) -> None:
    said = Status("online", "s", note="waits for mains power", version=0, doing="charger")
    with fleet.hand(endpoint, topics.status("t", "top-7")) as link:
        link.publish(topics.status("t", "top-7"), status.encode(said), retain=True)
        fleet.await_message(link, lambda message: message.payload == status.encode(said))
        seen = json.loads(edgebroker("top", config, "--once", "--json").stdout)
        (task,) = seen["tasks"]
        assert (seen["reached"], task["task"], task["version"], task["updates_waiting"]) == (True, "t", 0, 1)
        device = next(each for each in seen["devices"] if each["device"] == "top-7")
        assert (device["applied"], device["refused"], device["guess"]) == (1, 1, "waits")
        once = edgebroker("top", config, "--once")
        assert "t/top-7" in once.stdout, once.stderr
        devices = edgebroker("devices", config).stdout
        assert "t/top-7: 1 frames applied, 1 refused; online: waits for mains power\n" in devices
        link.publish(topics.status("t", "top-7"), status.encode(Status("offline", "s", note="stopped")), retain=True)
        fleet.await_message(link, lambda message: b"offline" in message.payload)
        assert "offline: stopped. Somebody or something on the device" in edgebroker("devices", config).stdout
        link.publish(topics.status("t", "top-7"), b"", retain=True)
        fleet.await_message(link, lambda message: not message.payload)


def test_it_is_live_on_a_terminal(config: str, endpoint: Endpoint) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "broker.cli", "top", config, "--every", "0.2"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen(command, stdout=theirs, stdin=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        until_s = time.monotonic() + 30
        while text not in seen:
            assert time.monotonic() < until_s, seen[-500:]
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65536)

    try:
        until(b"t/top-7")
        with fleet.hand(endpoint, topics.status("t", "late")) as link:
            link.publish(topics.status("t", "late"), status.encode(Status("online", "s", note="has just come")))
            until(b"has just come")
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            while select.select([ours], [], [], 20)[0]:
                os.read(ours, 65536)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert not process.stderr.read().strip()
    finally:
        process.kill()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()
        os.close(ours)
