"""Layer-wise top-k: the largest entries of each tensor, instead of the largest of all."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.compress.quantise import Mode, Quantiser
from edgeclient.compress.select import top_k
from edgeclient.compress.update import SparseUpdate
from edgeclient.train.trainer import LocalRound
from edgeclient.wire import frame
from edgeclient.wire.frame import Coding, Frame
from tools.compare.schemes import message

_EPOCH: Final = 1
_SEQUENCE: Final = "sequence"


@dataclass(frozen=True, slots=True)
class LayerWise:
    """k = density · size in every tensor (Deep Gradient Compression, 1712.01887); values and bytes as in the product.

    Attributes:
        name: as in tables.
        density: fraction of each tensor, at least one entry.
        values: precision.
        feedback: whether what is not sent is kept.
    """

    name: str
    density: float
    values: Mode = "step"
    feedback: bool = True

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """See Scheme."""
        layout, memory = turn.layout, turn.memory
        np.add(made.delta, residual, out=out)
        largest = [
            first + top_k(out[first:last], math.ceil(self.density * (last - first)))
            for first, last in pairwise(layout.bounds)
        ]
        indices = np.concatenate(largest)
        quantiser = Quantiser(turn.announced.value_limit, self.values, bounds=layout.bounds)
        update = SparseUpdate(layout.size, indices, quantiser(indices, out[indices]))
        out[indices] -= update.values.decoded()
        if not self.feedback:
            out[:] = 0
        layers = frame.encode_layers(update, message.origin(made, turn), Coding(tensors=layout.tensors))
        bodies = [body for layer in layers for body in layer]
        first = memory.get(_SEQUENCE, 0)
        memory[_SEQUENCE] = first + len(bodies)
        return [frame.stamp(body, epoch=_EPOCH, sequence=first + at) for at, body in enumerate(bodies)]

    def read(self, body: bytes, layout: Layout) -> Frame:
        """See Scheme."""
        return frame.decode(body, layout.tensors)
