"""From an MQTT message on `up` to what a device said, and whether its frame may count."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from edgeclient.bundle.layout import Layout
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.announcement import VALUE_LIMIT
from edgeclient.wire.errors import WireError
from edgeclient.wire.messages import Refusal


@dataclass(frozen=True, slots=True, eq=False)
class FrameIn:
    """A frame as it came, with its decoded form; without entries, if they cannot be read for another layout's."""

    task: str
    device: str
    body: bytes
    frame: frame.Frame


@dataclass(frozen=True, slots=True)
class HelloIn:
    """A device has connected."""

    task: str
    device: str
    hello: messages.Hello


@dataclass(frozen=True, slots=True)
class WithdrawIn:
    """A device asks that frames which may be under way shall not count."""

    task: str
    device: str
    withdraw: messages.Withdraw


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that are no message of ours: counted per device and dropped. `device` is "" when unknown."""

    device: str
    reason: str
    detail: str


def misaddressed(said: "FrameIn | HelloIn | WithdrawIn", ledger: str) -> Rejected | None:
    """What was said to another ledger, or made for another task or device: nobody answers that here.

    An answer would settle at the device what another ledger counts.
    """
    match said:
        case FrameIn(task, device, _, made) if made.address != frame.address(task, device, ledger):
            return Rejected(device, "address", "a frame was made for another task, device or ledger")
        case HelloIn(_, device, hello) if hello.ledger != ledger and hello.epoch != messages.NOBODY:
            return Rejected(device, "address", f"it follows ledger {hello.ledger}, not this one, {ledger}")
        case WithdrawIn(_, device, withdraw) if withdraw.ledger != ledger:
            return Rejected(device, "address", f"it follows ledger {withdraw.ledger}, not this one, {ledger}")
    return None


Incoming: TypeAlias = FrameIn | HelloIn | WithdrawIn | Rejected

# The sequence after it would not fit a receipt, so that it is never assigned.
_NO_SEQUENCE: Final = 0xFFFF_FFFF


def decode(topic: str, payload: bytes, layouts: Mapping[str, Layout]) -> Incoming:
    """What the message says, given the layouts of tasks by name; never raises, whatever the bytes."""
    device = ""
    try:
        parsed = topics.parse(topic)
        if parsed.kind != "up":
            return Rejected(device, "topic", f"{topic[:120]!r} is not an upload")
        (device,) = parsed.rest
        match messages.kind(payload):
            case messages.HELLO:
                return HelloIn(parsed.task, device, messages.decode_hello(payload))
            case messages.WITHDRAW:
                withdraw = messages.decode_withdraw(payload)
                _check(withdraw.frames[-1][0])
                return WithdrawIn(parsed.task, device, withdraw)
        made = _frame(payload, layouts.get(parsed.task))
        _check(made.sequence)
        return FrameIn(parsed.task, device, payload, made)
    except WireError as error:
        return Rejected(device, error.reason, error.detail)


def _check(sequence: int) -> None:
    if sequence == _NO_SEQUENCE:
        raise WireError("range", f"sequence {sequence} is never assigned")


def _frame(payload: bytes, layout: Layout | None) -> frame.Frame:
    """A frame for another layout is not read but answered: its device resends until it has a receipt."""
    opened = frame.Opened(payload)
    if layout is not None and opened.header.layout_tag != layout.tag:
        return opened.bare()
    return opened.decode(layout.tensors if layout is not None else None)


def refusal(made: frame.Frame, layout: Layout, version: int, max_staleness: int) -> Refusal | None:
    """Why a frame is not admitted, or None when it is; `version` is the current one."""
    if made.layout_tag != layout.tag or made.update.size != layout.size:
        return Refusal.LAYOUT
    if made.base_version > version:
        return Refusal.FUTURE
    if version - made.base_version > max_staleness:
        return Refusal.STALE
    if float(np.abs(made.update.values.decoded()).max()) > VALUE_LIMIT:
        return Refusal.VALUE_LIMIT
    return None if layout.domain.admits(made.absolute, made.update.indices) else Refusal.DOMAIN
