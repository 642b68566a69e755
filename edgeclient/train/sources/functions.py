"""Examples from the user's own code: `package.module:function`, or `file.py:function`.

Example of a function that streams, `source = "my_package.logs:batches"`:

    def batches(path="sensors.db"):
        for x, labels in read(path):     # x as the model's input, labels int64
            yield x, labels
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import Blocks, Cursor, DataError, Source, described, fitting
from edgeclient.train.sources.columns import missing

# Where code lies that is not the user's.
_OTHERS: Final = (
    str(Path(__file__).parent),
    str(Path(os.__file__).parent),
    "<frozen",
    "site-packages",
    "dist-packages",
)
_END: Final = object()


def is_function(source: str) -> bool:
    """Whether a source is a function, not a path.

    Example:
        >>> is_function("my_package.logs:batches"), is_function("/home/me/my_data.py:batches"), is_function("logs.csv")
        (True, True, False)
    """
    module, _, name = source.rpartition(":")
    return bool(module) and name.isidentifier()


class Stream(Source):
    """Batches as a function yields them, of any total size; the function says how large they are.

    Args:
        first: what the function returned when it was called for the first pass.
        again: calls it for another.
        manifest: what the model wants.
        name: for errors.
    """

    sized = grows = True

    def __init__(self, first: Any, again: Callable[[], Any], manifest: Manifest, name: str) -> None:
        super().__init__(name)
        self._manifest = manifest
        self._first: Iterator[Any] | None = self._iterated(first)
        self._again = again

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (the function decides)
        """One call's batches; the function knows what it gave before."""
        passing = self._iterated(self._again()) if self._first is None else self._first
        self._first = None
        try:
            while True:
                with _own_code(self.name):
                    arrays = next(passing, _END)
                if arrays is _END:
                    return
                yield fitting(arrays, self._manifest, self.name), cursor
        finally:
            # An endless generator ends here, not whenever memory is collected.
            if (close := getattr(passing, "close", None)) is not None:
                close()

    def _iterated(self, value: Any) -> Iterator[Any]:
        single = isinstance(value, list) and not all(isinstance(each, tuple | list) for each in value)
        if single or not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping | np.ndarray):
            names = ", ".join(each.name for each in (*self._manifest.inputs, self._manifest.labels))
            raise DataError(f"{self.name} returns {described(value)}: a tuple ({names}), or batches of such, is wanted")
        return iter(value)


def function_of(source: str) -> Callable[..., Any]:
    """What a source names; a DataError if there is no such file, module or function."""
    module, _, name = source.rpartition(":")
    if module.endswith(".py") and not Path(module).is_file():
        raise missing(module)
    hint = "see that file" if module.endswith(".py") else "is the package installed here?"
    with _own_code(source, hint):
        found = getattr(_loaded(Path(module)) if module.endswith(".py") else importlib.import_module(module), name)
    if not callable(found):
        raise DataError(f"data source {source} is no function")
    return found  # type: ignore[no-any-return]  # what a module holds is Any


def called(function: Callable[..., Any], options: Mapping[str, Any], source: str) -> Any:
    """What the function returns; a DataError if it fails, or does not take the options."""
    with _own_code(source, "see [data.options]"):
        return function(**options)


@contextmanager
def _own_code(source: str, hint: str = "") -> Iterator[None]:
    """Around code of the user, which finds modules beside it, behind all others; what fails there is a DataError.

    `hint` is for failures outside of the user's lines.
    """
    module = source.rpartition(":")[0]
    folder = str(Path(module).resolve().parent)
    beside = module.endswith(".py") and folder not in sys.path
    if beside:
        sys.path.append(folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [each for each in traceback.extract_tb(error.__traceback__) if not _is_others(each.filename)]
        where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else f": {hint}" if hint else ""
        said = " ".join(str(error).split())
        raise DataError(f"data source {source} failed: {type(error).__name__}: {said}{where}") from error
    finally:
        if beside and folder in sys.path:
            sys.path.remove(folder)


def _is_others(file: str) -> bool:
    return any(part in file for part in _OTHERS)


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"edgeclient_data_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
