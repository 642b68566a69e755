"""Which kernels are used: every kernel has a definition in NumPy or Python, and a numba twin that agrees bit for bit.

Importing numba takes 0.6-0.8 s and 70 MiB, and a small board may not have it at all. So a twin is loaded when it is
asked for, or when there is enough to do for it; results are the same either way.
"""

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal, TypeAlias

Accel: TypeAlias = Literal["auto", "numpy", "numba"]
Backend: TypeAlias = Literal["numpy", "numba"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that has a twin.

    Attributes:
        module: the twin.
        numba_from: numbers from which it repays loading numba.
        joins: whether fewer will do once something else has loaded numba.

    Example:
        >>> Kernel("edgeclient.compress._select_numba", 100_000).backend(500, "numpy")
        'numpy'
    """

    module: str
    numba_from: int
    joins: bool = True

    def twin(self, size: int, accel: Accel = "auto") -> ModuleType | None:
        """The twin for so many numbers, or None for the definition.

        Raises:
            RuntimeError: it is asked for and cannot be used.
        """
        worth = size >= self.numba_from or (self.joins and "numba" in sys.modules)
        if accel == "numpy" or (accel == "auto" and not worth):
            return None
        found = _loaded(self.module)
        if not isinstance(found, str):
            return found
        if accel == "numba":
            raise RuntimeError(
                f"accel = 'numba', but numba cannot be used ({found}): pip install '.[accel]' in the clone"
            )
        return None

    def backend(self, size: int, accel: Accel = "auto") -> Backend:
        """What goes through so many numbers; errors as `twin`."""
        return "numpy" if self.twin(size, accel) is None else "numba"

    def why_not(self) -> str | None:
        """None if the twin can be used, which is loaded then; else what is the matter."""
        found = _loaded(self.module)
        return found if isinstance(found, str) else None


@cache
def _loaded(module: str) -> ModuleType | str:
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 (a broken numba fails in many ways: ImportError, OSError, its own errors)
        return f"{type(error).__name__}: {error}"
