"""Who serves a task: what aggregators ask and answer on its claim topic, not retained (FORMAT.md, section 6.1)."""

from dataclasses import dataclass
from typing import Annotated, Final

from edgeclient.wire import fields
from edgeclient.wire.announcement import MAX_TERM
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import FLAG, hexadecimal, integer, nullable

MAX_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """A start of an aggregator would serve the task, or does: then it answers another one's claim."""

    ledger: Annotated[str, hexadecimal(16), "that it counts in"]
    term: Annotated[int, integer(1, MAX_TERM), "of this start"]
    service: Annotated[str, hexadecimal(16), "random per start"]
    served: Annotated[bool, FLAG, "whether its ledger has served the task before"]
    answers: Annotated[str | None, nullable(hexadecimal(16)), "`service` of the start that is told: not you"] = None


def encode(claim: Claim) -> bytes:
    """Canonical JSON.

    Example:
        >>> encode(Claim("00" * 8, 3, "11" * 8, served=True))
        b'{"answers":null,"ledger":"0000000000000000","served":true,"service":"1111111111111111","term":3}'
    """
    return fields.json_bytes(fields.encode(claim, whole=True))


def decode(data: bytes) -> Claim:
    """The claim in `data`.

    Raises:
        WireError: not such a JSON object.
    """
    if len(data) > MAX_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_BYTES} are allowed")
    return fields.decode(Claim, fields.json_object(data), "claim", whole=True)
