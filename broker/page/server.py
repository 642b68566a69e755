"""One HTTP server in a thread of its own: probes, Prometheus, the web page; aiohttp is imported here alone.

The service only counts; what is asked for is read by this thread.
"""

import asyncio
import gzip
import json
import logging
import math
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs

from aiohttp import hdrs, web

from broker.page.gate import COOKIE, SESSION_S, Gate, over_tls
from broker.page.site import Answer, Query, Route, Site, told
from edgeclient.settings import ConfigError
from edgeclient.wire.errors import WireError

_LOG = logging.getLogger(__name__)
# aiohttp would log a traceback for every request that is none; strangers decide how many those are.
_QUIET = logging.getLogger(f"{__name__}.requests")
_QUIET.setLevel(logging.CRITICAL)
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_BODY: Final = 4096
_BODY_S: Final = 5.0
_MAX_STREAMS: Final = 64
MAX_CONNECTIONS: Final = 256
_SILENT_S: Final = 20.0  # a connection on which nobody asks
_SQUEEZED: Final = 1000  # bytes from which compression is worth it
_STILL_THERE_S: Final = 15.0
_SECURE: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer the login form would tell no Origin
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Server": "edgebroker",
}


@contextmanager
def serving(host: str, port: int, site: Site, gate: Gate | None = None) -> Iterator[str]:
    """Answer until the end of the block; gives the address, with the port that was free for 0.

    Raises:
        ConfigError: nobody can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(f"[monitor] cannot listen on {host} port {port}: {error.strerror or error}") from None
    started: Future[Callable[[], object]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(listener, _application(site, gate or Gate()), started)),
        name="monitor",
        daemon=True,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    thread.start()
    stop = started.result()
    try:
        yield address
    finally:
        stop()
        thread.join()


async def _serve(
    listener: socket.socket, application: web.Application, started: "Future[Callable[[], object]]"
) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    runner = web.AppRunner(
        application, access_log=None, logger=_QUIET, keepalive_timeout=_SILENT_S, shutdown_timeout=0.2
    )
    try:
        await runner.setup()
        server = runner.server
        assert server is not None

        def accept() -> asyncio.Protocol:
            return server() if len(server.connections) < MAX_CONNECTIONS else _Turned()

        accepting = await loop.create_server(accept, sock=listener)
    except BaseException as error:
        started.set_exception(error)
        raise
    started.set_result(lambda: loop.call_soon_threadsafe(done.set))
    await done.wait()
    accepting.close()
    await runner.cleanup()


class _Turned(asyncio.Protocol):
    """One connection too many: hangs up, so that strangers cannot use up the descriptors of the service."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """At once."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _application(site: Site, gate: Gate) -> web.Application:
    # Where nothing else is: what is at /metrics stays behind the gate, whatever the base.
    entry = site.base if site.base not in {*site.routes, "/api/stream"} else ""

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        foreign = gate.foreign(request.method, request.headers)
        if foreign:
            return _response(told(403, foreign), request)
        path = site.local(request.path)
        public = path in site.public or path in {"/login", entry}
        if not public and not gate.knows(request.headers, request.cookies.get(COOKIE, "")):
            return _response(_asks_for_token(site, request), request)
        try:
            return await handler(request)
        except web.HTTPException as error:
            wrong = {404: f"try {', '.join(sorted(site.routes))}"}.get(error.status, error.reason)
            return _response(told(error.status, wrong), request)
        except WireError as error:
            return _response(told(400, error.detail), request)
        except (TimeoutError, ValueError, ConnectionError) as error:
            slow = isinstance(error, TimeoutError)
            response = _response(told(408, "it did not end") if slow else told(400, "it cannot be read"), request)
            response.force_close()  # with the rest of the request unread, the connection is good for nothing else
            return response

    application = web.Application(middlewares=[guard], client_max_size=_MAX_BODY)
    application.on_response_prepare.append(_secure)
    streaming = None if site.stream is None else _Streaming(site.stream).answer
    logging_in = None if site.login is None else _logging_in(site.login, gate)
    for base in {"", site.base}:
        for path, route in site.routes.items():
            application.router.add_get(base + path, _getting(route))
        if streaming is not None:
            application.router.add_get(f"{base}/api/stream", streaming, allow_head=False)
        if logging_in is not None:
            application.router.add_post(f"{base}/login", logging_in)
    if entry:
        application.router.add_get(entry, _entering(entry))
    return application


def _entering(base: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """To the page from its path without the last slash, below which its addresses would not be."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=308, headers={hdrs.LOCATION: f"{base.rpartition('/')[2]}/"})

    return answer


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURE)
    response.headers.setdefault("Cache-Control", "no-store")


def _getting(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return _response(await route(request.query), request)

    return answer


def _logging_in(form: Callable[[str], Answer], gate: Gate) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def login(request: web.Request) -> web.StreamResponse:
        if request.content_type != _FORM:
            return _response(told(415, f"send {_FORM}"), request)
        # Read here: aiohttp's own reading of forms waits for ever, and raises whatever a codec or a boundary may raise.
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
        session = gate.login(parse_qs(body.decode(errors="replace"), max_num_fields=8).get("token", [""])[0])
        if session is None:
            return _response(form("That is not the operator's token."), request)
        # Relative, and a cookie without a path: below whatever path a proxy has put this.
        response = web.Response(status=303, headers={hdrs.LOCATION: "./"})
        secure = request.secure or over_tls(request.headers)
        response.set_cookie(
            COOKIE, session, path="", max_age=SESSION_S, httponly=True, samesite="Strict", secure=secure
        )
        return response

    return login


def _asks_for_token(site: Site, request: web.Request) -> Answer:
    if site.login is not None and site.local(request.path) == "/":
        return site.login("")
    return told(401, "the operator's token is missing or wrong: send it as Authorization: Bearer, or log in at /")


def _response(answer: Answer, request: web.Request) -> web.Response:
    headers = {"Content-Type": answer.kind}
    if answer.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if answer.tag:
        headers |= {"ETag": f'"{answer.tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == f'"{answer.tag}"':
            return web.Response(status=304, headers=headers)
    body = answer.body
    if len(body) > _SQUEEZED and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, 6, mtime=0)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return web.Response(status=answer.code, body=body, headers=headers)


class _Streaming:
    """Server-sent events; so many readers at most."""

    def __init__(self, stream: Callable[[Query], AsyncIterator[dict[str, Any]]]) -> None:
        self._stream = stream
        self._open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self._open >= _MAX_STREAMS:
            return _response(told(503, f"{_MAX_STREAMS} pages are open already: close one"), request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        loop = asyncio.get_running_loop()
        written_s = -math.inf  # something is said at once, so that the reader knows that it is heard
        self._open += 1
        try:
            async for change in self._stream(request.query):
                if not response.prepared:
                    await response.prepare(request)
                if not change and loop.time() - written_s < _STILL_THERE_S:
                    continue
                line = f"data: {json.dumps(change, separators=(',', ':'))}\n\n" if change else ": still there\n\n"
                await response.write(line.encode())
                written_s = loop.time()
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._open -= 1
        return response
