"""A device that holds a model already, as after its first fetch."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from edgeclient.bundle import archive
from edgeclient.compress.arrays import F32
from edgeclient.models.slots import Models
from edgeclient.settings import Device, load
from edgeclient.wire.announcement import Announcement, Blob, Policy


def holding(
    folder: Path,
    bundle: bytes,
    parameters: F32 | None = None,
    *,
    source: str = "data.npz",
    policy: Policy | None = None,
) -> Device:
    """The settings of a device in the folder, device.toml, that holds version 7 of the task mine."""
    path = folder / "device.toml"
    path.write_text(f'device = "pi"\ntask = "mine"\ndirectory = "state"\n[data]\nsource = "{source}"\n')
    settings, opened = load(path, Device), archive.decode(bundle)
    models, layout = Models(settings.models), opened.manifest.layout
    content = (opened.parameters if parameters is None else parameters).astype("<f4").tobytes()
    digest = sha256(bundle).hexdigest()
    models.install_bundle(digest, bundle)
    blobs = Blob(sha256(content).hexdigest(), len(content), 1 << 14), Blob(digest, len(bundle), 1 << 14)
    announced = Announcement(
        "mine", 7, "0" * 16, "0" * 16, 1, *blobs, layout.digest, layout.size, policy=policy or Policy()
    )
    models.activate(announced, content)
    return settings


def write_random_examples(path: Path, bundle: bytes, count: int) -> None:
    """An .npz file that fits the model: normal numbers, and labels drawn evenly."""
    manifest, rng = archive.decode(bundle).manifest, np.random.default_rng(0)
    found = {each.name: rng.normal(size=(count, *each.shape[1:])).astype(each.dtype) for each in manifest.inputs}
    shape = (count, *manifest.labels.shape[1:])
    found[manifest.labels.name] = rng.integers(0, manifest.classes or 2, shape).astype(manifest.labels.dtype)
    np.savez(path, allow_pickle=False, **found)
