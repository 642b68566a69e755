"""Whether a decoded frame may count: a pure function of the frame and the task's terms."""

from dataclasses import dataclass

import numpy as np

from edgeclient.wire.frame import Frame
from edgeclient.wire.messages import Refusal


@dataclass(frozen=True, slots=True)
class Terms:
    """What a task admits at this moment.

    Attributes:
        layout_tag: first 4 bytes of the layout digest.
        size: n.
        version: current model version.
        max_staleness: oldest admitted base is `version - max_staleness`.
        value_limit: largest magnitude of a decoded entry.
    """

    layout_tag: bytes
    size: int
    version: int
    max_staleness: int
    value_limit: float


def refusal(frame: Frame, address: int, terms: Terms) -> Refusal | None:
    """Why the frame is not admitted, or None when it is; `address` is that of its topic."""
    if frame.address != address:
        return Refusal.ADDRESS
    if frame.layout_tag != terms.layout_tag or frame.update.size != terms.size:
        return Refusal.LAYOUT
    if frame.base_version > terms.version:
        return Refusal.FUTURE
    if terms.version - frame.base_version > terms.max_staleness:
        return Refusal.STALE
    if float(np.abs(frame.update.values.decoded()).max()) > terms.value_limit:
        return Refusal.VALUE_LIMIT
    return None
