"""The bundle: everything a device needs to train a task's model, as one zip (FORMAT.md, section 8).

Deterministic: equal content gives equal bytes, so that a digest names it.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from edgeclient.bundle import safetensors
from edgeclient.bundle.manifest import MANIFEST, File, Manifest, decode_manifest, encode_manifest
from edgeclient.compress.arrays import F32
from edgeclient.wire.errors import WireError

PARAMETERS: Final = "parameters.safetensors"
TRAINING: Final = "training.onnx"
EVAL: Final = "eval.onnx"
# The user's model without what training moves; bundle.forward puts it back. Bundles made from artifacts have none.
FORWARD: Final = "forward.onnx"
# Frozen weights, which the graphs read as external data.
FROZEN: Final = "frozen.safetensors"
MAX_FILES: Final = 64
MAX_NAME: Final = 100
MAX_UNPACKED_BYTES: Final = 1 << 32
_NAME: Final = re.compile(r"[a-z0-9_]+([./-][a-z0-9_]+)*")
# ModelProto begins with ir_version, a number of one byte, and goes on with a text, a number or a message below 16.
_IR_VERSION: Final = b"\x08"
_AFTER_IT: Final = {bytes([tag]) for tag in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)}
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the zip format's own beginning of time


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; `files` includes the manifest."""

    manifest: Manifest
    files: Mapping[str, bytes]
    parameters: F32


def encode(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """A bundle of `files`, which include the parameters; the manifest's own `files` are made from them."""
    described = {name: File(len(content), sha256(content).hexdigest()) for name, content in files.items()}
    text = encode_manifest(replace(manifest, files=described))
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
    manifest = decode_manifest(files[MANIFEST])
    if files.keys() - {MANIFEST} != manifest.files.keys():
        raise WireError("json", f"files {sorted(files)} are not those of the manifest"[:300])
    for name, said in manifest.files.items():
        if File(len(files[name]), sha256(files[name]).hexdigest()) != said:
            raise WireError("digest", f"{name} is not what the manifest says")
    if missing := sorted({PARAMETERS, TRAINING, EVAL} - files.keys()):
        raise WireError("layout", f"the bundle has no {missing[0]}")
    return Bundle(manifest, files, parameters(manifest, files[PARAMETERS]))


def parameters(manifest: Manifest, content: bytes) -> F32:
    """The flat vector (n,) that a bundle begins with, out of its PARAMETERS.

    Raises:
        WireError: they do not fit the layout, or one is outside its bounds.
    """
    arrays = safetensors.decode(content)
    for each in manifest.local_buffers:
        if (found := arrays.pop(each.name, None)) is None or found.shape != each.shape:
            raise WireError("layout", f"{PARAMETERS} has no {each.name} of shape {each.shape}"[:300])
    flat = manifest.layout.flatten(arrays)
    if fault := manifest.layout.fault(flat):
        raise WireError("value", f"{PARAMETERS}: {fault}")
    return flat


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
        if data[:1] == _IR_VERSION and data[2:3] in _AFTER_IT:
            raise WireError("magic", "an ONNX model and no bundle yet: edgeclient compile makes one of it") from None
        raise WireError("magic", f"not a bundle: {error}"[:200]) from None
