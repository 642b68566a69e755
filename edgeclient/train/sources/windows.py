"""Windows over rows: a sensor logs one row a sample, a model looks at many."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeclient.compress.arrays import F64, I64
from edgeclient.train.batches import DataError


class Windows:
    """Cuts the rows of one recording, which come in blocks.

    A window begins every `stride` rows, and again where the group changes; no window has rows of two groups.

    Args:
        size: rows of a window.
        stride: rows from one window's beginning to the next one's.
        labels: how many of the numbers of a row are labels, at its end.
        common: the most frequent label of a window counts (of equally frequent ones the last); else its last row's.

    Attributes:
        held: rows that wait for the rest of their window.

    Example:
        >>> rows = np.array([[0.1, 5], [0.2, 5], [0.3, 5], [0.4, 6], [0.5, 6]])
        >>> inputs, labels = Windows(2, 1, 1).take(rows, np.array([0, 0, 0, 1, 1]))
        >>> inputs[..., 0].tolist(), labels.tolist()
        ([[0.1, 0.2], [0.2, 0.3], [0.4, 0.5]], [[5.0], [5.0], [6.0]])
    """

    def __init__(self, size: int, stride: int, labels: int, *, common: bool = False) -> None:
        self._size, self._stride, self._labels, self._common = size, stride, labels, common
        self._rows: F64 = np.empty((0, 0))
        self._group = -1
        self._skip = 0  # rows until the next window begins
        self.held = 0

    def take(self, rows: F64, groups: I64) -> tuple[F64, F64]:
        """The windows that are whole: inputs (k, size, columns), labels (k, labels).

        Args:
            rows: the next ones, float64 (n, columns + labels).
            groups: a number for each, which changes with the group.
        """
        made = [sliding_window_view(np.empty((self._size, rows.shape[1])), self._size, axis=0)[:0]]
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(rows)]
        for first, end in pairwise(edges):
            made.append(self._run(rows[first:end], int(groups[first])))
        windows = np.concatenate(made).swapaxes(1, 2)
        columns = windows.shape[2] - self._labels
        return windows[:, :, :columns], self._judged(windows[:, :, columns:])

    def _run(self, rows: F64, group: int) -> F64:
        """Windows within one group, (k, columns, size)."""
        if group == self._group:
            rows = np.concatenate([self._rows, rows])
        else:
            self._group, self._skip = group, 0
        skipped = min(self._skip, len(rows))
        rows, self._skip = rows[skipped:], self._skip - skipped
        count = max(0, (len(rows) - self._size) // self._stride + 1)
        done = min(count * self._stride, len(rows))
        self._skip += count * self._stride - done
        self._rows = rows[done:].copy()
        self.held = len(self._rows)
        if not count:
            return np.empty((0, rows.shape[1], self._size))
        return sliding_window_view(rows, self._size, axis=0)[:: self._stride][:count]

    def _judged(self, labels: F64) -> F64:
        last = labels[:, -1, :]
        if not self._common or not len(labels):
            return last
        known = np.array(sorted(set(labels.ravel().tolist())))
        counts = [(labels[:, :, 0] == value).sum(axis=1) + 0.5 * (last[:, 0] == value) for value in known]
        made: F64 = known[np.argmax(counts, axis=0)][:, None]
        return made


def window_of(options: Mapping[str, Any]) -> tuple[int, int] | None:
    """`window` and `stride` of [data.options]; None without a window, every row is an example then.

    Example:
        >>> window_of({"window": 128}), window_of({"window": 128, "stride": 64}), window_of({})
        ((128, 128), (128, 64), None)
    """
    if "window" not in options:
        if used := [key for key in ("stride", "group") if key in options]:
            raise DataError(f"[data.options] {used[0]} needs window, the number of rows of an example")
        return None
    size, stride = options["window"], options.get("stride", options["window"])
    for key, value in (("window", size), ("stride", stride)):
        if type(value) is not int or not 1 <= value <= 1 << 20:
            raise DataError(f"[data.options] {key} is {value!r}: a number of rows is wanted")
    return size, stride
