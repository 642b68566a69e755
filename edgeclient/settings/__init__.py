"""Configuration: TOML in, frozen objects out, parsed once at the door; each key says its limits and one sentence."""

from edgeclient.settings.conditions import Conditions
from edgeclient.settings.device import Data, Device, HomeAssistant, Mqtt, Training, Upload
from edgeclient.settings.keys import Source
from edgeclient.settings.toml import ConfigError, load, nearest, structure

__all__ = [
    "Conditions",
    "ConfigError",
    "Data",
    "Device",
    "HomeAssistant",
    "Mqtt",
    "Source",
    "Training",
    "Upload",
    "load",
    "nearest",
    "structure",
]
