"""A round's compressed update as frames that keep to a budget: what does not fit stays in the residual."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import Compressed, fewer
from edgeclient.compress.pace import Pace, Target, learnt, within_budget
from edgeclient.compress.quantise import Quantiser
from edgeclient.wire.frame.absolute import SMALL_BYTES
from edgeclient.wire.frame.header import Origin
from edgeclient.wire.frame.split import Coding, encode_layers

_NONE: Final = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The frames of a round, and what they leave behind.

    Attributes:
        layers: frames without identity, the more important layer first; none where nothing is sent.
        compressed: the round with the entries that the frames hold, and the residual that goes with them.
    """

    layers: list[list[bytes]]
    compressed: Compressed

    @property
    def residual(self) -> F32:
        """What the frames leave unsent, float32 (n,)."""
        return self.compressed.residual

    @property
    def entries(self) -> int:
        """How many entries are sent."""
        return self.compressed.update.indices.size

    @property
    def frame_bytes(self) -> int:
        """Of all frames together."""
        return sum(len(frame) for layer in self.layers for frame in layer)

    def pace(self, before: Pace, aim: Target) -> Pace:
        """What this round teaches the next; `aim` is what it was compressed for."""
        made = self.compressed
        pace = learnt(before, aim, made.selection.values, entries=self.entries, frame_bytes=self.frame_bytes)
        return replace(pace, selected=made.threshold, residual_norm=made.norm)


def pack(
    compressed: Compressed,
    origin: Origin,
    coding: Coding,
    quantiser: Quantiser | None = None,
    budget_bytes: int = 0,
    absolute: F32 = _NONE,
) -> Packed:
    """The frames of a compressed update, at most `budget_bytes` together.

    What an entry costs is known once it is coded: while the frames are over the budget, the smallest entries go back
    into `compressed.residual`, in place, and the rest is coded again, once or twice as a rule.

    Args:
        compressed: what `compress` made of a round.
        origin: where it comes from.
        coding: how an update becomes frames.
        quantiser: the one that `compressed` was made with.
        budget_bytes: 0 for no limit.
        absolute: what travels as it is, float32 (a,): a slice of it, where the budget has room for that.

    Raises:
        WireError: "too-large", when not even one entry per frame fits.

    Example:
        >>> from edgeclient.compress.feedback import compress
        >>> made = compress(np.arange(900, dtype=np.float32), np.zeros(900, np.float32), k=400)
        >>> packed = pack(made, Origin("har", "pi-7", b"tag4", 1, 4, 320), Coding(), budget_bytes=70)
        >>> packed.entries < 400, packed.frame_bytes <= 70, len(packed.layers)
        (True, True, 1)
    """
    if 0 < budget_bytes < SMALL_BYTES:
        absolute = _NONE
    packed = Packed(encode_layers(compressed.update, origin, coding, absolute), compressed)
    while (fit := within_budget(packed.entries, packed.frame_bytes, budget_bytes)) < packed.entries:
        compressed = fewer(packed.compressed, fit, quantiser)
        packed = Packed(encode_layers(compressed.update, origin, coding, absolute), compressed)
    return packed
