"""What a stream codes: a range of a tensor as a matrix, and what others tell of it (FORMAT.md, section 3.2)."""

import numpy as np

from edgeclient.compress.arrays import I64
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame.context import Activity, grades
from edgeclient.wire.frame.positions import Range
from edgeclient.wire.limits import MAX_CONTEXT_POSITIONS


def laid_out(indices: I64, within: Range) -> tuple[I64, I64]:
    """Flat positions in the matrix, ascending, and which of the entries each is.

    Example:
        >>> laid_out(np.array([12, 13, 14]), Range(10, 6, 10, shape=(2, 3), turned=True))
        (array([1, 3, 4]), array([1, 2, 0]))
    """
    offsets = indices - within.row
    if not within.turned:
        return offsets, np.arange(offsets.size)
    return _turned(offsets, within.shape[1], within.shape[0])


def coordinates(offsets: I64, within: Range) -> tuple[I64, I64]:
    """The inverse of `laid_out`: ascending coordinates, and which of the positions each is.

    Raises:
        WireError: "range", for some outside the range.
    """
    order = np.arange(offsets.size)
    if within.turned:
        offsets, order = _turned(offsets, within.shape[0], within.shape[1])
    indices = offsets + within.row
    if int(indices[0]) < within.first or int(indices[-1]) >= within.first + within.span:
        raise WireError("range", f"a stream holds coordinates {indices[0]} to {indices[-1]}, outside its range")
    return indices, order


def _turned(offsets: I64, columns: int, rows: int) -> tuple[I64, I64]:
    row, column = np.divmod(offsets, columns)
    turned = column * rows + row
    order = np.argsort(turned)
    return turned[order], order


class Entries:
    """The entries of a frame's tensors so far, counted along each length of a dimension.

    Words of an embedding are words of the softmax, and units of a layer are inputs of the next: equal lengths are
    taken for the same thing, which costs little where they are not. Lengths are counted while they are together at most
    `MAX_CONTEXT_POSITIONS`, in the order in which they come: a layout of many lengths takes no more memory.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[I64, Range]] = []
        self._counts: dict[int, I64] = {}
        self._room = MAX_CONTEXT_POSITIONS

    def add(self, indices: I64, within: Range) -> None:
        """Coordinates of a range, in whatever way they were coded."""
        self._waiting.append((indices, within))

    def activity(self, within: Range, rows: int) -> Activity:
        """Of the first `rows` rows and of the columns of a range's matrix."""
        for indices, range_ in self._waiting:
            self._count(indices, range_)
        self._waiting.clear()
        skipped = (within.row - within.begins) // within.columns
        length = within.shape[1 if within.turned else 0]
        return grades(self._along(length, skipped, rows)), grades(self._along(within.columns, 0, within.columns))

    def _count(self, indices: I64, within: Range) -> None:
        for length, where in zip(within.shape, np.divmod(indices - within.begins, within.shape[1]), strict=True):
            if 1 < length <= self._room and length not in self._counts:
                self._counts[length] = np.zeros(length, np.int64)
                self._room -= length
            if length in self._counts:
                np.add.at(self._counts[length], where, 1)

    def _along(self, length: int, first: int, count: int) -> I64:
        counts = self._counts.get(length)
        return np.zeros(count, np.int64) if counts is None else counts[first : first + count]
