"""The retained announcement of a task: which model version is current and how to take part (FORMAT.md, section 6).

One line of canonical JSON, so that `mosquitto_sub` shows an operator what devices see. A second line is
reserved for the signature; readers without a key ignore it.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Final

from edgeclient.wire import fields
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import FLAG, MAX_EXACT, hexadecimal, integer, number
from edgeclient.wire.limits import FRAME_VERSION, MAX_ANNOUNCEMENT_BYTES, MAX_CHUNK_BYTES, MAX_SIZE
from edgeclient.wire.topics import checked

FORMAT: Final = 1
SCALE_BITS: Final = 26
VALUE_LIMIT: Final = 16.0
MAX_BLOB_BYTES: Final = 1 << 42
MAX_TERM: Final = 2**32 - 1
MAX_SUCCEEDED: Final = 16


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that travels in retained chunks."""

    digest: Annotated[str, hexadecimal(64), "its SHA-256"]
    size: Annotated[int, integer(1, MAX_BLOB_BYTES), "bytes"]
    chunk: Annotated[int, integer(1, MAX_CHUNK_BYTES), "bytes of every chunk but the last"]

    @property
    def chunks(self) -> int:
        """How many chunks it is cut into."""
        return -(-self.size // self.chunk)

    def length(self, chunk: int) -> int:
        """Bytes of a chunk, which must be one of it."""
        return min(self.chunk, self.size - chunk * self.chunk)


@dataclass(frozen=True, slots=True)
class Policy:
    """How the operator asks devices to train; a device's own configuration may only ask for less.

    Announced, and the table `policy` of a task's settings.

    Raises:
        ValueError: a knob outside its limits.
    """

    density: Annotated[float, number(1e-9, 1.0), "fraction of coordinates that an update keeps"] = 0.01
    learning_rate: Annotated[float, number(0.0, 1e6), "of the local optimiser"] = 0.02
    local_epochs: Annotated[int, integer(1, 1000), "passes over the local data per update"] = 1
    batch_size: Annotated[int, integer(1, 1 << 20), "local examples per step"] = 16
    max_staleness: Annotated[
        int, integer(0, 2**32 - 1), "updates from a base so many versions back are still admitted"
    ] = 20
    local_steps: Annotated[
        int, integer(0, 1 << 30), "optimiser steps after which an update ends, whatever the epochs; 0: no limit"
    ] = 0
    local_seconds: Annotated[
        float,
        number(0.0, 1e6),
        "no step of an update begins after this time, so that slow boards train less; 0: no limit",
    ] = 0.0
    clip_norm: Annotated[
        float,
        number(0.0, 1e6),
        "a longer gradient is scaled down to this Euclidean norm: steadier training on few examples; 0: off",
    ] = 0.0
    update_bytes: Annotated[
        int, integer(0, 1 << 40), "all frames of an update together take at most so many bytes; 0: no limit"
    ] = 0
    warm_up: Annotated[
        int,
        integer(0, 2**32 - 1),
        "on so many first versions four times the density is kept: a young model moves everywhere",
    ] = 0
    steady: Annotated[
        bool,
        FLAG,
        "what is over a slowly moving threshold is kept, a quarter to four times as many entries as the density says",
    ] = False

    def __post_init__(self) -> None:
        fields.check(self)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a device needs to know about a task."""

    task: Annotated[str, fields.checked(checked), "task id"]
    version: Annotated[int, integer(0, 2**32 - 1), "current model version, only ever rising"]
    service: Annotated[str, hexadecimal(16), "random per start of the aggregator: a new one asks for HELLO"]
    ledger: Annotated[str, hexadecimal(16), "random per ledger: a device follows one (PROTOCOL.md, 8)"]
    term: Annotated[int, integer(1, MAX_TERM), "rises with each start on the ledger"]
    parameters: Annotated[Blob, fields.record(Blob), "float32 parameters of the version; `size` is 4·n"]
    bundle: Annotated[Blob, fields.record(Blob), "training bundle of the task (8)"]
    layout: Annotated[str, hexadecimal(64), "SHA-256 of the parameter layout"]
    size: Annotated[int, integer(1, MAX_SIZE), "n, number of parameters"]
    scale_bits: Annotated[int, integer(0, 60), "s: the aggregator sums in units of 2^-s"] = SCALE_BITS
    value_limit: Annotated[
        float,
        number(2.0**-30, 2.0**30),
        "a power of two, the largest magnitude of an entry; times 2^s at most 2^30",
    ] = VALUE_LIMIT
    wire: Annotated[
        tuple[int, ...],
        fields.array(integer(0, MAX_EXACT)),
        "frame versions, integers; a device that writes none of them refuses the announcement",
    ] = (FRAME_VERSION,)
    succeeds: Annotated[
        tuple[str, ...],
        fields.array(hexadecimal(16), MAX_SUCCEEDED),
        "ledgers that this one has taken the task over from, by an operator's command; at most 16",
    ] = ()
    policy: Annotated[Policy, fields.record(Policy), "how devices are asked to train"] = field(default_factory=Policy)


def encode(announcement: Announcement) -> bytes:
    """Canonical JSON; only of the policy, what has its default is left out."""
    return fields.json_bytes({"format": FORMAT, **fields.encode(announcement, whole=True)})


def decode(data: bytes) -> Announcement:
    """The announcement in `data`.

    Raises:
        WireError: not the JSON object of section 6, or a field outside its limits.
    """
    if len(data) > MAX_ANNOUNCEMENT_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_ANNOUNCEMENT_BYTES} are allowed")
    values = fields.json_object(data.split(b"\n", 1)[0])
    if type(values.get("format")) is not int or values["format"] != FORMAT:
        raise WireError("version", f"announcement format is not {FORMAT}")
    made = fields.decode(Announcement, values, "announcement", whole=True)
    if FRAME_VERSION not in made.wire:
        theirs = f"frame versions {list(made.wire)}"
        raise WireError(
            "version",
            f"the aggregator reads {theirs}, this device writes {FRAME_VERSION}: update edgeclient here",
        )
    if math.frexp(made.value_limit)[0] != 0.5 or made.value_limit * 2**made.scale_bits > 2**30:
        raise WireError("range", f"value_limit {made.value_limit} with scale_bits {made.scale_bits}")
    if made.parameters.size != 4 * made.size:
        raise WireError("layout", f"{made.parameters.size} bytes of parameters for {made.size} float32 numbers")
    return made
