"""Sensors in Home Assistant: what is announced, kept by a real broker, and taken away by `leave`."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import fleet
import pytest
from command_lines import edgeclient

from broker.processes import children
from edgeclient.link.mqtt import Endpoint, Link, Message
from edgeclient.presence.home_assistant import SENSORS, discovery
from edgeclient.settings import ConfigError, Device, HomeAssistant, load
from edgeclient.wire import topics
from edgeclient.wire.status import Status


def configs(task: str = "har", device: str = "pi-7") -> dict[str, dict[str, Any]]:
    return {topic: json.loads(payload) for topic, payload in discovery("homeassistant", task, device)}


def test_every_sensor_is_one_entity_that_reads_the_status() -> None:
    made = configs()
    assert list(made) == [f"homeassistant/sensor/pi-7/har_{name}/config" for name in SENSORS]
    assert len({each["unique_id"] for each in made.values()}) == len(made)
    keys = {field.name for field in fields(Status)}
    for each in made.values():
        assert each["state_topic"] == each["availability_topic"] == topics.status("har", "pi-7")
        assert set(re.findall(r"value_json\.(\w+)", each["value_template"])) <= keys
        assert re.fullmatch(r"\{% if .* %\}\{\{ .* \}\}\{% endif %\}", each["value_template"])
        assert (each["payload_available"], each["payload_not_available"]) == ("online", "offline")
        assert each["device"]["identifiers"] == ["edgeclient_pi-7"]
    battery = made["homeassistant/sensor/pi-7/har_battery/config"]
    assert (battery["device_class"], battery["unit_of_measurement"]) == ("battery", "%")
    upload = made["homeassistant/sensor/pi-7/har_last_upload/config"]
    assert upload["device_class"] == "timestamp"
    assert "value_json.uploaded_s | as_datetime" in upload["value_template"]
    assert configs("other").keys().isdisjoint(made)


@pytest.mark.case("fleet 44")
def test_sensors_read_where_the_status_lies() -> None:
    for _, payload in discovery("homeassistant", "har", "pi-7", "site/edge"):
        assert json.loads(payload)["state_topic"] == "site/edge/har/status/pi-7"


def test_it_is_off_by_default_and_the_prefix_is_a_topic(tmp_path: Path) -> None:
    text = 'device = "d"\ntask = "t"\ndirectory = "."\n[data]\nsource = "x.npz"\n'
    path = tmp_path / "d.toml"
    path.write_text(text)
    assert load(path, Device).home_assistant is None
    path.write_text(text + "[home_assistant]\n")
    assert load(path, Device).home_assistant == HomeAssistant("homeassistant")
    path.write_text(text + '[home_assistant]\ndiscovery_prefix = "house/ha"\n')
    assert load(path, Device).home_assistant == HomeAssistant("house/ha")
    for wrong in ("", "#", "a/+", "a/", "/a", "$SYS"):
        path.write_text(text + f'[home_assistant]\ndiscovery_prefix = "{wrong}"\n')
        with pytest.raises(ConfigError, match="discovery_prefix"):
            load(path, Device)


def retained(link: Link, prefix: str) -> dict[str, Any]:
    """What the broker keeps below a prefix; a subscription brings it at once."""
    link.subscribe(f"{prefix}/#")
    found = {}
    fence = f"{prefix}/fence"
    link.publish(fence, b"x")  # comes after what is retained
    while fence not in found:
        for event in link.poll(0.2):
            if isinstance(event, Message):
                link.acknowledge(event)
                found[event.topic] = event.payload
    link.unsubscribe(f"{prefix}/#")
    return {topic: json.loads(payload) for topic, payload in found.items() if topic.startswith(f"{prefix}/sensor/")}


@pytest.mark.case("fleet 41")
def test_a_real_broker_keeps_them_until_the_device_leaves(tmp_path: Path, endpoint: Endpoint) -> None:
    prefix, task = "ha-test", "ha"
    config = fleet.write_device(tmp_path, endpoint, "pi", task)
    config.write_text(config.read_text() + f'[home_assistant]\ndiscovery_prefix = "{prefix}"\n')
    with fleet.hand(endpoint, topics.status(task, "pi")) as link:
        process = fleet.start_device(config)
        try:
            fleet.await_message(link, lambda message: b'"online"' in message.payload)
        finally:
            children.end(process)
        kept = retained(link, prefix)
        assert kept == {topic: json.loads(payload) for topic, payload in discovery(prefix, task, "pi")}
        assert edgeclient("leave", str(config), "--yes").returncode == 0
        assert retained(link, prefix) == {}
