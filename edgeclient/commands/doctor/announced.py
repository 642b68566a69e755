"""What a task's models want of the data, fetched beside a device that has none yet; nothing is kept."""

import socket
import time
from contextlib import suppress
from typing import Final

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Manifest
from edgeclient.link.events import Connected, Disconnected, LinkDown, Message
from edgeclient.link.mqtt import Endpoint, Link
from edgeclient.models.fetch import Fetch
from edgeclient.settings import ConfigError, Device
from edgeclient.wire import announcement, topics
from edgeclient.wire.errors import WireError

_TCP_S: Final = 3.0
_CONNECT_S: Final = 4.0
_FETCH_S: Final = 15.0
_MOST_BYTES: Final = 16 << 20


def announced(settings: Device) -> Manifest | None:
    """The manifest of the bundle that is announced; None where that does not come within 20 s, or is over 16 MB."""
    try:
        socket.create_connection((settings.mqtt.host, settings.mqtt.port), timeout=_TCP_S).close()
        link = Link(Endpoint.of(settings.mqtt), client_id_prefix=f"{settings.device}-looks")
    except (ConfigError, OSError):
        return None  # the check of the broker says why
    link.start()
    try:
        return _fetched(link, settings.task)
    except (LinkDown, WireError):
        return None
    finally:
        link.stop()


def _fetched(link: Link, task: str) -> Manifest | None:
    until_s, fetch, asked = time.monotonic() + _CONNECT_S, None, set[int]()
    while (left_s := until_s - time.monotonic()) > 0:
        for event in link.poll(left_s, limit=1):
            match event:
                case Connected():
                    link.subscribe(topics.head(task))
                case Disconnected():
                    return None
                case Message() as message:
                    with suppress(LinkDown):
                        link.acknowledge(message)
                    topic = topics.parse(message.topic)
                    if topic.kind == "head" and fetch is None and message.payload:
                        blob = announcement.decode(message.payload).bundle
                        if blob.size > _MOST_BYTES:
                            return None
                        fetch, until_s = Fetch(blob), time.monotonic() + _FETCH_S
                    elif topic.kind == "blob" and fetch is not None and topic.rest[0] == fetch.blob.digest:
                        content = fetch.receive(int(topic.rest[1]), message.payload)
                        if content is not None:
                            return archive.decode(content).manifest
        if fetch is not None and (wanted := set(fetch.wanted())) != asked:
            link.unsubscribe(*(topics.blob(task, fetch.blob.digest, chunk) for chunk in sorted(asked - wanted)))
            link.subscribe(*(topics.blob(task, fetch.blob.digest, chunk) for chunk in sorted(wanted - asked)), qos=0)
            asked = wanted
    return None
