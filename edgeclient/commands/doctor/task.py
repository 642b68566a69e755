"""What a configuration names: local data, the MQTT broker, and the task there."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeclient.commands.doctor.findings import Finding
from edgeclient.link.mqtt import Connected, Disconnected, Endpoint, Link, LinkDown, Message, SubscriptionRefused
from edgeclient.settings import ConfigError, Device, load
from edgeclient.train.batches import DataError
from edgeclient.train.data import check_source
from edgeclient.wire import announcement, topics
from edgeclient.wire.errors import WireError

_TCP_S: Final = 3.0
_CONNECT_S: Final = 4.0
# A retained announcement follows the subscription at once.
_ANNOUNCED_S: Final = 2.0


def configuration(path: Path) -> tuple[Device | None, Finding]:
    """The configuration, None where it is no good."""
    try:
        settings = load(path, Device)
    except ConfigError as error:
        return None, Finding("fail", "configuration", str(error), f"edit {path}")
    return settings, Finding("ok", "configuration", f"{path}: {settings.device} learns {settings.task}")


def data(settings: Device) -> Iterator[Finding]:
    """Whether the data source is there; a function's module is imported, as `run` does."""
    source = settings.data.source
    try:
        check_source(source)
    except DataError as error:
        yield Finding("fail", "data", str(error), "edit [data] source, or put the data there")
        return
    yield Finding("ok", "data", source)


@dataclass(frozen=True, slots=True)
class Heard:
    """What an MQTT connection came to.

    Attributes:
        connected: the broker has accepted us.
        why: what it said instead, "" for nothing.
        granted: it lets us read the task's announcement.
        head: the announcement; None where there is none.
    """

    connected: bool = False
    why: str = ""
    granted: bool = True
    head: bytes | None = None


def broker(settings: Device) -> Iterator[Finding]:
    """Whether the MQTT broker can be reached, accepts us, and serves the task."""
    host, port = settings.mqtt.host, settings.mqtt.port
    began = time.perf_counter()
    try:
        socket.create_connection((host, port), timeout=_TCP_S).close()
    except OSError as error:
        advice = "see that the MQTT broker runs, [mqtt] host and port, the network and firewalls"
        yield Finding("fail", "broker", f"{host}:{port} cannot be reached: {error.strerror or error}", advice)
        return
    reached_ms = 1e3 * (time.perf_counter() - began)
    try:
        heard = listen(settings)
    except ConfigError as error:
        yield Finding("fail", "broker", str(error), "edit [mqtt], or put the file right")
        return
    yield judge_connection(heard, f"{host}:{port}", reached_ms)
    if heard.connected:
        yield judge_task(heard, settings.task)


def listen(settings: Device) -> Heard:
    """Connect, and wait a moment for the task's announcement.

    Raises:
        ConfigError: a certificate or the password file is no good.
    """
    link = Link(Endpoint.of(settings.mqtt), client_id_prefix=f"{settings.device}-doctor")
    topic = topics.head(settings.task)
    heard, until_s = Heard(), time.monotonic() + _CONNECT_S
    link.start()
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(left_s, limit=1):
                match event:
                    case Connected():
                        heard, until_s = Heard(connected=True), time.monotonic() + _ANNOUNCED_S
                        with contextlib.suppress(LinkDown):  # Disconnected follows
                            link.subscribe(topic)
                    case Disconnected(why):
                        return Heard(why=why)
                    case SubscriptionRefused():
                        return Heard(connected=True, granted=False)
                    case Message() if event.topic == topic:
                        return Heard(connected=True, head=event.payload)
        return heard
    finally:
        link.stop()


def judge_connection(heard: Heard, where: str, reached_ms: float) -> Finding:
    """Whether it is an MQTT broker that takes us.

    Example:
        >>> judge_connection(Heard(), "pi:1883", 1.0).what
        'pi:1883 answers, but not as an MQTT broker'
    """
    if heard.connected:
        return Finding("ok", "broker", f"{where} accepts this device, reached in {reached_ms:.1f} ms")
    if heard.why:
        return Finding("fail", "broker", f"{where}: {heard.why}", "see the MQTT broker's log and access rules")
    return Finding("fail", "broker", f"{where} answers, but not as an MQTT broker", "see [mqtt] port; 1883 is usual")


def judge_task(heard: Heard, task: str) -> Finding:
    """Whether there is something to learn.

    Example:
        >>> judge_task(Heard(connected=True), "har").what
        'nobody announces har'
    """
    if not heard.granted:
        return Finding(
            "fail", "task", f"the broker does not let this device read {topics.head(task)}", "allow it there"
        )
    if heard.head is None:
        return Finding(
            "warn", "task", f"nobody announces {task}", "see task in the configuration; on the server: edgebroker serve"
        )
    try:
        announced = announcement.decode(heard.head)
    except WireError as error:
        return Finding("fail", "task", f"{task} is announced in a way unknown here: {error}", "update edgeclient")
    return Finding("ok", "task", f"{task} is at version {announced.version}, {announced.size:,} parameters")
