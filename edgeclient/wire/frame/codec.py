"""The frame: an update, or a coordinate range of one, as the bytes of one MQTT message.

FORMAT.md, section 3. Every frame decodes and applies alone.

Example:
    >>> from edgeclient.compress.feedback import compress_with_feedback
    >>> delta = np.array([0, 3, 0, -3, 0], np.float32)
    >>> update, _ = compress_with_feedback(delta, np.zeros(5, np.float32), k=2)
    >>> made = encode_update(update, Origin("har", "pi-7", b"layout-8", 1, 4, 320), MAX_FRAME_BYTES)
    >>> decode(stamp(made[0], epoch=7, sequence=0)).update.values.decoded()
    array([ 3., -3.], dtype=float32)
"""

import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import F32, Bools
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import body as frame2
from edgeclient.wire.frame.origin import Frame, Origin, address, digest
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.messages import FRAME, check_prefix
from edgeclient.wire.reader import Field, Reader, sealed, unsealed

__all__ = [
    "Coding",
    "Frame",
    "Origin",
    "address",
    "decode",
    "digest",
    "encode_layers",
    "encode_update",
    "peek",
    "stamp",
]

T = TypeVar("T")
_IDENTITY: Final = struct.Struct("<QI")
_CHECKSUM: Final = 4
# A frame of a part is filled up to this much, and holds at least the second much of it, unless it is the last.
_AIM: Final = 0.985
_FILLED: Final = 0.9
_FIRST_LAYER: Final = 0.25  # of the entries


@dataclass(frozen=True, slots=True)
class Coding:
    """How an update becomes frames.

    Attributes:
        max_bytes: of a frame.
        tensors: (rows, columns) of the layout's tensors, which the receiver must know too; makes smaller frames.
        accel: which kernels to use.
    """

    max_bytes: int = MAX_FRAME_BYTES
    tensors: Tensors | None = None
    accel: Accel = "auto"


def encode_update(
    update: SparseUpdate,
    origin: Origin,
    max_bytes: int,
    *,
    tensors: Tensors | None = None,
    accel: Accel = "auto",
) -> list[bytes]:
    """Pack an update into few frames, each at most `max_bytes`; see Coding for the other arguments.

    The frames carry no identity yet: `stamp` gives epoch and sequence when they are first sent. An
    update without entries makes no frame.

    Raises:
        WireError: "too-large", when not even one entry per frame fits.
    """
    return _framed([update] if update.indices.size else [], origin, Coding(max_bytes, tensors, accel))[0]


def encode_layers(update: SparseUpdate, origin: Origin, coding: Coding) -> list[list[bytes]]:
    """The frames of an update in at most two layers, the more important first.

    An update of one frame is one layer. Of a larger one, the first layer holds the largest values, about a quarter of
    the entries: on a link that breaks midway they carry more energy a byte. Where too many values are equal, there
    is one layer: two would cost positions (up to 0.8 bits an entry) and gain nothing.

    Raises:
        WireError: as `encode_update`.

    Example:
        >>> from edgeclient.compress.quantise import quantise
        >>> values = np.array([8, 1, 2, 1, 1, 1, 9, 1], np.float32)
        >>> update = SparseUpdate(99, np.arange(8) * 9, quantise(values, 16.0, "float32"))
        >>> layers = encode_layers(update, Origin("har", "pi-7", b"layout-8", 1, 4, 320), Coding(max_bytes=60))
        >>> [[decode(each).update.values.decoded().tolist() for each in layer] for layer in layers]
        [[[8.0, 9.0]], [[1.0, 2.0, 1.0], [1.0, 1.0], [1.0]]]
    """
    entries = update.indices.size
    if not entries:
        return []
    # The guess is at most twice the bits of structured updates; within that, one frame may do.
    if entries * _guessed_bits(update) < 16 * coding.max_bytes:
        (frames,) = _framed([update], origin, coding)
        if len(frames) == 1:
            return [frames]
    first = _largest(np.abs(update.values.decoded()))
    if first is None:
        return _framed([update], origin, coding)
    return _framed([update.among(first), update.among(~first)], origin, coding)


def _largest(magnitudes: F32) -> Bools | None:
    """About the largest quarter, cut between different values; None where no cut is near that."""
    distinct, counts = np.unique(magnitudes, return_counts=True)
    above = np.cumsum(counts[::-1])[::-1] / magnitudes.size
    cut = int(np.abs(above - _FIRST_LAYER).argmin())
    return magnitudes >= distinct[cut] if _FIRST_LAYER / 4 <= above[cut] <= 2 * _FIRST_LAYER else None


def _framed(layers: list[SparseUpdate], origin: Origin, coding: Coding) -> list[list[bytes]]:
    """The frames of each layer; their parts count on through all of them."""
    split = len(layers) > 1

    def encode(piece: SparseUpdate, whole: bool) -> frame2.Body:
        whole = whole and not split
        first = 0 if whole else int(piece.indices[0])
        span = piece.size if whole else int(piece.indices[-1]) - first + 1
        return frame2.encode_body(piece, first, span, coding.tensors, coding.accel)

    def size(body: frame2.Body) -> int:
        part, parts = (0, 1) if body.span == size_ and not split else (frame2.MAX_PARTS - 1, frame2.MAX_PARTS)
        return len(frame2.encode_header(body, origin, size_, part, parts)) + len(body.content)

    def finished(body: frame2.Body, part: int, parts: int) -> bytes:
        return sealed(frame2.encode_header(body, origin, size_, part, parts) + body.content)

    size_ = layers[0].size if layers else 0
    return _numbered([_pieces(layer, coding, encode, size) for layer in layers], finished)


def _numbered(layers: list[list[T]], finished: Callable[[T, int, int], bytes]) -> list[list[bytes]]:
    parts = sum(map(len, layers))
    if parts > frame2.MAX_PARTS:
        raise WireError("too-large", f"{parts} frames for one update, at most {frame2.MAX_PARTS} are allowed")
    number = itertools.count()
    return [[finished(body, next(number), parts) for body in layer] for layer in layers] or [[]]


def _pieces(
    update: SparseUpdate, coding: Coding, encode: Callable[[SparseUpdate, bool], T], size: Callable[[T], int]
) -> list[T]:
    """The update in coordinate ranges that are encoded once or twice each, so that a large one takes linear time."""
    k, room = update.indices.size, coding.max_bytes - _CHECKSUM
    made: list[T] = []
    at, count = 0, min(k, max(1, math.ceil(8 * room / _guessed_bits(update))))
    spare: tuple[int, T] | None = None  # one that fits, but leaves too much room
    while at < k:
        count = min(count, k - at)
        body = encode(update.between(at, at + count), count == k)
        taken = size(body)
        fuller = max(1, int(count * _AIM * room / taken))
        if taken > room and spare is None:
            if count == 1 or len(made) == frame2.MAX_PARTS:
                raise WireError("too-large", f"{k} entries do not fit into frames of {room + _CHECKSUM} bytes")
            count = min(count - 1, fuller)
            continue
        if taken > room and spare is not None:
            count, body = spare
        elif at + count < k and taken < _FILLED * room and fuller > count and spare is None:
            spare = count, body
            count = fuller
            continue
        made.append(body)
        at += count
        count, spare = fuller, None
    return made


def _guessed_bits(update: SparseUpdate) -> float:
    """What an entry may cost, a little too low: the floor of its position, and what its value is likely to take."""
    values = 32.0 if isinstance(update.values, FloatValues) else 1.0
    return math.log2(update.size / update.indices.size) + values


def stamp(frame: bytes, *, epoch: int, sequence: int) -> bytes:
    """The same frame with its identity."""
    body = bytearray(unsealed(frame))
    _IDENTITY.pack_into(body, frame2.IDENTITY_AT, epoch, sequence)
    return sealed(bytes(body))


def decode(
    data: bytes,
    tensors: Tensors | None = None,
    *,
    max_bytes: int = MAX_FRAME_BYTES,
    accel: Accel = "auto",
    trace: list[Field] | None = None,
) -> Frame:
    """The frame in `data`.

    Args:
        data: a whole message.
        tensors: (rows, columns) of the layout's tensors, as far as it is known here.
        max_bytes: a longer message is refused unread.
        accel: which kernels to use.
        trace: gets which bytes were read as what.

    Raises:
        WireError: anything that FORMAT.md does not allow; "layout", if its tensors are needed and not given.
    """
    return frame2.decode(_opened(data, max_bytes, trace), tensors, accel)


def peek(data: bytes, *, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """The frame without its entries, for a layout that is not known here.

    Raises:
        WireError: the checksum or the header is wrong.
    """
    header = frame2.read_header(_opened(data, max_bytes, None))
    return header.frame(SparseUpdate(header.size, np.empty(0, np.int64), FloatValues(np.empty(0, np.float32))))


def _opened(data: bytes, max_bytes: int, trace: list[Field] | None) -> Reader:
    if len(data) > max_bytes:
        raise WireError("too-large", f"{len(data)} bytes, at most {max_bytes} are allowed")
    check_prefix(data, FRAME)
    return Reader(unsealed(data), trace)
