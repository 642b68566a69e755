"""Examples from the user's own code: `package.module:function`, or `file.py:function`.

Example of a function that streams, `source = "my_package.logs:batches"`:

    def batches(path="sensors.db"):
        for x, labels in read(path):     # x as the model's input, labels int64
            yield x, labels
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeclient.bundle.manifest import Manifest
from edgeclient.train.batches import Blocks, Cursor, DataError, Source, fitting
from edgeclient.train.sources.arrays import missing


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
        self.name = name
        self._first: Iterator[Any] | None = _iterated(first, name)
        self._again = again
        self._manifest = manifest

    def blocks(self, rng: np.random.Generator | None, cursor: Cursor = None) -> Blocks:  # noqa: ARG002 (the function decides)
        """One call's batches; the function knows what it gave before."""
        passing = _iterated(self._again(), self.name) if self._first is None else self._first
        self._first = None
        try:
            while True:
                try:
                    arrays = next(passing)
                except StopIteration:
                    return
                except Exception as error:  # the user's own code
                    raise _failed(self.name, error) from error
                yield fitting(arrays, self._manifest, self.name), cursor
        finally:
            # An endless generator ends here, not whenever memory is collected.
            if (close := getattr(passing, "close", None)) is not None:
                close()


def function_of(source: str) -> Callable[..., Any]:
    """What a source names; a DataError if there is no such file, module or function."""
    module, _, name = source.rpartition(":")
    if module.endswith(".py") and not Path(module).is_file():
        raise missing(module)
    try:
        found = getattr(_loaded(Path(module)) if module.endswith(".py") else importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        hint = "see that file" if module.endswith(".py") else "is the package installed here?"
        raise DataError(f"data source {source}: {error}: {hint}") from None
    except Exception as error:  # the user's own code
        raise _failed(source, error) from error
    if not callable(found):
        raise DataError(f"data source {source} is no function")
    return found  # type: ignore[no-any-return]  # what a module holds is Any


def called(function: Callable[..., Any], options: Mapping[str, Any], source: str) -> Any:
    """What the function returns; a DataError if it fails, or does not take the options."""
    try:
        return function(**options)
    except TypeError as error:
        raise DataError(f"data source {source}: {error}: see [data.options]") from error
    except Exception as error:  # the user's own code
        raise _failed(source, error) from error


def _iterated(value: Any, source: str) -> Iterator[Any]:
    if not isinstance(value, Iterable):
        raise DataError(f"{source} returns {type(value).__name__}: a tuple of arrays, or batches, are wanted")
    return iter(value)


def _failed(source: str, error: Exception) -> DataError:
    return DataError(f"data source {source} failed: {type(error).__name__}: {error}")


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"edgeclient_data_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
