"""Sparse entries into dense vectors: where decoded updates become sums."""

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Under this many entries numba does not repay its start-up of 0.6-0.8 s and 70 MiB, unless it is loaded anyway.
NUMBA_FROM: Final = 1_000_000


def add(dense: npt.NDArray[Any], indices: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> None:
    """Add each of `values` (k,) to `dense` (n,) at its index, in place; no index stands twice.

    Example:
        >>> dense = np.zeros(3)
        >>> add(dense, np.array([0, 2]), np.array([1.0, 0.5], np.float32))
        >>> dense
        array([1. , 0. , 0.5])
    """
    kernels = _kernels(indices.size)
    if kernels is None:
        dense[indices] += values
    else:
        kernels.add(dense, indices, values)


def add_units(
    total: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    scale_bits: int,
    weight: int,
) -> None:
    """Add weight · round(value · 2^scale_bits) to `total` (n,) at each index, in place; no index stands twice.

    Example:
        >>> total = np.zeros(3, np.int64)
        >>> add_units(total, np.array([0, 2]), np.array([1.0, 0.5], np.float32), 4, 3)
        >>> total
        array([48,  0, 24])
    """
    kernels = _kernels(indices.size)
    if kernels is None:
        total[indices] += np.rint(np.ldexp(values.astype(np.float64), scale_bits)).astype(np.int64) * weight
    else:
        kernels.add_units(total, indices, values, 2.0**scale_bits, weight)


def _kernels(entries: int) -> ModuleType | None:
    return _twin() if entries >= NUMBA_FROM or (entries and "numba" in sys.modules) else None


@cache
def _twin() -> ModuleType | None:
    try:
        return importlib.import_module("edgeclient.compress._add_numba")
    except Exception:  # noqa: BLE001 (a broken numba fails in many ways: ImportError, OSError, its own errors)
        return None
