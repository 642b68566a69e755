"""Random-k: coordinates drawn from a seed that both sides share, so that positions cost nothing but the seed."""

import math
from dataclasses import dataclass

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.absolute import bfloat16
from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.frame import Frame
from tools.compare.schemes import message


@dataclass(frozen=True, slots=True)
class RandomK:
    """k = density · n coordinates, the same for all devices in a version, in float32 or bfloat16.

    With feedback the values go as they are: that is no contraction in every round, but in the mean over seeds
    (1809.07599). Without, they are scaled by n/k and unbiased (1610.05492); in bfloat16 up to its rounding, and up to
    the value limit, which cuts off what the factor makes too large.

    Attributes:
        name: as in tables.
        density: fraction that is sent.
        feedback: whether what is not sent is kept.
        half: bfloat16 instead of float32.
    """

    name: str
    density: float
    feedback: bool = True
    half: bool = True

    def chosen(self, layout: Layout, seed: int, version: int) -> I64:
        """The coordinates of a version, int64 (k,), ascending; none of what travels as absolute values."""
        free = np.delete(np.arange(layout.size), layout.domain.places)
        k = math.ceil(self.density * free.size)
        return np.sort(np.random.default_rng([seed, version]).choice(free, k, replace=False))

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """See Scheme."""
        limit, seed = np.float32(turn.announced.value_limit), turn.seed & 0xFFFF_FFFF
        indices = self.chosen(turn.layout, seed, turn.announced.version)
        np.add(made.delta, residual, out=out)
        scale = np.float32(1 if self.feedback else 1 / self.density)
        values = np.clip(out[indices] * scale, -limit, limit)
        if self.half:
            values = bfloat16(values)
        out[indices] -= values
        if not self.feedback:
            out[:] = 0
        content = (values.view(np.uint32) >> 16).astype("<u2") if self.half else values.astype("<f4")
        return message.write(seed.to_bytes(4, "little") + content.tobytes(), made, turn)

    def read(self, body: bytes, layout: Layout) -> Frame:
        """See Scheme."""
        header, reader = message.opened(body, layout)
        (seed,) = reader.unpack("<I")
        indices = self.chosen(layout, seed, header.base_version)
        if self.half:
            halves = np.frombuffer(reader.take(2 * indices.size), "<u2").astype(np.uint32) << np.uint32(16)
            values = message.finite(halves.view(np.float32))
        else:
            values = message.floats(reader, indices.size)
        reader.finish()
        return header.frame(SparseUpdate(layout.size, indices, FloatValues(values)))
