"""The book of devices: what each last said of itself, in bounded memory, since who publishes chooses its name."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from broker.monitor.events import Notice
from broker.monitor.silence import silent_s
from broker.monitor.text import printable
from edgeclient.wire import status, topics
from edgeclient.wire.status import OFFLINE, Status

MAX_DEVICES: Final = 50_000  # 53 MB, measured
STATES: Final = ("training", "sending", "waiting", OFFLINE)
_EVENTS: Final = 100
# What comes this soon after a connection is what the MQTT broker has kept: when that was said is unknown.
_KEPT_S: Final = 3.0


class Sighting(NamedTuple):
    """A device by its own words.

    Attributes:
        said: its last status; its note steers no terminal.
        since_s: since when it is online or offline (Unix seconds); None for unknown.
        heard_s: when it last said something new, by the fleet's steady clock.
        silent: whether its heartbeat is missing.
    """

    said: Status
    since_s: float | None
    heard_s: float
    silent: bool = False

    @property
    def state(self) -> str:
        """One of STATES.

        Example:
            >>> [Sighting(Status("online", "a", note=note), None, 0.0).state for note in ("training", "quiet hours")]
            ['training', 'waiting']
        """
        if self.silent or self.said.state == OFFLINE:
            return OFFLINE
        if self.said.note.startswith("training"):
            return "training"
        return "sending" if self.said.note.startswith("sending") else "waiting"


@dataclass(slots=True)
class Fleet:
    """The devices of all tasks; written by one thread at a time, read by any.

    Counters of devices start at zero with every session, and a killed session's last second is never told: sums over
    sessions are what was reported, a little less than what was.

    Attributes:
        most: further devices are left out.
        clock: steady seconds.
        wall: Unix seconds.
        left_out: statuses of devices for which there was no room.
        changes: rises with everything new.
        downlink_bytes: MQTT payload bytes that devices have received, in all sessions.
        socket_bytes: TCP payload bytes in both directions, likewise: all of MQTT, its headers and pings included.
        events: who came and went, newest last.

    Example:
        >>> fleet = Fleet()
        >>> fleet.hear("edge/v1/har/status/pi-7", status.encode(Status("online", "a", queued=3)))
        True
        >>> fleet.devices("har")["pi-7"].said.queued
        3
        >>> fleet.hear("edge/v1/har/status/pi-7", b""), fleet.find("har", "pi-7")
        (True, None)
    """

    most: int = MAX_DEVICES
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    left_out: int = 0
    changes: int = 0
    downlink_bytes: int = 0
    socket_bytes: int = 0
    events: deque[Notice] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    _devices: dict[str, dict[str, Sighting]] = field(default_factory=dict)
    _before: dict[str, dict[str, Sighting]] = field(default_factory=dict)
    _connected_s: float = -math.inf

    def __len__(self) -> int:
        return sum(map(len, self._devices.values()))

    def tasks(self) -> list[str]:
        """Those of which a device has said something."""
        return sorted(self._devices)

    def devices(self, task: str) -> dict[str, Sighting]:
        """All of a task by name, as they are now."""
        now_s = self.clock()
        return {name: _judged(each, now_s) for name, each in self._devices.get(task, {}).copy().items()}

    def find(self, task: str, device: str) -> Sighting | None:
        """One of them."""
        found = self._devices.get(task, {}).get(device)
        return None if found is None else _judged(found, self.clock())

    def end(self, task: str) -> None:
        """Nobody listens to its devices any more."""
        self._devices.pop(task, None)
        self.changes += 1

    def connected(self) -> None:
        """The statuses that the MQTT broker has kept follow; a device of which none follows has left."""
        self._before, self._devices, self._connected_s = self._devices, {}, self.clock()
        self.changes += 1

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take in a message; False when it is on another topic than a status. An empty one forgets the device.

        Raises:
            WireError: it is no status; nothing has changed.
        """
        if "/status/" not in topic:  # three times as fast as to take every upload's topic apart
            return False
        parsed = topics.parse(topic)
        if parsed.kind != "status":
            return False
        (device,) = parsed.rest
        if payload:
            self._take(parsed.task, device, status.decode(payload))
        elif self._devices.get(parsed.task, {}).pop(device, None) is not None:
            self.changes += 1
        return True

    def _take(self, task: str, device: str, told: Status) -> None:
        known = self._devices.get(task, {}).get(device)
        if known is None and len(self) >= self.most:
            self.left_out += 1
            return
        if known is not None and told.state == OFFLINE and told.session != known.said.session:
            return  # the late will of an earlier session
        # What is kept by the MQTT broker may be of a session that began and ended while nobody listened.
        known = known or self._before.get(task, {}).pop(device, None)
        if not told.note.isprintable():
            told = replace(told, note=printable(told.note))
        if known is not None and told.session == known.said.session:
            if told.socket_sent < known.said.socket_sent:  # a last will carries no counters: they are as they were
                told = replace(known.said, state=told.state, note=told.note)
            self._sum(told, known.said)
        else:
            self._sum(told)
        self._devices.setdefault(task, {})[device] = self._entry(task, device, known, told)

    def _sum(self, told: Status, before: Status | None = None) -> None:
        self.downlink_bytes += told.down_bytes
        self.socket_bytes += told.socket_sent + told.socket_received
        if before is not None:
            self.downlink_bytes -= before.down_bytes
            self.socket_bytes -= before.socket_sent + before.socket_received

    def _entry(self, task: str, device: str, known: Sighting | None, told: Status) -> Sighting:
        now_s = self.clock()
        if known is not None and told == known.said:
            return known  # the MQTT broker's words, after a reconnect; a device's heartbeat says other numbers
        self.changes += 1
        if known is None:
            return Sighting(told, None if now_s - self._connected_s < _KEPT_S else self.wall(), now_s)
        if known.said.state == told.state:
            return Sighting(told, known.since_s, now_s)
        text = f"is offline: {told.note}" if told.state == OFFLINE else "is online"
        self.events.append(Notice(self.wall(), task, device, told.state, text))
        return Sighting(told, self.wall(), now_s)


def _judged(sighting: Sighting, now_s: float) -> Sighting:
    """What the MQTT broker has kept of a device that went off with it is never put right by a last will."""
    said = sighting.said
    gone = said.state != OFFLINE and now_s - sighting.heard_s > silent_s(said)
    return sighting._replace(silent=True) if gone else sighting
