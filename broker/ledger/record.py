"""The closing record of a batch: who was in it and under which terms, as compressed JSON.

It is written in the closing transaction and outlives the contributions, so that what a version was made of can be told
as long as the version is kept.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One applied frame of a batch.

    Attributes:
        device: device id.
        epoch: of the device's store, signed as in the ledger.
        sequence: within the epoch.
        base_version: that its update was trained from.
        weight: of its update.
        leads: whether it is the update's first admitted frame.
    """

    device: str
    epoch: int
    sequence: int
    base_version: int
    weight: int
    leads: bool


def encode(members: Iterable[Member], terms: Mapping[str, float]) -> bytes:
    """The record.

    Args:
        members: in the order of their admission.
        terms: what else the sum depended on (scale, value limit, learning rate), and frame_bytes, what its frames took.

    Example:
        >>> made = encode([Member("pi-7", -3, 0, 4, 25600, True)], {"scale_bits": 26})
        >>> decode(made)
        ([Member(device='pi-7', epoch=-3, sequence=0, base_version=4, weight=25600, leads=True)], {'scale_bits': 26})
    """
    content = {"members": [astuple(member) for member in members], "terms": dict(terms)}
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode())


def decode(written: bytes) -> tuple[list[Member], dict[str, float]]:
    """Members and terms.

    Raises:
        ValueError: these bytes are no record.
    """
    try:
        content = json.loads(zlib.decompress(written))
        return [Member(*values) for values in content["members"]], content["terms"]
    except (zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"not a closing record: {error}") from None
