"""Local data: what `[data] source` names, as batches that fit the model.

source                                 examples
windows.npz                            arrays by name
windows/                               a folder of .npz files, or of one .npy file per array
windows.csv                            a header line, number columns, a label column
sensor.db, .sqlite, .sqlite3           the rows of a query
package.module:function, file.py:function    arrays, or batches of them
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import DataError, Dataset, Source
from edgeclient.train.holdout import Examples
from edgeclient.train.sources.arrays import Folder, Whole, array_names, is_packed, missing, read_npz
from edgeclient.train.sources.csv_file import CsvFile
from edgeclient.train.sources.functions import Stream, called, function_of, is_function
from edgeclient.train.sources.query import SUFFIXES, Query


def open_data(source: str, options: Mapping[str, Any], manifest: Manifest) -> Dataset:
    """All the data that `source` names; see `open_source`."""
    return Examples(open_source(source, options, manifest))


def open_source(source: str, options: Mapping[str, Any], manifest: Manifest) -> Source:
    """Where the examples come from.

    Args:
        source: see the module.
        options: array names by tensor name for .npz and .npy files, `labels`, `columns` ... for tables, or
            keyword arguments of the function. A function returns the arrays (inputs, then labels), or yields such
            batches and is called for every pass.
        manifest: what the model wants.

    Raises:
        DataError: it is not there, or does not fit the model.
    """
    if is_function(source):
        function = function_of(source)
        first = called(function, options, source)
        if isinstance(first, tuple):
            return Whole(first, manifest, source)
        return Stream(first, lambda: called(function, options, source), manifest, source)
    path = Path(source)
    if path.is_dir():
        return Folder(path, options, manifest)
    match path.suffix:
        case ".npz":
            return Whole(read_npz(path, array_names(options, manifest)), manifest, source)
        case ".csv":
            return CsvFile(path, options, manifest)
        case suffix if suffix in SUFFIXES:
            return Query(path, options, manifest)
    raise _unknown(source)


def check_source(source: str) -> None:
    """Notice at the door what `open_data` would stumble over once the model has come.

    Raises:
        DataError: no such file, folder, module or function.
    """
    path = Path(source)
    if is_function(source):
        function_of(source)
    elif path.is_dir():
        is_packed(path)
    elif path.suffix not in (".npz", ".csv", *SUFFIXES):
        raise _unknown(source)
    elif not path.is_file():
        raise missing(source)


def _unknown(source: str) -> DataError:
    return DataError(
        f"data source {source!r} is neither an .npz, .csv or SQLite ({', '.join(SUFFIXES)}) file, nor a folder, nor"
        " package.module:function or file.py:function"
    )
