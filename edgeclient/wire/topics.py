"""MQTT topics of the protocol: the one place that builds and reads them (FORMAT.md, section 2).

Example:
    >>> up("har", "pi-7"), parse("edge/v1/har/up/pi-7")
    ('edge/v1/har/up/pi-7', Topic(task='har', kind='up', rest=('pi-7',)))
"""

import re
from typing import Final, NamedTuple

from edgeclient.wire.errors import WireError

PREFIX: Final = "edge/v1"
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DEVICE_KINDS: Final = frozenset({"up", "down", "status"})


class Topic(NamedTuple):
    """A topic taken apart: `rest` is (device,), (digest, chunk number) or nothing."""

    task: str
    kind: str
    rest: tuple[str, ...]


def checked(name: str) -> str:
    """The device or task id itself, if it may stand in a topic; WireError("name") otherwise."""
    if not NAME.fullmatch(name):
        raise WireError("name", f"{name[:80]!r} is not a device or task id: use 1 to 64 of A-Z a-z 0-9 _ -")
    return name


def heads() -> str:
    """Filter for the announcements of all tasks."""
    return f"{PREFIX}/+/head"


def head(task: str) -> str:
    """Retained announcement of a task."""
    return f"{PREFIX}/{checked(task)}/head"


def claim(task: str) -> str:
    """What aggregators ask each other: who serves the task."""
    return f"{PREFIX}/{checked(task)}/claim"


def blob(task: str, digest: str, chunk: int) -> str:
    """Retained chunk of a bundle or snapshot."""
    return f"{PREFIX}/{checked(task)}/blob/{digest}/{chunk}"


def up(task: str, device: str) -> str:
    """From a device to the aggregator: HELLO, FRAME, WITHDRAW."""
    return f"{PREFIX}/{checked(task)}/up/{checked(device)}"


def down(task: str, device: str) -> str:
    """From the aggregator to a device: receipts, commands."""
    return f"{PREFIX}/{checked(task)}/down/{checked(device)}"


def status(task: str, device: str) -> str:
    """Retained presence of a device, and its last will."""
    return f"{PREFIX}/{checked(task)}/status/{checked(device)}"


def discovery(prefix: str, device: str, sensor: str) -> str:
    """Where Home Assistant looks for the configuration of a device's sensor."""
    return f"{prefix}/sensor/{checked(device)}/{sensor}/config"


def everyone(task: str, kind: str) -> str:
    """Filter for one kind of device topic, over all devices of a task."""
    assert kind in _DEVICE_KINDS, kind
    return f"{PREFIX}/{checked(task)}/{kind}/+"


def placed(topic: str, prefix: str) -> str:
    """A topic of ours as a broker has it where they lie below another prefix; others stay as they are.

    Example:
        >>> placed("edge/v1/har/head", "site/edge"), placed("$SYS/uptime", "site/edge")
        ('site/edge/har/head', '$SYS/uptime')
    """
    return _moved(topic, PREFIX, prefix)


def found(topic: str, prefix: str) -> str:
    """The reverse of `placed`.

    Example:
        >>> found("site/edge/har/head", "site/edge")
        'edge/v1/har/head'
    """
    return _moved(topic, prefix, PREFIX)


def _moved(topic: str, old: str, new: str) -> str:
    return new + topic.removeprefix(old) if old != new and topic.startswith(f"{old}/") else topic


def parse(topic: str) -> Topic:
    """Take a topic apart.

    Raises:
        WireError: "topic" or "name", when it is not one of ours.
    """
    parts = topic.split("/")
    match parts:
        case ["edge", "v1", task, ("head" | "claim") as kind]:
            return Topic(checked(task), kind, ())
        case ["edge", "v1", task, "blob", digest, chunk] if (
            _DIGEST.fullmatch(digest) and chunk.isascii() and chunk.isdigit() and len(chunk) <= 9
        ):
            return Topic(checked(task), "blob", (digest, chunk))
        case ["edge", "v1", task, kind, device] if kind in _DEVICE_KINDS:
            return Topic(checked(task), kind, (checked(device),))
    raise WireError("topic", f"{topic[:120]!r} is not a topic of this protocol")
