"""The bundle: everything a device needs to train a task's model, as one zip (FORMAT.md, section 9).

Deterministic: equal content gives equal bytes, so that a digest names it.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgeclient.bundle import safetensors
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.wire.announcement import json_object
from edgeclient.wire.errors import WireError

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
PARAMETERS: Final = "parameters.safetensors"
TRAINING: Final = "training.onnx"
EVAL: Final = "eval.onnx"
# Frozen weights, which both graphs read as external data.
FROZEN: Final = "frozen.safetensors"
MAX_FILES: Final = 64
MAX_NAME: Final = 100
MAX_UNPACKED_BYTES: Final = 1 << 32
_NAME: Final = re.compile(r"[a-z0-9_]+([./-][a-z0-9_]+)*")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's own beginning of time


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of the model: the first dimension, -1, is the batch.

    Attributes:
        name: as in the graph, and as the array in a device's .npz file.
        dtype: "float32", "int64" or "int32".
        shape: of a batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A running statistic, which training moves without a gradient.

    Attributes:
        name: as in the graphs; the training graph's output is `{name}_next`.
        shape: of the array.
        policy: "shared" travels with the trained parameters, "local" stays on the device.
    """

    name: str
    shape: tuple[int, ...]
    policy: str


@dataclass(frozen=True, slots=True)
class Optimiser:
    """How gradients move parameters (edgeclient/train/optimiser.py has the formulas).

    Attributes:
        name: "sgd" or "adamw".
        momentum: of SGD.
        beta1: decay of AdamW's first moment.
        beta2: decay of its second moment.
        epsilon: added to the root of the second moment.
        weight_decay: fraction of a parameter that a step of learning rate 1 takes away.
        decay_first: the decay comes before the step, and the second moment is corrected under the root.
        correct_bias: of the moments.
    """

    name: str = "sgd"
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    decay_first: bool = False
    correct_bias: bool = True


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle.

    Attributes:
        layout: what the flat vector holds: trained parameters, then shared buffers.
        inputs: of the model, without labels.
        labels: what the loss compares with.
        classes: number of classes, or None when labels are no classes.
        ignored: a label that counts nothing, or None.
        operators: nodes of the training graph; runtimes plan memory by it.
        loss: "cross_entropy", "mse", "l1", "bce_with_logits" or "custom", for people.
        optimiser: how gradients move parameters.
        licence: of model and parameters, for people.
        provenance: how it was made, for people.
        buffers: running statistics; shared ones in the order in which they end the layout, then local ones.
        files: size and SHA-256 (hex) of every other file.
    """

    layout: Layout
    inputs: tuple[Tensor, ...]
    labels: Tensor
    classes: int | None
    loss: str
    optimiser: Optimiser
    licence: str
    provenance: str
    buffers: tuple[Buffer, ...] = ()
    ignored: int | None = None
    operators: int = 0
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `files` includes the manifest."""

    manifest: Manifest
    files: Mapping[str, bytes]
    parameters: npt.NDArray[np.float32]


def encode(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """A bundle of `files`, which include the parameters; the manifest's own `files` are made from them."""
    described = {
        "format": FORMAT,
        "parameters": manifest.layout.as_json(),
        "layout": manifest.layout.digest,
        "inputs": [_tensor_json(each) for each in manifest.inputs],
        "labels": _tensor_json(manifest.labels),
        "classes": manifest.classes,
        "ignored": manifest.ignored,
        "operators": manifest.operators,
        "buffers": [{"name": each.name, "shape": list(each.shape), "policy": each.policy} for each in manifest.buffers],
        "loss": manifest.loss,
        "optimiser": asdict(manifest.optimiser),
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "files": {
            name: {"size": len(content), "sha256": sha256(content).hexdigest()} for name, content in files.items()
        },
    }
    text = json.dumps(described, sort_keys=True, indent=1).encode() + b"\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in {MANIFEST: text, **dict(sorted(files.items()))}.items():
            # Stored: float32 parameters do not shrink, and zlib's versions differ in their output.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return packed.getvalue()


def decode(data: bytes) -> Bundle:
    """Unpack and verify.

    Raises:
        WireError: no such zip, a file that the manifest does not name or describes otherwise, parameters
            that do not fit the layout. Sizes are checked before anything is unpacked.
    """
    files = _unzip(data)
    if MANIFEST not in files:
        raise WireError("json", f"the bundle has no {MANIFEST}")
    manifest = read_manifest(files[MANIFEST])
    if files.keys() - {MANIFEST} != manifest.files.keys():
        raise WireError("json", f"files {sorted(files)} are not those of the manifest"[:300])
    for name, (size, digest) in manifest.files.items():
        if len(files[name]) != size or sha256(files[name]).hexdigest() != digest:
            raise WireError("digest", f"{name} is not what the manifest says")
    if missing := sorted({PARAMETERS, TRAINING, EVAL} - files.keys()):
        raise WireError("layout", f"the bundle has no {missing[0]}")
    arrays = safetensors.decode(files[PARAMETERS])
    for each in manifest.local_buffers:
        if (found := arrays.pop(each.name, None)) is None or found.shape != each.shape:
            raise WireError("layout", f"{PARAMETERS} has no {each.name} of shape {each.shape}"[:300])
    return Bundle(manifest, files, manifest.layout.flatten(arrays))


def _unzip(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if len(entries) > MAX_FILES or len(names) < len(entries):
                raise WireError("range", f"{len(entries)} files, at most {MAX_FILES} with different names are allowed")
            for name in names:
                is_folder = any(other.startswith(f"{name}/") for other in names)
                if not _NAME.fullmatch(name) or len(name) > MAX_NAME or is_folder:
                    raise WireError("name", f"{name[:80]!r} is no file name of a bundle")
            # A packed entry can claim any size: 236 bytes of bzip2 that claimed 100 took 280 MB (measured).
            if any(
                (each.compress_type, each.compress_size) != (zipfile.ZIP_STORED, each.file_size) for each in entries
            ):
                raise WireError("range", "the files of a bundle are stored, not compressed")
            # Entries may overlap; their sum tells.
            if sum(entry.file_size for entry in entries) > min(MAX_UNPACKED_BYTES, len(data)):
                raise WireError("too-large", "the files are larger than the bundle, or than 4 GiB")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, OverflowError) as error:
        raise WireError("magic", f"not a bundle: {error}"[:200]) from None


def read_manifest(data: bytes) -> Manifest:
    """The manifest in `data`.

    Raises:
        WireError: not the JSON object of section 9, or a layout that is not what it is called.
    """
    values = json_object(data)
    if type(values.get("format")) is not int or values["format"] != FORMAT:
        raise WireError(
            "version",
            f"bundle format {str(values.get('format'))[:20]}, this side knows {FORMAT}: compile the model again",
        )
    try:
        layout = Layout(tuple(Parameter(_text(name), _shape(shape, 1)) for name, shape in values["parameters"]))
        manifest = Manifest(
            layout,
            tuple(_tensor(each) for each in values["inputs"]),
            _tensor(values["labels"]),
            _classes(values["classes"]),
            loss=_text(values["loss"]),
            optimiser=_optimiser(values["optimiser"]),
            licence=_text(values["licence"]),
            provenance=_text(values["provenance"]),
            buffers=tuple(_buffer(each) for each in values["buffers"]),
            ignored=_ignored(values["ignored"]),
            operators=_size(values["operators"]),
            files={_text(name): (_size(each["size"]), _text(each["sha256"])) for name, each in values["files"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError("json", f"the manifest is not as it should be: {error!r}"[:200]) from None
    if values.get("layout") != layout.digest:
        raise WireError("layout", f"the layout is {layout.digest[:16]}…, the manifest says otherwise")
    names = [each.name for each in (*manifest.inputs, manifest.labels)]
    if len(names) < 2 or len(set(names)) < len(names):
        raise WireError("json", f"no inputs, or a name stands twice: {names}"[:200])
    if manifest.classes is not None and manifest.labels.dtype != "int64":
        raise WireError("json", f"labels of {manifest.classes} classes are int64, not {manifest.labels}"[:200])
    shared = [(each.name, each.shape) for each in manifest.buffers if each.policy == "shared"]
    ending = [(each.name, each.shape) for each in layout.parameters[len(manifest.trained) :]]
    ordered = sorted(manifest.buffers, key=lambda each: each.policy == "local") == list(manifest.buffers)
    if shared != ending or not ordered or not manifest.trained:
        raise WireError("layout", "the shared buffers are not what the layout ends with, or come after local ones")
    known = [each.name for each in layout.parameters] + [each.name for each in manifest.local_buffers]
    if len(set(known)) < len(known):
        raise WireError("layout", "a local buffer stands twice, or is a parameter")
    return manifest


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _tensor(value: Mapping[str, Any]) -> Tensor:
    dtype = value["dtype"]
    if dtype not in {"float32", "int64", "int32"}:
        raise ValueError(f"dtype {str(dtype)[:20]}")
    shape = value["shape"]
    if not shape or type(shape[0]) is not int or shape[0] != -1:
        raise ValueError(f"the first dimension of {value['name']} must be the batch, -1")
    return Tensor(_text(value["name"]), dtype, (-1, *_shape(shape[1:], 1)))


def _buffer(value: Mapping[str, Any]) -> Buffer:
    policy = value["policy"]
    if policy not in {"shared", "local"}:
        raise ValueError(f"policy {str(policy)[:20]}")
    return Buffer(_text(value["name"]), _shape(value["shape"], 1), policy)


def _optimiser(value: Mapping[str, Any]) -> Optimiser:
    known = {each.name: each.type for each in fields(Optimiser)}
    if value["name"] not in {"sgd", "adamw"} or value.keys() - known.keys():
        raise ValueError(f"optimiser {str(value)[:80]}")
    for key, number in value.items():
        kinds = {str: (str,), bool: (bool,), float: (int, float)}[known[key]]  # type: ignore[index]  # types, no strings
        if type(number) not in kinds or (float in kinds and not 0 <= number <= 1):
            raise ValueError(f"optimiser.{key} is {str(number)[:40]}")
    return Optimiser(**value)


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"size is {str(value)[:40]}")
    return value


def _classes(value: Any) -> int | None:
    if not (value is None or (type(value) is int and 1 <= value <= 1 << 24)):
        raise ValueError(f"classes is {str(value)[:40]}")
    return value


def _ignored(value: Any) -> int | None:
    if not (value is None or (type(value) is int and abs(value) < 1 << 53)):
        raise ValueError(f"ignored is {str(value)[:40]}")
    return value


def _shape(value: Any, least: int) -> tuple[int, ...]:
    if not (
        isinstance(value, list) and len(value) <= 16 and all(type(each) is int and each >= least for each in value)
    ):
        raise ValueError(f"shape {str(value)[:80]}")
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value
