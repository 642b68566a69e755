"""A TCP proxy that is a bad link: late, in fragments, reset after a while, half-open, or not there at all.

Runs in a thread of its own. The schedule of faults is drawn from a seed; the timing of threads is not.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

from tools.chaos.schedule import Faults, Script

_HOST: Final = "127.0.0.1"
_LINE_CHUNKS: Final = 64  # under way in one direction
_AHEAD_S: Final = 0.05  # what a limited link takes in before its time ...
_PIECE_S: Final = 0.1  # ... and hands on at once
_LINGER: Final = struct.pack("ii", 1, 0)

# b"" is the end of the stream, None a reset.
_Line: TypeAlias = "asyncio.Queue[tuple[float, bytes | None]]"
Hear: TypeAlias = Callable[[bytes], None]


class _Broken(Exception):
    """The script ends the connection."""


@dataclass(slots=True)
class Counters:
    """What has happened so far; bytes as taken from either side, whether they arrived or not."""

    connections: int = 0
    resets: int = 0
    stalls: int = 0
    up_bytes: int = 0
    down_bytes: int = 0


class Proxy:
    """Links from ports of their own to one upstream port, all on the loopback interface.

    `hear` is called at every connection; what it returns is called with every chunk that goes up.

    Example: `with Proxy(1883, 7, Faults()) as proxy: port = proxy.open("device-0")`
    """

    def __init__(
        self, upstream: int, seed: int, faults: Faults, hear: Callable[[], Hear] = lambda: lambda _: None
    ) -> None:
        self._upstream = upstream
        self._seed = seed
        self._faults = faults
        self._hear = hear
        self.counters = Counters()
        self._numbers: Counter[str] = Counter()
        self._alive: dict[asyncio.StreamWriter, tuple[bool, asyncio.StreamWriter]] = {}
        self._servers: list[asyncio.Server] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="chaos-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def open(self, link: str) -> int:
        """A new link; the port that leads into it.

        Raises:
            OSError: no port is free.
        """
        return asyncio.run_coroutine_threadsafe(self._listen(link), self._loop).result()

    def cut(self) -> None:
        """No link from here on: nothing is carried and nobody is told."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def mend(self) -> None:
        """The links are back; some connections were forgotten meanwhile and are reset."""
        asyncio.run_coroutine_threadsafe(self._mend(), self._loop).result()

    # In the thread

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._linked = asyncio.Event(), asyncio.Event()
        self._linked.set()
        self._ready.set()
        await self._stop.wait()
        for server in self._servers:
            server.close()
        for down, (_, up) in list(self._alive.items()):
            _reset(down)
            _reset(up)

    async def _listen(self, link: str) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(link, reader, writer)

        server = await asyncio.start_server(connected, _HOST, 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _cut(self) -> None:
        self._linked.clear()

    async def _mend(self) -> None:
        for down, (forgotten, up) in list(self._alive.items()):
            if forgotten and not self._linked.is_set():
                self.counters.resets += 1
                _reset(down)
                _reset(up)
        self._linked.set()

    async def _serve(self, link: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._numbers[link]
        self._numbers[link] += 1
        self.counters.connections += 1
        up, down = (Script(self._faults, self._seed, link, number, direction) for direction in ("up", "down"))
        try:
            await self._linked.wait()
            there, to_there = await asyncio.open_connection(_HOST, self._upstream)
        except OSError:  # nobody listens there: tell as the kernel would
            _reset(writer)
            return
        except asyncio.CancelledError:
            _reset(writer)
            raise
        self._alive[writer] = (up.forgotten, to_there)
        try:
            await self._carry(up, down, (reader, writer), (there, to_there))
        except* (OSError, _Broken):
            _reset(writer)
            _reset(to_there)
        finally:
            del self._alive[writer]
            writer.close()
            to_there.close()

    async def _carry(self, up: Script, down: Script, here: Any, there: Any) -> None:
        """Both directions until both have ended, or one of them breaks."""
        heard = self._hear()

        def went_up(chunk: bytes) -> None:
            self.counters.up_bytes += len(chunk)
            heard(chunk)

        def came_down(chunk: bytes) -> None:
            self.counters.down_bytes += len(chunk)

        lines: tuple[_Line, _Line] = asyncio.Queue(_LINE_CHUNKS), asyncio.Queue(_LINE_CHUNKS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(here[0], lines[0], up, went_up, self._faults.up_bytes_s))
            group.create_task(self._deliver(lines[0], there[1]))
            group.create_task(self._take(there[0], lines[1], down, came_down, self._faults.down_bytes_s))
            group.create_task(self._deliver(lines[1], here[1]))

    async def _take(
        self, reader: asyncio.StreamReader, line: _Line, script: Script, heard: Hear, bytes_s: float
    ) -> None:
        """From one side into the line, as the script says."""
        left, free_s = script.budget, 0.0
        while left > 0:
            step = script.next()
            await self._linked.wait()
            most = max(1.0, bytes_s * _PIECE_S) if bytes_s else left
            chunk = await reader.read(int(min(step.size, left, most)))
            await self._linked.wait()
            heard(chunk)
            if chunk and step.stall_s is not None:
                self.counters.stalls += 1
                await asyncio.sleep(step.stall_s)
                raise _Broken
            free_s = max(self._loop.time(), free_s) + (len(chunk) / bytes_s if bytes_s else 0.0)
            await line.put((free_s + step.delay_s, chunk))
            if not chunk:
                return
            left -= len(chunk)
            await asyncio.sleep(free_s - self._loop.time() - _AHEAD_S)
        await line.put((free_s, None))

    async def _deliver(self, line: _Line, writer: asyncio.StreamWriter) -> None:
        """From the line to the other side, each chunk at its time."""
        while True:
            due_s, chunk = await line.get()
            await asyncio.sleep(due_s - self._loop.time())
            await self._linked.wait()
            if chunk is None:
                self.counters.resets += 1
                raise _Broken
            if not chunk:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, and let the other side know by RST."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    writer.transport.abort()
