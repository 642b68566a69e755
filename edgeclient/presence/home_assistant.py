"""The device's sensors in Home Assistant, by MQTT discovery: retained configurations that point at its status.

Nothing more is published than these: Home Assistant reads the status that every device has anyway. A template that
gives nothing leaves the last value in place, so that a last will, which knows no battery, wipes none out.
"""

import json
from typing import Any, Final, NamedTuple

from edgeclient import __version__
from edgeclient.wire import topics


class Sensor(NamedTuple):
    """What Home Assistant calls an entity.

    Attributes:
        name: for people.
        key: of the status.
        kind: its device class, "" for none.
        unit: of measurement, "" for none.
        shown: how the value is shown, as a Jinja filter.
    """

    name: str
    key: str
    kind: str = ""
    unit: str = ""
    shown: str = ""

    @property
    def template(self) -> str:
        """Gives the value, or nothing."""
        value = f"value_json.{self.key}"
        return f"{{% if {value} is defined %}}{{{{ {value}{self.shown} }}}}{{% endif %}}"


SENSORS: Final = {
    "battery": Sensor("battery", "battery_percent", "battery", "%"),
    "temperature": Sensor("temperature", "temperature_c", "temperature", "°C"),
    "last_upload": Sensor("last upload", "uploaded_s", "timestamp", shown=" | as_datetime"),
    "model_version": Sensor("model version", "version"),
    "activity": Sensor("activity", "doing"),
}


def discovery(prefix: str, task: str, device: str, below: str = topics.PREFIX) -> list[tuple[str, bytes]]:
    """Topics, and the configurations to be retained there; empty payloads in their place remove the sensors.

    Args:
        prefix: below which Home Assistant listens, "homeassistant" unless it was told otherwise.
        task: task id.
        device: device id.
        below: what our topics begin with on this broker, as in [mqtt].

    Example:
        >>> topic, payload = discovery("homeassistant", "har", "pi-7")[0]
        >>> topic, json.loads(payload)["state_topic"]
        ('homeassistant/sensor/pi-7/har_battery/config', 'edge/v1/har/status/pi-7')
    """
    return [
        (topics.discovery(prefix, device, f"{task}_{name}"), _config(name, sensor, task, device, below))
        for name, sensor in SENSORS.items()
    ]


def _config(name: str, sensor: Sensor, task: str, device: str, below: str) -> bytes:
    own = topics.placed(topics.status(task, device), below)
    config: dict[str, Any] = {
        "name": f"{task} {sensor.name}",
        "unique_id": f"edgeclient_{task}_{device}_{name}",
        "state_topic": own,
        "value_template": sensor.template,
        "availability_topic": own,
        "availability_template": "{{ value_json.state }}",
        "payload_available": "online",
        "payload_not_available": "offline",
        "entity_category": "diagnostic",
        "device": {"identifiers": [f"edgeclient_{device}"], "name": device, "sw_version": __version__},
        "origin": {"name": "edgeclient", "sw_version": __version__},
    }
    if sensor.kind:
        config["device_class"] = sensor.kind
    if sensor.unit:
        config["unit_of_measurement"] = sensor.unit
    return json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode()
