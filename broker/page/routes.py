"""The addresses of the web page and what answers each: files, probes, Prometheus, and the read model as JSON."""

import asyncio
import hashlib
import math
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from broker.ledger.protocol import LedgerError
from broker.monitor.metrics import Metrics
from broker.page.read_model import Board, changed
from broker.page.server import HTML, Answer, Query, Route, Site, as_json, told, verdict
from edgeclient.wire.errors import WireError

_EVERY_S: Final = 1.0
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_KINDS: Final = {
    ".html": HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the login form needs before anybody has logged in.
_PUBLIC: Final = frozenset({"/healthz", "/readyz", "/page.css", "/icon.svg"})
_FOLDER: Final = files("broker.page") / "static"
_NEWEST: Final = 2**62
_KEPT: Final = 16  # of a kilobyte to a hundred
T = TypeVar("T")


@contextmanager
def reading(ledger: Path, registry: Path) -> Iterator[tuple[Metrics, Site]]:
    """The watch for the service, and what is served of it; one thread reads the ledger, so that nobody waits for it."""
    metrics = Metrics(disk=lambda: (_ledger_bytes(ledger), _folder_bytes(registry)))
    board = Board(ledger, metrics)
    live = _Live(board)
    with ThreadPoolExecutor(1, "ledger-reader") as reader:
        routes = {**_probes(metrics), **_api(board, live, reader), **_assets()}
        reader.submit(_warm, board)
        try:
            yield metrics, Site(routes, _stream(live, reader), _login, _PUBLIC)
        finally:
            reader.submit(board.close)  # SQLite wants the thread that has opened it


class _Live:
    """The live sections of tasks, looked up once a second however many ask; the last few are kept by their number."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._found: dict[str, tuple[float, int]] = {}
        self._kept: dict[int, dict[str, Any]] = {}
        # No number of an earlier start, which a page that reconnects may still tell.
        self._number = secrets.randbits(40)

    def now(self, task: str) -> tuple[int, dict[str, Any]]:
        """The newest sections, at most half a second old, and their number."""
        at_s, number = self._found.get(task, (-math.inf, 0))
        if number not in self._kept or time.monotonic() - at_s > _EVERY_S / 2:
            sections = self._board.live(task)
            if not sections:
                return 0, {}
            self._number = number = self._number + 1
            self._found[task] = (time.monotonic(), number)
            self._kept[number] = sections
            self._kept.pop(number - _KEPT, None)
        return number, self._kept[number]

    def then(self, number: int) -> dict[str, Any]:
        """What a reader has that was sent sections of this number; nothing when that is long ago."""
        return dict(self._kept.get(number, {}))


def _warm(board: Board) -> None:
    """The first look takes 2 s for 10,000 devices: before anybody waits for it."""
    with suppress(LedgerError):
        for task in board.tasks():
            board.live(task)


def _probes(counts: Metrics) -> dict[str, Route]:
    async def metrics(_: Query) -> Answer:
        return Answer(200, _PROMETHEUS, counts.exposition())

    async def healthz(_: Query) -> Answer:
        return verdict(counts.healthy())

    async def readyz(_: Query) -> Answer:
        return verdict(counts.ready())

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


def _api(board: Board, live: _Live, reader: ThreadPoolExecutor) -> dict[str, Route]:
    def route(ask: Callable[[Query], Any]) -> Route:
        async def answer(query: Query) -> Answer:
            try:
                value = await asyncio.get_running_loop().run_in_executor(reader, ask, query)
            except LedgerError as error:
                return told(503, f"the ledger cannot be read: {error}")
            return told(404, "nobody knows it") if value is None else as_json(value)

        return answer

    def task(query: Query) -> str:
        return query.get("task", "")

    def first(query: Query) -> dict[str, Any]:
        found = board.first(task(query))
        number, sections = live.now(found["task"])
        return {**found, **sections, "after": number}

    return {
        "/api/first": route(first),
        "/api/devices": route(
            lambda query: board.devices(
                task(query), state=query.get("state", ""), search=query.get("search", ""), number=number(query, "page")
            )
        ),
        "/api/device": route(lambda query: board.device(task(query), query.get("device", ""))),
        "/api/rounds": route(lambda query: board.rounds(task(query), before=number(query, "before", _NEWEST))),
        "/api/contributors": route(lambda query: board.contributors(task(query), number(query, "version"))),
    }


def _stream(live: _Live, reader: ThreadPoolExecutor) -> Callable[[Query], AsyncIterator[dict[str, Any]]]:
    """Changes of one task since what /api/first has sent, at most one a second."""

    async def changes(query: Query) -> AsyncIterator[dict[str, Any]]:
        task, loop = query.get("task", ""), asyncio.get_running_loop()
        sent = await loop.run_in_executor(reader, live.then, number(query, "after"))
        while True:
            sections = dict[str, Any]()
            with suppress(LedgerError):  # it may work again in a second
                _, sections = await loop.run_in_executor(reader, live.now, task)
            yield changed(sections, sent)
            await asyncio.sleep(_EVERY_S)

    return changes


def number(query: Query, key: str, default: int = 0) -> int:
    """A whole number of a query, 0 or more.

    Raises:
        WireError: it is none, or a huge one.

    Example:
        >>> number({"page": "3"}, "page"), number({}, "page")
        (3, 0)
    """
    text = query.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _NEWEST):
        raise WireError("range", f"{key} must be a whole number")
    return int(text)


def _assets() -> dict[str, Route]:
    """The files of the page by their address, read once."""
    found: dict[str, Route] = {}
    for place, prefix in ((_FOLDER, "/"), (_FOLDER / "uplot", "/uplot/")):
        for each in place.iterdir():
            kind = _KINDS.get(Path(each.name).suffix)
            if kind is not None and each.name != "login.html":
                found["/" if each.name == "index.html" else prefix + each.name] = _asset(kind, each.read_bytes())
    return found


def _asset(kind: str, body: bytes) -> Route:
    answer = Answer(200, kind, body, hashlib.sha256(body).hexdigest()[:16])

    async def route(_: Query) -> Answer:
        return answer

    return route


def _login(wrong: str) -> Answer:
    form = (_FOLDER / "login.html").read_text()
    return Answer(401, HTML, form.replace("<!-- wrong -->", escape(wrong)).encode())


def _ledger_bytes(path: Path) -> int:
    """Of the file and its write-ahead log."""
    return sum(_size(each) for each in (path, path.with_name(f"{path.name}-wal")))


def _folder_bytes(path: Path) -> int:
    """Of files that may go meanwhile; 1.3 ms for 300, measured."""
    with suppress(FileNotFoundError), os.scandir(path) as found:
        return sum(_size(Path(each.path)) for each in found)
    return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
