"""The retained announcement of a task: which model version is current and how to take part (FORMAT.md, section 7).

One line of canonical JSON, so that `mosquitto_sub` shows an operator what devices see. A second line is
reserved for the signature; readers without a key ignore it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import FRAME_VERSION, MAX_ANNOUNCEMENT_BYTES, MAX_CHUNK_BYTES, MAX_SIZE
from edgeclient.wire.topics import checked

FORMAT: Final = 1
SCALE_BITS: Final = 26
VALUE_LIMIT: Final = 16.0
MAX_BLOB_BYTES: Final = 1 << 42
_MAX_EXACT: Final = 1 << 53
_MAY_LACK: Final = {"local_steps", "local_seconds", "clip_norm", "update_bytes", "warm_up", "steady"}


@dataclass(frozen=True, slots=True)
class Blob:
    """Content that travels in retained chunks: SHA-256 (hex), size and chunk size in bytes."""

    digest: str
    size: int
    chunk: int

    @property
    def chunks(self) -> int:
        """How many chunks it is cut into."""
        return -(-self.size // self.chunk)


@dataclass(frozen=True, slots=True)
class Policy:
    """How the operator asks devices to train; a device's own configuration may only ask for less.

    Attributes:
        density: fraction of coordinates that an update keeps.
        learning_rate: of the local optimiser.
        local_epochs: passes over the local data per update.
        batch_size: local examples per step.
        max_staleness: updates from a base this many versions back are still admitted.
        local_steps: optimiser steps after which an update ends, whatever the epochs; 0 for no limit.
        local_seconds: no step of an update begins after this time, so that slow boards train less; 0 for no limit.
        clip_norm: a step's gradient is scaled down to this Euclidean norm; 0 leaves it.
        update_bytes: of all frames of an update together, at most so many; 0 for no limit.
        warm_up: so many first versions are trained on with four times the density.
        steady: updates keep what is over a threshold that moves slowly, a quarter to four times as many entries as the
            density says.
    """

    density: float = 0.01
    learning_rate: float = 0.02
    local_epochs: int = 1
    batch_size: int = 16
    max_staleness: int = 20
    local_steps: int = 0
    local_seconds: float = 0.0
    clip_norm: float = 0.0
    update_bytes: int = 0
    warm_up: int = 0
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a device needs to know about a task.

    Attributes:
        task: task id.
        version: current model version, from 0, only ever rising.
        service: random per start of the aggregator; a new one means: say HELLO again.
        parameters: the version's flat float32 parameters, little-endian.
        bundle: the training bundle of the task.
        layout: SHA-256 (hex) of the parameter layout.
        size: n, number of parameters.
        wire: frame versions that the aggregator reads; a device that writes none of them refuses the announcement.
        scale_bits: s; the aggregator sums in units of 2^-s.
        value_limit: largest magnitude of an entry, a power of two; value_limit · 2^s fits int32.
        policy: how to train.
    """

    task: str
    version: int
    service: str
    parameters: Blob
    bundle: Blob
    layout: str
    size: int
    scale_bits: int = SCALE_BITS
    value_limit: float = VALUE_LIMIT
    wire: tuple[int, ...] = (FRAME_VERSION,)
    policy: Policy = field(default_factory=Policy)


def encode(announcement: Announcement) -> bytes:
    """Canonical JSON (sorted keys, no spaces); limits that are off are left out."""
    fields = {"format": FORMAT, **asdict(announcement)}
    fields["policy"] = {key: value for key, value in fields["policy"].items() if value or key not in _MAY_LACK}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes) -> Announcement:
    """The announcement in `data`.

    Raises:
        WireError: not the JSON object of section 7, or a field outside its limits.
    """
    if len(data) > MAX_ANNOUNCEMENT_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_ANNOUNCEMENT_BYTES} are allowed")
    fields = _Fields(json_object(data.split(b"\n", 1)[0]), "announcement")
    if fields.integer("format", 1, _MAX_EXACT) != FORMAT:
        raise WireError("version", f"announcement format is not {FORMAT}")
    wire = fields.take("wire", list)
    if not all(type(version) is int for version in wire) or FRAME_VERSION not in wire:
        raise WireError(
            "version",
            f"the aggregator reads frame versions {wire}, this device writes {FRAME_VERSION}: update edgeclient here",
        )
    scale_bits = fields.integer("scale_bits", 0, 60)
    value_limit = fields.number("value_limit", 2.0**-30, 2.0**30)
    if math.frexp(value_limit)[0] != 0.5 or value_limit * 2**scale_bits > 2**30:
        raise WireError("range", f"value_limit {value_limit} with scale_bits {scale_bits}")
    size = fields.integer("size", 1, MAX_SIZE)
    parameters = _blob(fields.object("parameters"))
    if parameters.size != 4 * size:
        raise WireError("layout", f"{parameters.size} bytes of parameters for {size} float32 numbers")
    return Announcement(
        task=checked(fields.take("task", str)),
        version=fields.integer("version", 0, 0xFFFF_FFFF),
        service=fields.hexadecimal("service", 16),
        parameters=parameters,
        bundle=_blob(fields.object("bundle")),
        layout=fields.hexadecimal("layout", 64),
        size=size,
        scale_bits=scale_bits,
        value_limit=value_limit,
        wire=tuple(wire),
        policy=_policy(fields.object("policy")),
    )


def _blob(fields: "_Fields") -> Blob:
    return Blob(
        fields.hexadecimal("digest", 64),
        fields.integer("size", 1, MAX_BLOB_BYTES),
        fields.integer("chunk", 1, MAX_CHUNK_BYTES),
    )


def _policy(fields: "_Fields") -> Policy:
    return Policy(
        density=fields.number("density", 1e-9, 1.0),
        learning_rate=fields.number("learning_rate", 0.0, 1e6),
        local_epochs=fields.integer("local_epochs", 1, 1000),
        batch_size=fields.integer("batch_size", 1, 1 << 20),
        max_staleness=fields.integer("max_staleness", 0, 0xFFFF_FFFF),
        local_steps=fields.integer("local_steps", 0, 1 << 30) if fields.has("local_steps") else 0,
        local_seconds=fields.number("local_seconds", 0.0, 1e6) if fields.has("local_seconds") else 0.0,
        clip_norm=fields.number("clip_norm", 0.0, 1e6) if fields.has("clip_norm") else 0.0,
        update_bytes=fields.integer("update_bytes", 0, 1 << 40) if fields.has("update_bytes") else 0,
        warm_up=fields.integer("warm_up", 0, 0xFFFF_FFFF) if fields.has("warm_up") else 0,
        steady=fields.take("steady", bool) if fields.has("steady") else False,
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice")
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Made once: json.loads would make one for every message, which costs as much as reading a status.
_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; duplicate keys, NaN and deep nesting are refused.

    Raises:
        WireError: "json".
    """
    try:
        value = _JSON.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("json", str(error) or "nested too deeply") from None
    if not isinstance(value, dict):
        raise WireError("json", f"a {type(value).__name__} where an object belongs")
    return value


class _Fields:
    """A JSON object from outside; every look-up checks type and range. Unknown keys are left alone."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self._values = values
        self._path = path

    def has(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, kind: type) -> Any:
        value = self._values.get(key)
        if type(value) is not kind:
            raise WireError("json", f"{self._path}.{key} must be a {kind.__name__}, not {str(value)[:40]!r}")
        return value

    def object(self, key: str) -> "_Fields":
        return _Fields(self.take(key, dict), f"{self._path}.{key}")

    def integer(self, key: str, low: int, high: int) -> int:
        value: int = self.take(key, int)
        if not low <= value <= high:
            raise WireError("range", f"{self._path}.{key} is {value}, allowed are {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self._values.get(key)
        if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]  # checked just before
            raise WireError("range", f"{self._path}.{key} is {str(value)[:40]}, allowed are {low} to {high}")
        return float(value)  # type: ignore[arg-type]  # as above

    def hexadecimal(self, key: str, length: int) -> str:
        value: str = self.take(key, str)
        if len(value) != length or set(value) - set("0123456789abcdef"):
            raise WireError("range", f"{self._path}.{key} must be {length} hexadecimal digits")
        return value
