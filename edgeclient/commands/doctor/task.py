"""What a configuration names: the MQTT broker, and the task there."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeclient.commands.doctor.connection import Heard, heard
from edgeclient.commands.doctor.findings import Finding
from edgeclient.link import refusal
from edgeclient.link.limits import LEAST_BYTES
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import ConfigError, Device, load
from edgeclient.wire import announcement, topics
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_FRAME_BYTES

_TCP_S: Final = 3.0


def configuration(path: Path) -> tuple[Device | None, Finding]:
    """The configuration, None where it is no good."""
    try:
        settings = load(path, Device)
    except ConfigError as error:
        return None, Finding("fail", "configuration", str(error), f"edit {path}")
    return settings, Finding("ok", "configuration", f"{path}: {settings.device} learns {settings.task}")


def broker(settings: Device) -> Iterator[Finding]:
    """Whether the MQTT broker can be reached, accepts us, and serves the task, and whether the aggregator hears us."""
    where = Endpoint(settings.mqtt.host, settings.mqtt.port).where
    began = time.perf_counter()
    try:
        socket.create_connection((settings.mqtt.host, settings.mqtt.port), timeout=_TCP_S).close()
    except OSError as error:
        advice = "see that the MQTT broker runs, [mqtt] host and port, the network and firewalls"
        yield Finding("fail", "broker", refusal.of_error(error, where).text, advice)
        return
    reached_ms = 1e3 * (time.perf_counter() - began)
    try:
        found = heard(settings)
    except ConfigError as error:
        yield Finding("fail", "broker", str(error), "edit [mqtt], or put the file right")
        return
    yield judge_connection(found, where, reached_ms)
    if found.accepted and not found.why:
        yield from judge_limits(found)
        yield judge_task(found, settings)
        if found.head is not None:
            yield judge_answer(found, settings)


def judge_connection(found: Heard, where: str, reached_ms: float) -> Finding:
    """Whether it is an MQTT broker that takes us."""
    if found.why:
        return Finding("fail", "broker", f"{where}: {found.why}", "see the MQTT broker's log and access rules")
    if not found.accepted:
        advice = "see [mqtt] port; 1883 is usual"
        return Finding("fail", "broker", f"{where} answers, but not as an MQTT broker", advice)
    return Finding("ok", "broker", f"{where} accepts this device, reached in {reached_ms:.1f} ms")


def judge_limits(found: Heard) -> Iterator[Finding]:
    """What a broker that speaks MQTT 5 does not take."""
    if found.told is None:
        return
    told = found.told.limits
    if not told.retain:
        yield Finding(
            "fail", "broker limits", "it keeps no retained messages, and the model is one", "allow them there"
        )
    if told.packet_bytes < LEAST_BYTES:
        yield Finding("fail", "broker limits", f"packets of {told.packet_bytes} bytes at most", "raise that there")
    elif told.packet_bytes < MAX_FRAME_BYTES:
        what = f"packets of {told.packet_bytes} bytes at most: frames and chunks are cut to fit"
        yield Finding("ok", "broker limits", what, f"[mqtt] max_packet_bytes = {told.packet_bytes} saves finding out")
    if told.qos == 0:
        yield Finding("warn", "broker limits", "QoS 0 only: what is lost on the way is sent again", "allow QoS 1 there")


def judge_task(found: Heard, settings: Device) -> Finding:
    """Whether there is something to learn."""
    task, head = settings.task, topics.placed(topics.head(settings.task), settings.mqtt.prefix)
    if head in found.refused:
        return Finding("fail", "task", f"the broker does not let this device read {head}", "allow it there")
    if found.head is None:
        advice = "see task in the configuration; on the server: edgebroker serve"
        names = ", ".join(sorted(found.others))
        return Finding("warn", "task", f"nobody announces {task}{names and f'; announced are: {names}'}", advice)
    try:
        announced = announcement.decode(found.head)
    except WireError as error:
        return Finding("fail", "task", f"{task} is announced in a way unknown here: {error}", "update edgeclient")
    return Finding("ok", "task", f"{task} is at version {announced.version}, {announced.size:,} parameters")


def judge_answer(found: Heard, settings: Device) -> Finding:
    """Whether the aggregator hears this device, and the device its answer."""
    mqtt, name = settings.mqtt, settings.mqtt.username or "this device"
    up, down = (topics.placed(of(settings.task, settings.device), mqtt.prefix) for of in (topics.up, topics.down))
    if down in found.refused:
        return Finding("fail", "answer", f"the broker does not let this device read {down}", "allow it there")
    if found.answer_s is not None:
        return Finding("ok", "answer", f"the aggregator answered HELLO in {1e3 * found.answer_s:.0f} ms")
    said = "" if found.told is None else found.told.published
    what = f"no receipt answered HELLO{said and f'; of the HELLO the broker says: {said}'}"
    likely = f"does edgebroker serve run, and do the broker's access rules let {name} write {up} and read {down}?"
    return Finding("fail", "answer", what, likely)
