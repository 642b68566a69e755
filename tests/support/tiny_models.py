"""A model of nine parameters, its bundle and announcements of its versions, for tests of what devices fetch."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Manifest, Optimiser, Tensor
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Models
from edgeclient.wire.announcement import Announcement, Blob

LAYOUT = Layout((Parameter("w", (2, 3)), Parameter("b", (3,))))


def blob_of(content: bytes, chunk: int = 64) -> Blob:
    return Blob(sha256(content).hexdigest(), len(content), chunk)


def bundle_of(layout: Layout = LAYOUT, licence: str = "CC0-1.0") -> bytes:
    manifest = Manifest(
        layout,
        (Tensor("x", "float32", (-1, 2)),),
        Tensor("labels", "int64", (-1,)),
        3,
        loss="cross_entropy",
        optimiser=Optimiser(),
        licence=licence,
        provenance="made by a test",
    )
    arrays: dict[str, Any] = {each.name: np.zeros(each.shape, np.float32) for each in layout.parameters}
    graphs = {"training.onnx": b"graph", "eval.onnx": b"graph"}
    return archive.encode(manifest, {"parameters.safetensors": safetensors.encode(arrays), **graphs})


BUNDLE = bundle_of()


def parameters(version: int) -> bytes:
    return np.full(LAYOUT.size, version, "<f4").tobytes()


def announced(version: int, *, content: bytes | None = None, bundle_: bytes = BUNDLE, **fields: Any) -> Announcement:
    said = {
        "task": "t",
        "version": version,
        "service": "00" * 8,
        "ledger": "1e" * 8,
        "term": 1,
        "parameters": blob_of(content or parameters(version), 16),
        "bundle": blob_of(bundle_),
        "layout": LAYOUT.digest,
        "size": LAYOUT.size,
    }
    return Announcement(**{**said, **fields})


def installed(folder: Path) -> Models:
    models = Models(folder)
    models.install_bundle(sha256(BUNDLE).hexdigest(), BUNDLE)
    return models


def feed(follower: Follower, contents: dict[str, bytes]) -> int:
    """Answer every wanted chunk until nothing is wanted; how many there were."""
    fed = 0
    while wanted := follower.wanted():
        digest, chunk = wanted[0]
        size = 16 if len(contents[digest]) == 4 * LAYOUT.size else 64
        follower.receive(digest, chunk, contents[digest][chunk * size : (chunk + 1) * size])
        fed += 1
    return fed


def contents_of(*versions: int) -> dict[str, bytes]:
    made = [BUNDLE, *(parameters(version) for version in versions)]
    return {sha256(content).hexdigest(): content for content in made}
