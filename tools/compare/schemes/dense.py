"""All of a delta in float32, zeros included: 4 bytes a parameter, what ratios of the literature are told against."""

from dataclasses import dataclass

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.train.trainer import LocalRound
from edgeclient.wire.frame import Frame
from tools.compare.schemes import message


@dataclass(frozen=True, slots=True)
class Dense:
    """Federated averaging without compression (1602.05629), in one message; what is over the value limit is cut off."""

    name: str = "dense float32, 4n"
    feedback: bool = False

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """See Scheme."""
        limit = np.float32(turn.announced.value_limit)
        out[:] = 0
        return message.write(np.clip(made.delta + residual, -limit, limit).astype("<f4").tobytes(), made, turn)

    def read(self, body: bytes, layout: Layout) -> Frame:
        """See Scheme."""
        header, reader = message.opened(body, layout)
        values = message.floats(reader, layout.size)
        reader.finish()
        return message.whole(header, values, layout)
