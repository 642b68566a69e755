"""Numbers that must stay in their domain: which travel as absolute values, and between which bounds they lie."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from edgeclient.compress.absolute import LARGEST_ABSOLUTE, Absolute, bfloat16
from edgeclient.compress.arrays import F32, I64
from edgeclient.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which numbers all of a tensor lies; None: only finite, and of at most 2^36.

    Both are bfloat16 numbers, so that what is rounded to bfloat16 is still between them.

    Raises:
        WireError: "range" for others, or none that lie between.

    Example:
        >>> Bounds(low=0.0).as_json()
        [0.0, None]
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        lowest, highest = self.numbers
        for each in (lowest, highest):
            if not abs(each) <= LARGEST_ABSOLUTE or float(bfloat16(np.array([each], np.float32))[0]) != each:
                raise WireError("range", f"{each} is no bound: bfloat16 numbers of at most 2^36 are")
        if lowest > highest:
            raise WireError("range", f"nothing lies between {lowest} and {highest}")

    @property
    def numbers(self) -> tuple[float, float]:
        """Lowest and highest."""
        return (
            -LARGEST_ABSOLUTE if self.low is None else self.low,
            LARGEST_ABSOLUTE if self.high is None else self.high,
        )

    def as_json(self) -> list[float | None]:
        """[lowest, highest]."""
        return [self.low, self.high]


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """The a coordinates of a flat vector that travel as absolute values, in the order of the vector.

    Attributes:
        places: int64 (a,), ascending.
        low: float32 (a,), what each is at least.
        high: float32 (a,), what each is at most.
        ranges: first and behind the last coordinate of each tensor, int64 (t, 2).
    """

    places: I64
    low: F32
    high: F32
    ranges: I64

    @classmethod
    def of(cls, tensors: Iterable[tuple[slice, Bounds | None]]) -> Self:
        """That of a layout: where each tensor lies, and its bounds, if it has any."""
        marked = [(where, bounds.numbers) for where, bounds in tensors if bounds is not None]
        sizes = [where.stop - where.start for where, _ in marked]
        every = [np.arange(where.start, where.stop) for where, _ in marked]
        low, high = np.array([each for _, each in marked], np.float32).reshape(-1, 2).T
        return cls(
            np.concatenate(every) if every else np.empty(0, np.int64),
            np.repeat(low, sizes),
            np.repeat(high, sizes),
            np.array([(where.start, where.stop) for where, _ in marked], np.int64).reshape(-1, 2),
        )

    @property
    def size(self) -> int:
        """a, how many there are."""
        return self.places.size

    def clipped(self, values: F32) -> F32:
        """The nearest values (a,) inside the bounds; NaN stays."""
        return np.clip(values, self.low, self.high)

    def admits(self, absolute: Absolute | None, indices: I64) -> bool:
        """Whether an update may carry these: values within their bounds, and no entries (ascending) beside them."""
        begins, ends = np.searchsorted(indices, self.ranges).T
        if (begins < ends).any():
            return False
        if absolute is None:
            return True
        if not (absolute.first < self.size and 1 <= absolute.values.size <= self.size):
            return False
        places = absolute.places(self.size)
        return bool(((self.low[places] <= absolute.values) & (absolute.values <= self.high[places])).all())


NOWHERE = Domain.of(())
