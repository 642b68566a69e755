"""What a frame says beside its entries (FORMAT.md, section 3)."""

import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from edgeclient.compress.update import SparseUpdate

MAX_U32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an update comes from: everything in a header but its identity and its entries.

    Attributes:
        task: task id; with `device` it makes the address that the aggregator compares.
        device: device id.
        layout_tag: first bytes of the layout digest, of which the frame sends four.
        number: the update's number within its epoch.
        base_version: model version that the delta was trained from.
        num_examples: local examples behind it, at least 1.
    """

    task: str
    device: str
    layout_tag: bytes
    number: int
    base_version: int
    num_examples: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded frame; `update` may be one coordinate range of a larger update."""

    wire_version: int
    address: int
    layout_tag: bytes
    epoch: int
    sequence: int
    number: int
    part: int
    parts: int
    base_version: int
    num_examples: int
    update: SparseUpdate


def address(task: str, device: str) -> int:
    """What ties a frame to its topic, so that one published elsewhere is noticed."""
    return zlib.crc32(f"{task}/{device}".encode())


def digest(frame: bytes) -> bytes:
    """8 bytes that tell two frames of the same identity apart."""
    return sha256(frame).digest()[:8]
