"""Absolute values: x ← x + blend · (mean − x), with the mean of the members that sent the coordinate, by their weights.

A convex combination of numbers in a domain lies in it, whatever their staleness, how few send, and whatever weighs how
much: a running variance stays positive. Entries, optimiser, clipping and learning rate have no part in it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.bundle.domain import Domain
from edgeclient.compress.absolute import Absolute
from edgeclient.compress.arrays import F32, I64

BLEND: Final = 0.5
# |value| ≤ 2^36 in units of 2^-24 has 60 bits: two halves of 30, of which each, by weights ≤ 2^20 and frames ≤ 2^12,
# stays below 2^63. A unit is 6e-8, where the smallest epsilon of a batch normalisation in use is 1e-5.
_SCALE_BITS: Final = 24
_HALF_BITS: Final = 30


@dataclass(slots=True, eq=False)
class Sums:
    """What members have sent of the a absolute values of a model.

    Attributes:
        domain: which coordinates these are, and their bounds.
        high: Σ weight · upper half of round(value · 2^24), int64 (a,).
        low: the same of the lower 30 bits, which are never negative.
        weights: Σ weight of the members that sent the coordinate, int64 (a,).
    """

    domain: Domain
    high: I64
    low: I64
    weights: I64

    @classmethod
    def empty(cls, domain: Domain) -> "Sums":
        """Of no members."""
        high, low, weights = np.zeros((3, domain.size), np.int64)
        return cls(domain, high, low, weights)

    def add(self, absolute: Absolute | None, weight: int) -> None:
        """Take in what a member has sent; whatever the order, the sums are the same bit for bit.

        Raises:
            ValueError: a value outside its bounds, or none of this model; the sums are as before.
        """
        if absolute is None:
            return
        if not self.domain.admits(absolute, np.empty(0, np.int64)):
            raise ValueError("absolute values outside their bounds, or of another model")
        places = absolute.places(self.domain.size)
        units = np.rint(np.ldexp(absolute.values.astype(np.float64), _SCALE_BITS)).astype(np.int64)
        self.high[places] += (units >> _HALF_BITS) * weight
        self.low[places] += (units & ((1 << _HALF_BITS) - 1)) * weight
        self.weights[places] += weight

    def blend(self, stepped: F32, parameters: F32, blend: float) -> None:
        """Move the absolute values of `parameters` (n,), and put them into `stepped` (n,), in place.

        What nobody has sent stays. + − × ÷ in float64 and one rounding: the same on every CPU.

        Example:
            >>> from edgeclient.bundle.domain import Bounds
            >>> sums = Sums.empty(Domain.of([(slice(1, 3), Bounds(low=0.0))]))
            >>> sums.add(Absolute(0, np.array([8.0], np.float32)), 3)
            >>> sums.add(Absolute(0, np.array([4.0, 2.0], np.float32)), 1)
            >>> stepped = np.zeros(3, np.float32)
            >>> sums.blend(stepped, np.ones(3, np.float32), 0.5)
            >>> stepped
            array([0. , 4. , 1.5], dtype=float32)
        """
        old = parameters[self.domain.places]
        sent = self.weights > 0
        total = np.ldexp(self.high[sent].astype(np.float64), _HALF_BITS) + self.low[sent].astype(np.float64)
        mean = np.ldexp(total / self.weights[sent].astype(np.float64), -_SCALE_BITS)
        x = old.astype(np.float64)
        x[sent] += blend * (mean - x[sent])
        stepped[self.domain.places] = self.domain.clipped(x.astype(np.float32))
