"""What a configuration names: the MQTT broker, and the task there."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeclient.commands.doctor.findings import Finding
from edgeclient.link.events import Connected, Disconnected, Event, LinkDown, Message, SubscriptionRefused
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.settings import ConfigError, Device, load
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
    if heard is not None and not isinstance(heard, Disconnected):
        yield judge_task(heard, settings.task)


def listen(settings: Device) -> Event | None:
    """Connect, and wait a moment for the task's announcement: the event that says most, None for silence.

    Raises:
        ConfigError: a certificate or the password file is no good.
    """
    link = Link(Endpoint.of(settings.mqtt), client_id_prefix=f"{settings.device}-doctor")
    topic = topics.head(settings.task)
    connected, until_s = None, time.monotonic() + _CONNECT_S
    link.start()
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            for event in link.poll(left_s, limit=1):
                if isinstance(event, Connected):
                    connected, until_s = event, time.monotonic() + _ANNOUNCED_S
                    with contextlib.suppress(LinkDown):  # Disconnected follows
                        link.subscribe(topic)
                elif not isinstance(event, Message) or event.topic == topic:
                    return event
        return connected
    finally:
        link.stop()


def judge_connection(heard: Event | None, where: str, reached_ms: float) -> Finding:
    """Whether it is an MQTT broker that takes us."""
    match heard:
        case None:
            advice = "see [mqtt] port; 1883 is usual"
            return Finding("fail", "broker", f"{where} answers, but not as an MQTT broker", advice)
        case Disconnected(why):
            return Finding("fail", "broker", f"{where}: {why}", "see the MQTT broker's log and access rules")
    return Finding("ok", "broker", f"{where} accepts this device, reached in {reached_ms:.1f} ms")


def judge_task(heard: Event, task: str) -> Finding:
    """Whether there is something to learn."""
    if isinstance(heard, SubscriptionRefused):
        what = f"the broker does not let this device read {topics.head(task)}"
        return Finding("fail", "task", what, "allow it there")
    if not isinstance(heard, Message):
        advice = "see task in the configuration; on the server: edgebroker serve"
        return Finding("warn", "task", f"nobody announces {task}", advice)
    try:
        announced = announcement.decode(heard.payload)
    except WireError as error:
        return Finding("fail", "task", f"{task} is announced in a way unknown here: {error}", "update edgeclient")
    return Finding("ok", "task", f"{task} is at version {announced.version}, {announced.size:,} parameters")
