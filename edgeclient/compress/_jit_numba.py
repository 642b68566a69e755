"""numba.njit with a cache on disk that may be full, unwritable or torn: what it does not give is compiled again.

Numba hands on whatever its cache meets (OSError, EOFError, UnpicklingError) from the first call of a kernel, in the
middle of a round. It does not sync its files, so a power cut soon after a warm-up leaves empty ones.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache


class _Cache(FunctionCache):  # type: ignore[misc]
    """Loads what it can, keeps what it can."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 (unpickling what is torn raises nearly anything)
            with contextlib.suppress(OSError):
                self.flush()  # else it stays torn, and every start compiles
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


def njit(*signature: Any, **options: Any) -> Callable[[Any], Any]:
    """Decorates a kernel; with a signature it is compiled at once, for that alone."""

    def decorate(function: Any) -> Any:
        kernel = numba.njit(nogil=True, **options)(function)
        kernel._cache = _Cache(kernel.py_func)  # noqa: SLF001 (as its enable_caching does)
        for each in signature:
            kernel.compile(each)
        if signature:
            kernel.disable_compile()
        return kernel

    return decorate
