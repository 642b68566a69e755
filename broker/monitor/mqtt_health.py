"""How the MQTT broker is, by its own words: $SYS topics of Mosquitto, or the monitoring endpoint of NATS.

Both may be another program than one thinks, so that every number is looked at before it is believed.
"""

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Final

from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import json_object

# Topic → our name. Mosquitto publishes them every ten seconds (sys_interval); uptime always changes.
TOPICS: Final = {
    "$SYS/broker/uptime": "uptime_seconds",
    "$SYS/broker/clients/connected": "clients",
    "$SYS/broker/messages/received": "received_messages",
    "$SYS/broker/messages/sent": "sent_messages",
    "$SYS/broker/publish/messages/dropped": "dropped_messages",
    "$SYS/broker/store/messages/bytes": "stored_bytes",
}
_VARZ: Final = {
    "connections": "clients",
    "in_msgs": "received_messages",
    "out_msgs": "sent_messages",
    "slow_consumers": "slow_consumers",
}
_NUMBER: Final = re.compile(rb"(\d{1,18})( seconds)?")
_MOST_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 0.5
_FRESH_S: Final = 5.0


def number(payload: bytes) -> int | None:
    """A count as $SYS writes it; None for anything else.

    Example:
        >>> number(b"12"), number(b"34 seconds"), number(b"-1"), number(b"9" * 40)
        (12, 34, None, None)
    """
    found = _NUMBER.fullmatch(payload)
    return int(found[1]) if found else None


def of_varz(content: bytes) -> dict[str, int]:
    """What /varz of a NATS server tells, as far as it makes sense.

    Raises:
        WireError: no JSON object.

    Example:
        >>> of_varz(b'{"connections": 3, "slow_consumers": "no", "jetstream": {"stats": {"storage": 4096}}}')
        {'clients': 3, 'stored_bytes': 4096}
    """
    told = json_object(content)
    found = {name: told.get(key) for key, name in _VARZ.items()}
    stats = told.get("jetstream")
    stats = stats.get("stats") if isinstance(stats, dict) else None
    found["stored_bytes"] = stats.get("storage") if isinstance(stats, dict) else None
    return {name: value for name, value in found.items() if type(value) is int and 0 <= value < 2**63}


class MqttHealth:
    """The last numbers of the broker, and how old they are.

    Args:
        clock: steady seconds.

    Attributes:
        url: gives the address of a NATS monitoring endpoint, "" while there is none; None where nobody serves one.

    Example:
        >>> health = MqttHealth(clock=lambda: 5.0)
        >>> health.hear("$SYS/broker/clients/connected", b"7"), health.told(), health.age_s()
        (True, {'clients': 7}, 0.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.url: Callable[[], str] | None = None
        self._clock = clock
        self._told: dict[str, int] = {}
        self._told_s: float | None = None
        self._asked_s: float | None = None

    def hear(self, topic: str, payload: bytes) -> bool:
        """Take in a message; False when it is on another topic."""
        name = TOPICS.get(topic)
        if name is None:
            return False
        value = number(payload)
        if value is not None:
            self._told = {**self._told, name: value}
            self._told_s = self._clock()
        return True

    def told(self) -> Mapping[str, int]:
        """The numbers by name; a NATS server is asked, at most every five seconds and for half a second."""
        now = self._clock()
        if self.url is not None and (self._asked_s is None or now - self._asked_s >= _FRESH_S):
            self._asked_s = now
            # Not there, or no NATS: its age tells.
            with contextlib.suppress(OSError, HTTPException, WireError, ValueError):
                self._told, self._told_s = _fetched(self.url()), now
        return self._told

    def age_s(self) -> float | None:
        """How long ago it told something; None for never."""
        return None if self._told_s is None else self._clock() - self._told_s


def _fetched(url: str) -> dict[str, int]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no web address")
    with urllib.request.urlopen(f"{url.rstrip('/')}/varz", timeout=_TIMEOUT_S) as answer:  # noqa: S310 (checked above)
        return of_varz(answer.read(_MOST_BYTES))
