"""SparseLoCo's setting: top-k within chunks, 2 bits a value, a residual that fades (2508.15706)."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32, I64, Bools
from edgeclient.compress.quantise import bfloat16_nearest
from edgeclient.compress.select import top_k
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import Frame
from edgeclient.wire.reader import packed_bits, varint
from tools.compare.schemes import message

CHUNK: Final = 4096
_PLACE_BITS: Final = 12


@dataclass(frozen=True, slots=True)
class SparseLoco:
    """The largest entries of each chunk of 4096; a place of 12 bits, a sign, and one of two magnitudes each.

    A chunk is so many numbers of a tensor in their order; the original cuts matrices into blocks of 64 by 64. Its two
    magnitudes are the means below and above the mean one, of a tensor, in bfloat16. The outer optimiser is the
    aggregator's.

    Attributes:
        name: as in tables.
        density: fraction of each chunk, at least one entry.
        decay: what a round leaves of the residual.
        feedback: whether what is not sent is kept.
    """

    name: str
    density: float
    decay: float = 0.95
    feedback: bool = True

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """See Scheme."""
        np.add(made.delta, residual, out=out)
        limit, parts = turn.announced.value_limit, list[bytes]()
        for first, last in pairwise(turn.layout.bounds):
            places = [
                top_k(out[at : min(at + CHUNK, last)], self._most(min(CHUNK, last - at)))
                for at in range(first, last, CHUNK)
            ]
            indices = np.concatenate([at + each for at, each in zip(range(first, last, CHUNK), places, strict=True)])
            values = out[indices]
            low, high, upper = _magnitudes(np.minimum(np.abs(values), np.float32(limit)))
            sent = _values(low, high, upper, np.signbit(values))
            out[indices] = values - sent
            bits = (np.concatenate(places)[:, None] >> np.arange(_PLACE_BITS)) & 1
            parts += [
                b"".join(varint(each.size) for each in places),
                (np.array([low, high]).view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes(),
                packed_bits(np.concatenate([bits.ravel(), np.signbit(values), upper])),
            ]
        out *= np.float32(self.decay if self.feedback else 0)
        return message.write(b"".join(parts), made, turn)

    def read(self, body: bytes, layout: Layout) -> Frame:
        """See Scheme."""
        header, reader = message.opened(body, layout)
        found: list[tuple[I64, F32]] = []
        for first, last in pairwise(layout.bounds):
            counts = [reader.varint(limit=self._most(min(CHUNK, last - at))) for at in range(first, last, CHUNK)]
            k = sum(counts)
            grid = np.frombuffer(reader.take(4), "<u2").astype(np.uint32) << np.uint32(16)
            low, high = message.finite(grid.view(np.float32))
            bits = reader.bits(k * (_PLACE_BITS + 2))
            places = bits[: k * _PLACE_BITS].reshape(k, _PLACE_BITS) @ (1 << np.arange(_PLACE_BITS))
            negative, upper = bits[k * _PLACE_BITS :].reshape(2, k) != 0
            indices = places + np.repeat(np.arange(first, last, CHUNK), counts)
            if k and (np.any(np.diff(indices) <= 0) or indices[-1] >= last):
                raise WireError("range", "places of a chunk that do not ascend, or lie behind it")
            found.append((indices, _values(low, high, upper, negative)))
        reader.finish()
        indices, values = (np.concatenate(each) for each in zip(*found, strict=True))
        return header.frame(SparseUpdate(layout.size, indices, FloatValues(values)))

    def _most(self, size: int) -> int:
        return math.ceil(self.density * size)


def _magnitudes(magnitudes: F32) -> tuple[np.float32, np.float32, Bools]:
    """The lower and the upper one, and which entries have the upper."""
    wide = magnitudes.astype(np.float64)
    upper = wide > (wide.mean() if wide.size else 0.0)
    low, high = (
        bfloat16_nearest(float(part.mean())) if part.size else np.float32(0) for part in (wide[~upper], wide[upper])
    )
    return low, high, upper


def _values(low: np.float32, high: np.float32, upper: Bools, negative: Bools) -> F32:
    magnitudes = np.where(upper, high, low)
    return np.where(negative, -magnitudes, magnitudes).astype(np.float32)
