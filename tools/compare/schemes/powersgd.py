"""PowerSGD: each matrix of a delta as the product of two thin ones (1905.13727)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32, F64
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.frame import Frame
from tools.compare.schemes import message

_FACTORS: Final = "factors"


@dataclass(frozen=True, slots=True)
class PowerSgd:
    """One power iteration a round from the factor of the round before; vectors, and small matrices, go as they are.

    The original reduces P and then Q over all workers between the halves of an iteration, so that all of them send
    factors of their mean. A device that wakes when it pleases cannot: here each sends factors of its own, P with
    orthonormal columns and Q, and the aggregator adds up products. What the fleet sends together may be of any rank.

    Attributes:
        name: as in tables.
        rank: columns of the factors.
        feedback: whether what is left of a matrix is kept.
    """

    name: str
    rank: int
    feedback: bool = True

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """See Scheme."""
        layout, limit = turn.layout, turn.announced.value_limit
        warm: dict[int, F64] = turn.memory.setdefault(_FACTORS, {})
        np.add(made.delta, residual, out=out)
        parts = []
        for first, last, rows, columns in _matrices(layout):
            part = out[first:last]
            if not self._thin(rows, columns):
                sent = np.clip(part, np.float32(-limit), np.float32(limit))
                parts.append(sent)
                part -= sent
                continue
            start = warm.get(first)
            if start is None:
                start = np.random.default_rng([turn.seed & 0xFFFF_FFFF, first]).standard_normal((columns, self.rank))
            matrix = part.reshape(rows, columns).astype(np.float64)
            left = np.linalg.qr(matrix @ start)[0]
            right = matrix.T @ left
            if right.any():
                warm[first] = np.linalg.qr(right)[0]  # scaled, so that small deltas do not vanish in it
            largest = float(np.abs(left @ right.T).max())
            right *= min(1.0, limit * (1 - 2.0**-20) / largest) if largest else 1.0
            factors = left.astype(np.float32).ravel(), right.astype(np.float32).ravel()
            parts += factors
            part -= _product(*factors, self.rank)
        if not self.feedback:
            out[:] = 0
        return message.write(np.concatenate(parts).astype("<f4").tobytes(), made, turn)

    def read(self, body: bytes, layout: Layout) -> Frame:
        """See Scheme."""
        header, reader = message.opened(body, layout)
        values = np.empty(layout.size, np.float32)
        for first, last, rows, columns in _matrices(layout):
            if self._thin(rows, columns):
                left, right = (message.floats(reader, each * self.rank) for each in (rows, columns))
                values[first:last] = message.finite(_product(left, right, self.rank))
            else:
                values[first:last] = message.floats(reader, last - first)
        reader.finish()
        return message.whole(header, values, layout)

    def _thin(self, rows: int, columns: int) -> bool:
        return rows > 1 and self.rank * (rows + columns) < rows * columns


def _matrices(layout: Layout) -> list[tuple[int, int, int, int]]:
    """First coordinate, the one behind the last, rows and columns of each tensor."""
    return [(*ends, *shape) for ends, shape in zip(pairwise(layout.bounds), layout.tensors, strict=True)]


def _product(left: F32, right: F32, rank: int) -> F32:
    """What both sides make of the factors, float32 (rows · columns,)."""
    with np.errstate(all="ignore"):
        wide = left.reshape(-1, rank).astype(np.float64) @ right.reshape(-1, rank).astype(np.float64).T
        return wide.astype(np.float32).ravel()
