"""The web page: what its first paint takes on the wire, how soon the first data is there, what a reader costs then."""

import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import click

from broker.demo import data as demo_data
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Entry, Version
from broker.monitor.metrics import Metrics
from broker.page import routes
from broker.page.server import serving
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.bundle import archive
from edgeclient.settings import Mqtt
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status
from tools.bench.report import tell

# Upper bounds; what has none is told only.
BARS: Final = {"first_paint_bytes": 200_000, "first_json_1000_s": 1.0}
FLEETS: Final = (1000, 10_000)
TASK: Final = "watch-har"
_FILES: Final = ("/", "/page.css", "/icon.svg", "/uplot/uPlot.min.css", "/uplot/uPlot.iife.min.js")
_MODULES: Final = ("page", "charts", "device", "fleet", "rounds", "text")
_VERSIONS: Final = 100
_NOTES: Final = ("training on version 3", "sending", "quiet hours until 07:00", "battery at 20 %, needs 30 %")
_STATUS_EVERY_S: Final = 5.0


@click.command("web")
@click.option("--quick", is_flag=True, help="Listen to changes for 3 seconds, not 10.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line.")
def web_command(*, quick: bool, as_json: bool) -> None:
    r"""Bytes and seconds of the web page with 1,000 and 10,000 devices (half a minute).

    Every device has uploaded, and says something every five seconds. The first JSON is asked for at
    once after the start. Exit code 1 when a figure is over its bar.

    \b
    Example:
      python -m tools.bench web --json
    """
    rows = []
    for devices in FLEETS:
        with tempfile.TemporaryDirectory(prefix="web-") as folder, _served(Path(folder), devices) as page:
            rows.append({"devices": devices, **_measured(page, devices, listen_s=3.0 if quick else 10.0)})
    summary: dict[str, Any] = {
        "first_paint_bytes": rows[-1]["first_paint_bytes"],
        "first_json_1000_s": rows[0]["first_json_s"],
        "first_json_10000_s": rows[-1]["first_json_s"],
        "stream_bytes_per_s": rows[-1]["stream_bytes_per_s"],
    }
    tell(summary, rows, as_json=as_json, seed=0, bars=BARS)


@dataclass(frozen=True, slots=True)
class _Page:
    port: int
    metrics: Metrics

    def wire_bytes(self, path: str) -> int:
        """Of a whole answer, compressed as browsers ask for it, with its headers."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            head = "Host: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
            connection.sendall(f"GET {path} HTTP/1.1\r\n{head}".encode())
            return sum(map(len, iter(lambda: connection.recv(65536), b"")))

    def says(self, number: int) -> None:
        """A status of a device."""
        note = random.choice(_NOTES)  # noqa: S311 (what a device does)
        said = Status("online", f"{number:016x}", note=note, version=_VERSIONS, applied=number)
        self.metrics.heard(topics.status(TASK, f"device-{number:05}"), status.encode(said))


@contextmanager
def _served(folder: Path, devices: int) -> Iterator[_Page]:
    content = demo_data.bundle_bytes()
    settings = Aggregator(folder / "data", mqtt=Mqtt())
    add_task(settings, TASK, content, Task())
    with open_ledger(settings.ledger) as ledger:
        _fill(ledger, devices)
    with (
        routes.reading(settings.ledger, settings.registry) as (metrics, site),
        serving("127.0.0.1", 0, site) as url,
    ):
        metrics.task(TASK, 4 * archive.decode(content).manifest.layout.size)
        metrics.version(TASK, _VERSIONS, time.time())
        page = _Page(int(url.rpartition(":")[2]), metrics)
        for number in range(devices):
            page.says(number)
        yield page


def _fill(ledger: Ledger, devices: int) -> None:
    """An update of every device, in so many versions."""
    each = devices // _VERSIONS
    for version in range(_VERSIONS):
        names = [f"device-{number:05}" for number in range(version * each, (version + 1) * each)]
        entries = [
            Entry(TASK, name, 1, 0, os.urandom(8), 0, 0, 1, version, 100, 25600, None, bytes(500)) for name in names
        ]
        ledger.admit(entries, time.time())
        made = Version(version + 1, f"{version:064}", version + 1, time.time(), each, each, 25600 * each, {})
        ledger.close_batch(TASK, ledger.open_contributions(TASK, each), made)
        ledger.add_metrics(TASK, version + 1, {"accuracy": version / _VERSIONS})


def _measured(page: _Page, devices: int, listen_s: float) -> dict[str, float]:
    began_s = time.perf_counter()
    first_bytes = page.wire_bytes("/api/first")
    first_s = time.perf_counter() - began_s
    files_bytes = sum(map(page.wire_bytes, (*_FILES, *(f"/{name}.js" for name in _MODULES))))
    return {
        "first_json_s": first_s,
        "first_json_bytes": first_bytes,
        "first_paint_bytes": first_bytes + files_bytes,
        "first_json_again_s": median(_timed(page, f"/api/first?task={TASK}") for _ in range(5)),
        "search_s": median(_timed(page, f"/api/devices?task={TASK}&search=-0{number}") for number in range(5)),
        "stream_bytes_per_s": _listened(page, devices, listen_s) / listen_s,
    }


def _timed(page: _Page, path: str) -> float:
    began_s = time.perf_counter()
    page.wire_bytes(path)
    return time.perf_counter() - began_s


def _listened(page: _Page, devices: int, seconds: float) -> int:
    """Bytes of changes, after the first of them, while the fleet talks."""
    number = received = 0
    with socket.create_connection(("127.0.0.1", page.port), 30) as connection:
        connection.sendall(f"GET /api/stream?task={TASK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while b"data: " not in connection.recv(1 << 20):
            continue
        connection.settimeout(0.05)
        began_s = time.monotonic()
        while (past_s := time.monotonic() - began_s) < seconds:
            while number < past_s * devices / _STATUS_EVERY_S:
                page.says(number % devices)
                number += 1
            try:
                received += len(connection.recv(1 << 20))
            except TimeoutError:
                continue
    return received
