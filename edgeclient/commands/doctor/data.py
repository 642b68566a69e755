"""The data that a configuration names, read as `run` will read it."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.commands.doctor.findings import Finding
from edgeclient.models.slots import Models
from edgeclient.settings import Data, Device
from edgeclient.train.batches import DataError
from edgeclient.train.data import check_source, open_source
from edgeclient.train.holdout import Examples
from edgeclient.train.mixing import Labels
from edgeclient.train.sources.arrays import read_npz

_READ_S: Final = 20.0
_BATCH: Final = 256
_MOST_CLASSES: Final = 12


def data(settings: Device) -> Iterator[Finding]:
    """Whether the data is there, fits the model that has come, and teaches something; nothing is changed.

    A function's module is imported, as `run` does. It is not called where it gives what is new only once.
    """
    try:
        yield from _read(settings)
    except DataError as error:
        yield Finding("fail", "data", str(error), "edit [data] in the configuration, or put the data right")


def _read(settings: Device) -> Iterator[Finding]:
    given = settings.data
    kind = check_source(given.source)
    directory = settings.directory / "models"
    model = Models(directory).active() if directory.is_dir() else None
    if kind == "function" and given.replay_examples:
        yield Finding("ok", "data", f"{given.source}, not called: it gives what is new")
    elif model is not None:
        yield from judged(given, read_manifest(model.bundle_directory))
    else:
        path = Path(given.source)
        arrays = [str(each.shape) for each in read_npz(path, [])] if kind == ".npz" and path.is_file() else []
        has = f", arrays of {' '.join(arrays)}" if arrays else ""
        yield Finding("ok", "data", f"{given.source}{has}: compared with the model once that has come")


def judged(given: Data, manifest: Manifest) -> Iterator[Finding]:
    """What a pass over the data shows, of so much as can be read in 20 s.

    Raises:
        DataError: it does not fit the model or the memory.
    """
    source, labels, until_s = open_source(given.source, given.options, manifest), Labels(), time.monotonic() + _READ_S
    cut = ""
    with closing(Examples(source).batches(_BATCH, np.random.default_rng(0))) as batches:
        for batch in batches:
            labels.add(batch[-1])
            if time.monotonic() > until_s:
                cut = f", the rest not read in {_READ_S:g} s"
                break
    found = [f"{label}: {count:.0f}" for label, count in enumerate(labels.counts) if count]
    classes = f", labels {', '.join(found)}" if manifest.classes and len(found) <= _MOST_CLASSES else ""
    yield Finding("ok", "data", f"{given.source}: {labels.examples} examples fit the model{classes}{cut}")
    for line in source.notes.values():
        yield Finding("warn", "data", line, "see [data] in the configuration")
