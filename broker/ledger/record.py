"""The closing record of a batch: who was in it, as compressed JSON.

It is written in the closing transaction and outlives the contributions, so that what a version was made of can be told
as long as the version is kept.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Member:
    """One applied frame of a batch.

    Attributes:
        number: of its update, which was trained from `base_version`.
        weight: of its update.
        leads: whether it is the update's first admitted frame: it counts for triggers.
        terms: what else was fixed then.
    """

    device: str
    epoch: int
    sequence: int
    number: int
    base_version: int
    weight: int
    leads: bool
    terms: Mapping[str, float] = field(default_factory=dict)


def encode(members: Iterable[Member]) -> bytes:
    """The record of these members.

    Example:
        >>> made = encode([Member("pi-7", 2**64 - 3, 0, 0, 4, 25600, True)])
        >>> decode(made)[0].weight
        25600
    """
    written = [[getattr(member, column.name) for column in fields(Member)] for member in members]
    return zlib.compress(json.dumps(written, separators=(",", ":")).encode())


def decode(written: bytes) -> list[Member]:
    """The members.

    Raises:
        ValueError: these bytes are no record.
    """
    try:
        return [Member(*values) for values in json.loads(zlib.decompress(written))]
    except (zlib.error, TypeError) as error:
        raise ValueError(f"not a closing record: {error}") from None
