"""A frame: an update, or a coordinate range of one, as the bytes of one MQTT message (FORMAT.md, section 3)."""

from edgeclient.wire.frame.format import Opened, decode, stamp
from edgeclient.wire.frame.header import Frame, Origin, address, digest
from edgeclient.wire.frame.split import Coding, encode_layers, encode_update

__all__ = [
    "Coding",
    "Frame",
    "Opened",
    "Origin",
    "address",
    "decode",
    "digest",
    "encode_layers",
    "encode_update",
    "stamp",
]
