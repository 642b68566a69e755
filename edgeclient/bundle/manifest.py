"""The manifest of a bundle: what its files hold, what goes in, how gradients move parameters (FORMAT.md, section 8)."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.absolute import LARGEST_ABSOLUTE
from edgeclient.wire import fields
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import (
    FLAG,
    MAX_EXACT,
    Field,
    Rule,
    array,
    choice,
    hexadecimal,
    integer,
    nullable,
    number,
    record,
    row,
    table,
    text,
)  # fmt: skip

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MAX_DIMENSIONS: Final = 16
_TEXT: Final = text(1000)
_SHARE: Final = number(0, 1)
_SHAPE: Final = array(integer(1, MAX_EXACT), MAX_DIMENSIONS)


def _batch(value: Any, path: str) -> tuple[int, ...]:
    shape: tuple[int, ...] = array(integer(-1, MAX_EXACT), MAX_DIMENSIONS + 1).read(value, path)
    if not shape or shape[0] != -1 or min((1, *shape[1:])) < 1:
        raise WireError("range", f"{path} is {shape}: the first dimension is the batch, -1, all others are fixed")
    return shape


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of the model."""

    name: Annotated[str, _TEXT, "as in the graph, and as the array in a device's .npz file"]
    dtype: Annotated[str, choice("float32", "int64", "int32"), "`float32`, `int64` or `int32`"]
    shape: Annotated[tuple[int, ...], Rule("array", _batch), "of a batch: the first dimension is −1"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A running statistic, which training moves without a gradient."""

    name: Annotated[str, _TEXT, "as in the graphs; the training graph's output is `{name}_next`"]
    shape: Annotated[tuple[int, ...], _SHAPE, "of the array"]
    policy: Annotated[
        str, choice("shared", "local"), "`shared` travels as absolute values, `local` stays on the device"
    ]


@dataclass(frozen=True, slots=True)
class Optimiser:
    """How gradients move parameters (edgeclient/train/optimiser.py has the formulas)."""

    name: Annotated[str, choice("sgd", "adamw"), "`sgd` or `adamw`"] = "sgd"
    momentum: Annotated[float, _SHARE, "of SGD"] = 0.0
    beta1: Annotated[float, _SHARE, "decay of AdamW's first moment"] = 0.9
    beta2: Annotated[float, _SHARE, "decay of its second moment"] = 0.999
    epsilon: Annotated[float, _SHARE, "added to the root of the second moment"] = 1e-6
    weight_decay: Annotated[float, _SHARE, "fraction of a parameter that a step of learning rate 1 takes away"] = 0.0
    decay_first: Annotated[
        bool, FLAG, "the decay comes before the step, and the second moment is corrected under the root"
    ] = False
    correct_bias: Annotated[bool, FLAG, "of the moments"] = True


@dataclass(frozen=True, slots=True)
class File:
    """What a file of the bundle must be."""

    size: Annotated[int, integer(0, MAX_EXACT), "bytes"]
    sha256: Annotated[str, hexadecimal(64), "its digest"]


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle.

    Attributes:
        layout: what the flat vector holds: trained parameters, then shared buffers.
    """

    layout: Layout
    inputs: Annotated[tuple[Tensor, ...], array(record(Tensor)), "of the model, without labels"]
    labels: Annotated[Tensor, record(Tensor), "what the loss compares with"]
    classes: Annotated[int | None, nullable(integer(1, 1 << 24)), "how many; null when labels are no classes"]
    loss: Annotated[str, _TEXT, "`cross_entropy`, `mse`, `l1`, `bce_with_logits` or `custom`, for people"]
    optimiser: Annotated[Optimiser, record(Optimiser, whole=True), "how gradients move parameters"]
    licence: Annotated[str, _TEXT, "of model and parameters, for people"]
    provenance: Annotated[str, _TEXT, "how they were made, for people"]
    buffers: Annotated[
        tuple[Buffer, ...], array(record(Buffer)), "running statistics: shared ones, then local ones"
    ] = ()
    ignored: Annotated[int | None, nullable(integer(-MAX_EXACT, MAX_EXACT)), "a label that counts nothing"] = None
    operators: Annotated[int, integer(0, MAX_EXACT), "nodes of `training.onnx`; runtimes plan memory by it"] = 0
    files: Annotated[Mapping[str, File], table(record(File)), "every other file, by name"] = field(default_factory=dict)

    @property
    def local_buffers(self) -> tuple[Buffer, ...]:
        """Those that stay on the device."""
        return tuple(each for each in self.buffers if each.policy == "local")

    @property
    def trained(self) -> tuple[Parameter, ...]:
        """The parameters with a gradient, which begin the layout."""
        shared = len(self.buffers) - len(self.local_buffers)
        return self.layout.parameters[: len(self.layout.parameters) - shared]

    @property
    def trained_size(self) -> int:
        """m, how many numbers have a gradient."""
        return sum(each.size for each in self.trained)


_BOUND: Final = nullable(number(-LARGEST_ABSOLUTE, LARGEST_ABSOLUTE))


def _parameter(value: Any, path: str) -> Parameter:
    bounded = isinstance(value, list) and len(value) > 2
    rules = (_TEXT, _SHAPE, row(_BOUND, _BOUND)) if bounded else (_TEXT, _SHAPE)
    name, shape, *bounds = row(*rules).read(value, path)
    return Parameter(name, shape, Bounds(*bounds[0]) if bounded else None)


_KEYS: Final = {
    "parameters": Field(array(Rule("array", _parameter)), "the layout: [name, [dimension, …]] …", MISSING),
    "layout": Field(hexadecimal(64), "SHA-256 of the canonical JSON of `parameters`, without spaces", MISSING),
    **fields.of(Manifest),
}


def encode_manifest(manifest: Manifest) -> bytes:
    """JSON for people too: sorted keys, a line each."""
    layout = {"parameters": manifest.layout.as_json(), "layout": manifest.layout.digest}
    return json.dumps({**asdict(manifest), **layout, "format": FORMAT}, sort_keys=True, indent=1).encode() + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in `data`.

    Raises:
        WireError: not the JSON object of section 8, or a layout that is not what it is called.
    """
    values = fields.json_object(data)
    if type(values.get("format")) is not int or values["format"] != FORMAT:
        said = str(values.get("format"))[:20]
        raise WireError("version", f"bundle format {said}, this side knows {FORMAT}: compile the model again")
    found = fields.read(_KEYS, values, "manifest", whole=True)
    layout = Layout(found.pop("parameters"))
    if found.pop("layout") != layout.digest:
        raise WireError("layout", f"the layout is {layout.digest[:16]}…, the manifest says otherwise")
    return _consistent(Manifest(layout, **found))


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an unpacked bundle; see `decode_manifest`."""
    return decode_manifest((directory / MANIFEST).read_bytes())


def _consistent(manifest: Manifest) -> Manifest:
    names = [each.name for each in (*manifest.inputs, manifest.labels)]
    if len(names) < 2 or len(set(names)) < len(names):
        raise WireError("json", f"no inputs, or a name stands twice: {names}"[:300])
    if manifest.classes is not None and manifest.labels.dtype != "int64":
        raise WireError("json", f"labels of {manifest.classes} classes are int64, not {manifest.labels}"[:300])
    shared = [(each.name, each.shape) for each in manifest.buffers if each.policy == "shared"]
    ending = [(each.name, each.shape) for each in manifest.layout.parameters[len(manifest.trained) :]]
    ordered = sorted(manifest.buffers, key=lambda each: each.policy == "local") == list(manifest.buffers)
    if shared != ending or not ordered or not manifest.trained:
        raise WireError("layout", "the shared buffers are not what the layout ends with, or come after local ones")
    if any(each.bounds is None for each in manifest.layout.parameters[len(manifest.trained) :]):
        raise WireError("layout", "a shared running statistic has no bounds: it travels as absolute values")
    known = [each.name for each in manifest.layout.parameters] + [each.name for each in manifest.local_buffers]
    if len(set(known)) < len(known):
        raise WireError("layout", "a local buffer stands twice, or is a parameter")
    return manifest
