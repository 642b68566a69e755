"""Device → people: its status in a file and retained on the broker, and its sensors for Home Assistant."""

import json
import logging
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from edgeclient.link.mqtt import Link, LinkDown
from edgeclient.presence.home_assistant import discovery
from edgeclient.settings import Device
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status

_LOG = logging.getLogger(__name__)
STATUS_FILE: Final = "status.json"


class Teller:
    """Tells how the device is.

    Args:
        settings: the device's configuration.
        link: the connection.
    """

    def __init__(self, settings: Device, link: Link) -> None:
        self._settings = settings
        self._link = link

    def introduce(self) -> None:
        """Tell Home Assistant where its sensors are; again at every connection, since a broker may have forgotten."""
        if (wanted := self._settings.home_assistant) is not None:
            with suppress(LinkDown):
                for topic, config in discovery(wanted.discovery_prefix, self._settings.task, self._settings.device):
                    self._link.publish(topic, config, retain=True)

    def tell(self, said: Status, gain: Any) -> None:
        """Into status.json for `edgeclient status`, and retained on the broker for everybody.

        Args:
            said: the status.
            gain: what the last round gained on held-out examples, a dataclass, or None; it stays on the device.
        """
        # Not synced: it wears the card, and after a power cut nobody misses the last second.
        path = self._settings.directory / STATUS_FILE
        try:
            text = json.dumps({**asdict(said), "gain": None if gain is None else asdict(gain)})
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").replace(path)
        except OSError as error:
            _LOG.warning("%s cannot be written: %s", path, error)
        with suppress(LinkDown):
            topic = topics.status(self._settings.task, self._settings.device)
            self._link.publish(topic, status.encode(said), retain=True)
