"""Local data: what `[data] source` names, as batches that fit the model.

source                                 examples
windows.npz                            arrays by name
windows/                               a folder of .npz files, of tables, or of one .npy file per array
windows.csv, .tsv, .txt, .csv.gz       a table: number columns, a label column
sensor.db, .sqlite, .sqlite3           a table: the rows of a query
package.module:function, file.py:function    arrays, or batches of them
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import DataError, Dataset, Source, in_memory
from edgeclient.train.holdout import Examples
from edgeclient.train.sources.arrays import Folder, Whole, array_names, read_npz
from edgeclient.train.sources.columns import missing
from edgeclient.train.sources.delimited import SUFFIXES as TEXT
from edgeclient.train.sources.delimited import Delimited, is_table
from edgeclient.train.sources.functions import Stream, called, function_of, is_function
from edgeclient.train.sources.query import SUFFIXES as SQLITE
from edgeclient.train.sources.query import Query


def open_data(source: str, options: Mapping[str, Any], manifest: Manifest) -> Dataset:
    """All the data that `source` names; see `open_source`."""
    return Examples(open_source(source, options, manifest))


def open_source(source: str, options: Mapping[str, Any], manifest: Manifest) -> Source:
    """Where the examples come from.

    Args:
        source: see the module.
        options: array names by tensor name, and `classes`, for .npz and .npy files; of tables see their classes;
            keyword arguments of the function. A function returns the arrays (inputs, then labels), or yields such
            batches and is called for every pass.
        manifest: what the model wants.

    Raises:
        DataError: it is not there, or does not fit the model or the memory.
    """
    kind, path = check_source(source), Path(source)
    with in_memory(source):
        match kind:
            case "function":
                function = function_of(source)
                first = called(function, options, source)
                if isinstance(first, tuple):
                    return Whole(first, manifest, source)
                return Stream(first, lambda: called(function, options, source), manifest, source)
            case ".npz" if not path.is_dir():
                names, words = array_names(options, manifest)
                return Whole(read_npz(path, names), manifest, source, words)
            case "table":
                return Delimited(path, options, manifest)
            case "SQLite":
                return Query(path, options, manifest)
    return Folder(path, options, manifest, packed=kind == ".npz")


def check_source(source: str) -> str:
    """What kind of source it is, noticed at the door, not when the model has come.

    Returns:
        "function", "table" (a file or a folder of them), "SQLite", or what arrays are in: ".npz", ".npy" (in a folder).

    Raises:
        DataError: no such file, folder, module or function.
    """
    path = Path(source)
    if is_function(source):
        function_of(source)
        return "function"
    kind = _kind(path)
    if path.is_dir():
        kinds = {_kind(each) for each in path.iterdir()} & {".npz", ".npy", "table"}
        if len(kinds) > 1:  # a text beside arrays explains them
            kinds.discard("table")
        if len(kinds) != 1:
            has = "both .npz and .npy" if kinds else "no .npz, .npy or .csv"
            raise DataError(
                f"{source} has {has} files: give .npz or CSV files, or one .npy file per array of the model"
            )
        return kinds.pop()
    if kind in {"", ".npy"}:
        raise DataError(
            f"data source {source!r} is neither an .npz, text ({', '.join(TEXT)}) or SQLite ({', '.join(SQLITE)}) file,"
            " nor a folder, nor package.module:function or file.py:function"
        )
    if not path.is_file():
        raise missing(source)
    return kind


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if is_table(path):
        return "table"
    return "SQLite" if suffix in SQLITE else suffix if suffix in {".npz", ".npy"} else ""
