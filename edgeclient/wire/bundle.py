"""The bundle: everything a device needs to train a task's model, as one zip (FORMAT.md, section 9).

Deterministic: equal content gives equal bytes, so that a digest names it.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgeclient.wire import safetensors
from edgeclient.wire.announcement import json_object
from edgeclient.wire.errors import WireError
from edgeclient.wire.layout import Layout, Parameter

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PARAMETERS: Final = "parameters.safetensors"
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
        dtype: "float32" or "int64".
        shape: of a batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle.

    Attributes:
        layout: the trained parameters in the order of the flat vector.
        inputs: of the model, without labels.
        labels: what the loss compares with.
        classes: number of classes, or None when labels are no classes.
        loss: "cross_entropy".
        optimiser: "sgd".
        licence: of model and parameters, for people.
        provenance: how it was made, for people.
        files: size and SHA-256 (hex) of every other file.
    """

    layout: Layout
    inputs: tuple[Tensor, ...]
    labels: Tensor
    classes: int | None
    loss: str
    optimiser: str
    licence: str
    provenance: str
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)


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
        "loss": manifest.loss,
        "optimiser": manifest.optimiser,
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
    if PARAMETERS not in files:
        raise WireError("layout", f"the bundle has no {PARAMETERS}")
    return Bundle(manifest, files, manifest.layout.flatten(safetensors.decode(files[PARAMETERS])))


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
        raise WireError("version", f"bundle format {str(values.get('format'))[:20]}, this side knows {FORMAT}")
    try:
        layout = Layout(tuple(Parameter(_text(name), _shape(shape, 1)) for name, shape in values["parameters"]))
        manifest = Manifest(
            layout,
            tuple(_tensor(each) for each in values["inputs"]),
            _tensor(values["labels"]),
            _classes(values["classes"]),
            loss=_text(values["loss"]),
            optimiser=_text(values["optimiser"]),
            licence=_text(values["licence"]),
            provenance=_text(values["provenance"]),
            files={_text(name): (_size(each["size"]), _text(each["sha256"])) for name, each in values["files"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError("json", f"the manifest is not as it should be: {error!r}"[:200]) from None
    if values.get("layout") != layout.digest:
        raise WireError("layout", f"the layout is {layout.digest[:16]}…, the manifest says otherwise")
    names = [each.name for each in (*manifest.inputs, manifest.labels)]
    if len(names) < 2 or len(set(names)) < len(names):
        raise WireError("json", f"no inputs, or a name stands twice: {names}"[:200])
    if manifest.classes is not None and (manifest.labels.dtype, manifest.labels.shape) != ("int64", (-1,)):
        raise WireError("json", f"labels of {manifest.classes} classes are int64 (batch,), not {manifest.labels}"[:200])
    return manifest


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _tensor(value: Mapping[str, Any]) -> Tensor:
    dtype = value["dtype"]
    if dtype not in {"float32", "int64"}:
        raise ValueError(f"dtype {str(dtype)[:20]}")
    shape = value["shape"]
    if not shape or type(shape[0]) is not int or shape[0] != -1:
        raise ValueError(f"the first dimension of {value['name']} must be the batch, -1")
    return Tensor(_text(value["name"]), dtype, (-1, *_shape(shape[1:], 1)))


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"size is {str(value)[:40]}")
    return value


def _classes(value: Any) -> int | None:
    if not (value is None or (type(value) is int and 1 <= value <= 1 << 24)):
        raise ValueError(f"classes is {str(value)[:40]}")
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
