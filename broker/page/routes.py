"""The addresses of the web page and what answers each: files, probes, Prometheus, and the read model as JSON."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from broker.ledger.protocol import LedgerError
from broker.monitor.metrics import Metrics
from broker.page.changes import EVERY_S, Changes, difference
from broker.page.read_model import ReadModel
from broker.page.site import HTML, Answer, Query, Route, Site, as_json, told, verdict
from edgeclient.wire.errors import WireError

_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
# What the login form needs before anybody has logged in.
_PUBLIC: Final = frozenset({"/healthz", "/readyz", "/page.css", "/icon.svg"})
_NEWEST: Final = 2**62
_KINDS: Final = {
    ".html": HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDER: Final = files("broker.page") / "static"


@contextmanager
def reading(ledger: Path, registry: Path) -> Iterator[tuple[Metrics, Site]]:
    """The watch for the service, and what is served of it; one thread reads the ledger, so that nobody waits for it."""
    metrics = Metrics(disk=lambda: (_ledger_bytes(ledger), _folder_bytes(registry)))
    model = ReadModel(ledger, metrics)
    changes = Changes(model)
    with ThreadPoolExecutor(1, "ledger-reader") as reader:
        routes = {**_probes(metrics), **_api(model, changes, reader), **_files()}
        reader.submit(_warm, model)
        try:
            yield metrics, Site(routes, _stream(changes, reader), _login, _PUBLIC)
        finally:
            reader.submit(model.close)  # SQLite wants the thread that has opened it


def _warm(model: ReadModel) -> None:
    """The first look takes 0.3 s for 10,000 devices: before anybody waits for it."""
    with suppress(LedgerError):
        for task in model.tasks():
            model.live(task)


def _files() -> dict[str, Route]:
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
    """The form, with what was wrong."""
    form = (_FOLDER / "login.html").read_text(encoding="utf-8")
    return Answer(401, HTML, form.replace("<!-- wrong -->", escape(wrong)).encode())


def _probes(counts: Metrics) -> dict[str, Route]:
    async def metrics(_: Query) -> Answer:
        return Answer(200, _PROMETHEUS, counts.exposition())

    async def healthz(_: Query) -> Answer:
        return verdict(counts.healthy())

    async def readyz(_: Query) -> Answer:
        return verdict(counts.ready())

    return {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}


def _api(model: ReadModel, changes: Changes, reader: ThreadPoolExecutor) -> dict[str, Route]:
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
        found = model.first(task(query))
        number, sections = changes.now(found["task"])
        return {**found, **sections, "after": number}

    return {
        "/api/first": route(first),
        "/api/devices": route(
            lambda query: model.devices(
                task(query), state=query.get("state", ""), search=query.get("search", ""), number=number(query, "page")
            )
        ),
        "/api/device": route(lambda query: model.device(task(query), query.get("device", ""))),
        "/api/rounds": route(lambda query: model.rounds(task(query), before=number(query, "before", _NEWEST))),
        "/api/contributors": route(lambda query: model.contributors(task(query), number(query, "version"))),
    }


def _stream(changes: Changes, reader: ThreadPoolExecutor) -> Callable[[Query], AsyncIterator[dict[str, Any]]]:
    """Changes of one task since what /api/first has sent, at most one a second."""

    async def answer(query: Query) -> AsyncIterator[dict[str, Any]]:
        task, loop = query.get("task", ""), asyncio.get_running_loop()
        sent = await loop.run_in_executor(reader, changes.then, number(query, "after"))
        while True:
            sections = dict[str, Any]()
            with suppress(LedgerError):  # it may work again in a second
                _, sections = await loop.run_in_executor(reader, changes.now, task)
            yield difference(sections, sent)
            await asyncio.sleep(EVERY_S)

    return answer


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
