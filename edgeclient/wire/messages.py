"""HELLO, WITHDRAW and RECEIPT: what device and aggregator say about frames (FORMAT.md, sections 4 and 5)."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import FRAME_VERSION, MAX_RECEIPT_BYTES, MAX_RECEIPT_LIST, MAX_WITHDRAW_LIST, WIRE_VERSION
from edgeclient.wire.reader import Reader, sealed, unsealed

MAGIC: Final = b"EC"
PREFIX_BYTES: Final = 4

FRAME: Final = 1
HELLO: Final = 2
WITHDRAW: Final = 3
RECEIPT: Final = 4

NO_LEDGER: Final = "0" * 16
NOBODY: Final = 0  # an epoch that no store has: HELLO of it asks for an answer, and leaves no trace

_PREFIX: Final = struct.Struct("<2sBB")
_HELLO: Final = struct.Struct("<2sBBQII8s")
_WITHDRAW: Final = struct.Struct("<2sBBQ8sH")
_NAMED: Final = struct.Struct("<I8s")
_RECEIPT: Final = struct.Struct("<2sBBQIIBHH")
_CONFLICT: Final = 1


class Refusal(IntEnum):
    """Why the aggregator does not apply a frame."""

    LAYOUT = 1  # made for another parameter layout or size
    STALE = 2  # its base version is older than the task allows
    FUTURE = 3  # its base version does not exist yet
    VALUE_LIMIT = 4  # an entry is larger than the announced limit
    CONFLICT = 5  # its identity was used before for other bytes
    UPDATE = 6  # its part does not fit the update it names
    WITHDRAWN = 7  # the device asked to forget it before it came
    DOMAIN = 8  # an absolute value lies outside its bounds, or an entry where values are absolute

    @property
    def reason(self) -> str:
        """The label for logs and metrics."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Hello:
    """Said by a device at every connect.

    Attributes:
        epoch: random 64 bits of the device's store.
        next_sequence: the first sequence the store has not assigned.
        confirmed: every sequence below it is settled on the device.
        ledger: that the device follows, 16 hexadecimal digits; another one does not answer.
    """

    epoch: int
    next_sequence: int
    confirmed: int
    ledger: str = NO_LEDGER


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Asks the aggregator not to apply frames that may still be under way: superseded, too old, or no room for them.

    What is applied already stays applied. The rest is refused as WITHDRAWN, whenever it comes, and its entries return.

    Attributes:
        epoch: random 64 bits of the device's store.
        frames: (sequence, digest) of each, sequences ascending.
        ledger: that the device follows; another one does not answer.
    """

    epoch: int
    frames: tuple[tuple[int, bytes], ...]
    ledger: str = NO_LEDGER


@dataclass(frozen=True, slots=True)
class Receipt:
    """The aggregator's durable answer about one epoch of a device.

    Attributes:
        epoch: which epoch it speaks of.
        watermark: every sequence below it is applied, unless listed in `refused`.
        seen: one more than the highest sequence the ledger knows.
        conflict: sequence and digest of a frame whose identity the ledger knows with other bytes, as the last one came;
            the store that made it is a copy and begins a new epoch.
        applied: sequences from the watermark on that are applied.
        refused: sequences not applied, with the reason.
    """

    epoch: int
    watermark: int
    seen: int
    conflict: tuple[int, bytes] | None = None
    applied: tuple[int, ...] = ()
    refused: tuple[tuple[int, Refusal], ...] = ()


def kind(data: bytes) -> int:
    """The kind of any message in the version that this side speaks."""
    if len(data) < PREFIX_BYTES:
        raise WireError("truncated", f"{len(data)} bytes are too few for a message")
    magic, version, message_kind = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise WireError("magic", f"starts with {magic!r}, not {MAGIC!r}")
    spoken = FRAME_VERSION if message_kind == FRAME else WIRE_VERSION
    if version != spoken:
        raise WireError("version", f"wire version {version} of message kind {message_kind}, this side speaks {spoken}")
    return int(message_kind)


def check_prefix(data: bytes, wanted: int) -> None:
    """WireError unless `data` begins as a message of the wanted kind."""
    found = kind(data)
    if found != wanted:
        raise WireError("kind", f"message kind {found}, wanted {wanted}")


def encode_hello(hello: Hello) -> bytes:
    """32 bytes."""
    ledger = bytes.fromhex(hello.ledger)
    return sealed(_HELLO.pack(MAGIC, WIRE_VERSION, HELLO, hello.epoch, hello.next_sequence, hello.confirmed, ledger))


def decode_hello(data: bytes) -> Hello:
    """The HELLO in `data`, or WireError."""
    check_prefix(data, HELLO)
    reader = Reader(unsealed(data))
    _, _, _, epoch, next_sequence, confirmed, ledger = reader.unpack(_HELLO.format)
    reader.finish()
    if confirmed > next_sequence:
        raise WireError("range", f"confirmed {confirmed} of {next_sequence} sequences")
    return Hello(epoch, next_sequence, confirmed, ledger.hex())


def encode_withdraw(withdraw: Withdraw) -> bytes:
    """At most MAX_WITHDRAW_LIST frames.

    Example:
        >>> decode_withdraw(encode_withdraw(Withdraw(7, ((3, b"01234567"),))))
        Withdraw(epoch=7, frames=((3, b'01234567'),), ledger='0000000000000000')
    """
    if not 1 <= len(withdraw.frames) <= MAX_WITHDRAW_LIST:
        raise ValueError(f"{len(withdraw.frames)} frames to withdraw at once, 1 to {MAX_WITHDRAW_LIST} are allowed")
    return sealed(
        _WITHDRAW.pack(
            MAGIC, WIRE_VERSION, WITHDRAW, withdraw.epoch, bytes.fromhex(withdraw.ledger), len(withdraw.frames)
        )
        + b"".join(_NAMED.pack(sequence, digest) for sequence, digest in withdraw.frames)
    )


def decode_withdraw(data: bytes) -> Withdraw:
    """The WITHDRAW in `data`, or WireError."""
    check_prefix(data, WITHDRAW)
    reader = Reader(unsealed(data))
    _, _, _, epoch, ledger, count = reader.unpack(_WITHDRAW.format)
    if not 1 <= count <= MAX_WITHDRAW_LIST:
        raise WireError("range", f"{count} frames to withdraw, 1 to {MAX_WITHDRAW_LIST} are allowed")
    frames = tuple(
        (int(sequence), bytes(digest)) for sequence, digest in (reader.unpack(_NAMED.format) for _ in range(count))
    )
    reader.finish()
    if any(later <= earlier for (earlier, _), (later, _) in pairwise(frames)):
        raise WireError("range", "withdrawn sequences do not ascend")
    return Withdraw(epoch, frames, ledger.hex())


def encode_receipt(receipt: Receipt) -> bytes:
    """Lists longer than the limit are cut: what is left out is told when the device asks again."""
    applied = receipt.applied[:MAX_RECEIPT_LIST]
    refused = receipt.refused[:MAX_RECEIPT_LIST]
    watermark = receipt.watermark
    if len(refused) < len(receipt.refused):  # an unlisted refusal must not pass for applied
        watermark = min(watermark, receipt.refused[MAX_RECEIPT_LIST][0])
    return sealed(
        _RECEIPT.pack(
            MAGIC, WIRE_VERSION, RECEIPT, receipt.epoch, watermark, receipt.seen,
            _CONFLICT if receipt.conflict else 0, len(applied), len(refused),
        )
        + (_NAMED.pack(*receipt.conflict) if receipt.conflict else b"")
        + struct.pack(f"<{len(applied)}I", *applied)
        + b"".join(struct.pack("<IB", sequence, refusal) for sequence, refusal in refused)
    )  # fmt: skip


def decode_receipt(data: bytes) -> Receipt:
    """The receipt in `data`, or WireError."""
    if len(data) > MAX_RECEIPT_BYTES:
        raise WireError("too-large", f"{len(data)} bytes, at most {MAX_RECEIPT_BYTES} are allowed")
    check_prefix(data, RECEIPT)
    reader = Reader(unsealed(data))
    _, _, _, epoch, watermark, seen, flags, applied_count, refused_count = reader.unpack(_RECEIPT.format)
    if flags & ~_CONFLICT:
        raise WireError("flags", f"reserved bits are set: {flags:#04x}")
    conflict = reader.unpack(_NAMED.format) if flags & _CONFLICT else None
    applied = reader.unpack(f"<{applied_count}I")
    refused = []
    for _ in range(refused_count):
        sequence, code = reader.unpack("<IB")
        if code not in Refusal.__members__.values():
            raise WireError("range", f"refusal code {code} is unknown")
        refused.append((sequence, Refusal(code)))
    reader.finish()
    if conflict is not None and conflict[0] >= seen:
        raise WireError("range", f"a conflict about sequence {conflict[0]}, beyond the {seen} that were seen")
    if watermark > seen or any(s >= seen for s in applied) or any(s >= seen for s, _ in refused):
        raise WireError("range", f"a sequence lies beyond the {seen} that were seen")
    return Receipt(epoch, watermark, seen, conflict and (conflict[0], conflict[1]), applied, tuple(refused))
