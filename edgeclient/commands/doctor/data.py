"""The data that a configuration names, read as `run` will read it."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Manifest, Optimiser, Tensor, read_manifest
from edgeclient.commands.doctor.announced import announced
from edgeclient.commands.doctor.findings import Finding
from edgeclient.models.slots import Models
from edgeclient.settings import Data, Device
from edgeclient.train.batches import DataError
from edgeclient.train.data import check_source, open_source
from edgeclient.train.holdout import Examples
from edgeclient.train.mixing import Labels
from edgeclient.train.sources.arrays import read_npz
from edgeclient.train.sources.table import Table

_READ_S: Final = 20.0
_BATCH: Final = 256
_MOST_CLASSES: Final = 12
# A model with one input: tables are read alike whatever its shape is.
_ANY: Final = Manifest(
    Layout((Parameter("", (1,)),)), (Tensor("x", "float32", (-1, 1)),), Tensor("labels", "float32", (-1, 1)), None, "",
    Optimiser(), "", "",
)  # fmt: skip


def data(settings: Device) -> Iterator[Finding]:
    """Whether the data is there, fits the model, and teaches something; nothing is changed.

    The model is the one that has come, or without one what the MQTT broker announces.

    A function's module is imported, as `run` does. It is not called where it gives what is new only once.
    """
    try:
        yield from _read(settings)
    except DataError as error:
        yield Finding("fail", "data", str(error), "edit [data] in the configuration, or put the data right")


def _read(settings: Device) -> Iterator[Finding]:
    given = settings.data
    kind = check_source(given.source)
    directory = settings.models
    model = Models(directory).active() if directory.is_dir() else None
    if kind == "function" and given.replay_examples:
        yield Finding("ok", "data", f"{given.source}, not called: it gives what is new")
    elif (manifest := read_manifest(model.bundle_directory) if model else announced(settings)) is not None:
        yield from judged(given, manifest)
    else:
        has = unjudged(given, kind)
        yield Finding("ok", "data", f"{given.source}{has}: compared with the model once that has come")


def unjudged(given: Data, kind: str) -> str:
    """What is there, as far as it can be read without a model, and within 20 s.

    Raises:
        DataError: it cannot be read.
    """
    path = Path(given.source)
    if kind == ".npz" and path.is_file():
        return f", arrays of {' '.join(str(each.shape) for each in read_npz(path, []))}"
    source = open_source(given.source, given.options, _ANY) if kind in {"table", "SQLite"} else None
    if not isinstance(source, Table):
        return ""
    rows, until_s = 0, time.monotonic() + _READ_S
    for part in source.parts(None, None):
        for _ in source.readable(part):
            rows += 1
            if time.monotonic() > until_s:
                return f", {rows} rows and more can be read"
    return f", {rows} rows can be read"


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
