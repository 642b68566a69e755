"""How a device's delta becomes bytes, and what the other side reads from them: the seam where compressors compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress
from edgeclient.compress.pace import Pace
from edgeclient.compress.quantise import Mode
from edgeclient.settings import Data, Device, Source, Training, Upload
from edgeclient.train.trainer import LocalRound
from edgeclient.uplink.terms import Terms
from edgeclient.wire import frame
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.frame import Frame, Origin
from edgeclient.wire.frame.pack import pack
from edgeclient.wire.limits import MAX_FRAME_BYTES

_EPOCH: Final = 1
_PACE: Final = "pace"
_SEQUENCE: Final = "sequence"


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What a scheme is told of one update.

    Attributes:
        announced: the version that the delta begins at, and what the task asks for.
        layout: of the parameters.
        device: its id.
        number: of the update, from 0.
        seed: of the whole run; with the version it makes seeds that both sides share.
        memory: what the scheme keeps for this device from round to round besides the residual; empty at first.
    """

    announced: Announcement
    layout: Layout
    device: str
    number: int
    seed: int
    memory: dict[str, Any]


class Scheme(Protocol):
    """A way to send a delta."""

    @property
    def name(self) -> str:
        """As in tables."""

    @property
    def feedback(self) -> bool:
        """Whether what is not sent is kept for the next round."""

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        """The messages of one update, the most important first.

        Args:
            made: the round.
            residual: what earlier rounds left, float32 (n,); zeros without feedback.
            out: gets the new residual, float32 (n,).
            turn: see Turn.
        """

    def read(self, body: bytes, layout: Layout) -> Frame:
        """What the aggregator finds in a message.

        Raises:
            WireError: it is none.
        """


@dataclass(frozen=True, slots=True)
class Sparse:
    """The product's own way: terms, error feedback, selection, values on a grid, frames.

    Attributes:
        name: as in tables.
        values: precision, as in a device's [upload].
        feedback: without, what is not sent is lost.
        policy: what it asks for instead of the task, such as {"density": 0.0025} or {"steady": True}.
        tensors: without, positions are coded in a tenth of the time and some more bytes; the entries are the same.
    """

    name: str = "top-k"
    values: Mode = "step"
    feedback: bool = True
    policy: Mapping[str, Any] = field(default_factory=dict)
    tensors: bool = True

    def send(self, made: LocalRound, residual: F32, out: F32, turn: Turn) -> list[bytes]:
        announced, layout, memory = turn.announced, turn.layout, turn.memory
        announced = replace(announced, policy=replace(announced.policy, **self.policy))
        terms = Terms(announced, _granting(self.values), layout, MAX_FRAME_BYTES)
        pace: Pace = memory.get(_PACE, Pace())
        aim = terms.aim(pace, share=made.share, free_bytes=None, held=())
        compressed = compress(
            made.delta, residual, aim, quantiser=terms.quantiser, last_threshold=pace.selected, out=out
        )
        origin = Origin(
            announced.task, turn.device, layout.tag, turn.number, announced.version, made.num_examples, announced.ledger
        )
        coding = terms.coding if self.tensors else replace(terms.coding, tensors=None)
        packed = pack(compressed, origin, coding, terms.quantiser, terms.budget_bytes, made.absolute)
        memory[_PACE] = packed.pace(pace, aim)
        if not self.feedback:
            out[:] = 0
        first = memory.get(_SEQUENCE, 0)
        bodies = [
            frame.stamp(body, epoch=_EPOCH, sequence=first + at)
            for at, body in enumerate(body for layer in packed.layers for body in layer)
        ]
        memory[_SEQUENCE] = first + len(bodies)
        return bodies

    def read(self, body: bytes, layout: Layout) -> Frame:
        return frame.decode(body, layout.tensors)


@cache
def _granting(values: Mode) -> Device:
    """A device whose owner grants everything."""
    return Device(
        "simulated", "simulated", Path(), Data(Source("simulated:data")), training=Training(max_density=1.0),
        upload=Upload(values=values),
    )  # fmt: skip
