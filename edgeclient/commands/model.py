"""The model that a command speaks of: a device's active version, or a bundle and parameters beside it."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.commands.options import FILE
from edgeclient.compress.arrays import F32
from edgeclient.durable.lock import StoreError
from edgeclient.models.slots import Models
from edgeclient.settings import Device, load
from edgeclient.train.batches import DataError
from edgeclient.train.compiled import Statistics, initial_statistics

PLACE: Final = click.argument("place", metavar="CONFIG", type=FILE)
PARAMETERS: Final = click.option(
    "--parameters", type=FILE, help="Of a bundle: flat float32 numbers, instead of its own."
)

# How the aggregator calls the version whose model this is.
NAME: Final = click.option("--name", default="", hidden=True)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A model at hand.

    Attributes:
        name: for people.
        directory: its unpacked bundle.
        manifest: of the bundle.
        parameters: flat float32 (n,).
        local: running statistics that stay on a device, float32 (l,).
        version: of a device's model; None for a bundle.
        settings: of the device; None for a bundle.
    """

    name: str
    directory: Path
    manifest: Manifest
    parameters: F32
    local: F32
    version: int | None = None
    settings: Device | None = None


@contextmanager
def chosen(place: Path, parameters: Path | None = None, name: str = "") -> Iterator[Chosen]:
    """The model of the device whose configuration `place` is, or of the bundle that it is.

    Raises:
        ConfigError, StoreError, WireError, DataError: there is none, or it is damaged.
    """
    if not zipfile.is_zipfile(place):
        if parameters is not None:
            raise click.UsageError("--parameters belong to a bundle, not to a device's CONFIG")
        settings = load(place, Device)
        active = settings.models
        model = Models(active).active() if active.is_dir() else None
        if model is None:
            raise StoreError(f"{settings.directory} holds no model yet: start edgeclient run {place} first")
        version, local = model.announcement.version, Statistics(model.bundle_directory).load()
        name = name or f"{settings.task} version {version}"
        yield Chosen(name, model.bundle_directory, model.manifest, model.parameters, local, version, settings)
        return
    opened = archive.decode(place.read_bytes())
    with tempfile.TemporaryDirectory(prefix="edgeclient-") as folder:
        directory = Path(folder)
        unpack(opened, directory)
        numbers = opened.parameters if parameters is None else flat(parameters, opened.manifest.layout.size)
        yield Chosen(
            name or str(place),
            directory,
            opened.manifest,
            numbers,
            initial_statistics(directory, read_manifest(directory)),
        )


def unpack(opened: archive.Bundle, directory: Path) -> None:
    """The files of a bundle."""
    for name, content in opened.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def flat(path: Path, size: int) -> F32:
    """The parameters (n,) in a file, as the registry keeps those of a version.

    Raises:
        DataError: they are of another model.
    """
    content = path.read_bytes()
    if len(content) != 4 * size:
        raise DataError(f"{path} has {len(content)} bytes, the bundle's {size} parameters need {4 * size}")
    return np.frombuffer(content, "<f4").astype(np.float32)
